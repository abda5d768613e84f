package show

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Stats is a row of stats. Fields are docker's.
type Stats struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

// StatsTable is the table of stats.
func StatsTable(format string) Table {
	return Table{Format: format, Headings: Headings{
		"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
		"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	}, Default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"}
}

// StatsRow makes the row of a sample; before is the one that its processor time
// is compared with.
func StatsRow(asked string, s, before record.Stats, trunc bool) Stats {
	usage := memoryUsed(s.Memory)
	row := Stats{
		Container: asked, ID: s.ID, Name: s.Name, CPUPerc: percent(cpuShare(s, before)),
		MemUsage: units.BytesSize(float64(usage)) + " / " + units.BytesSize(float64(s.Memory.Limit)),
		NetIO:    "0B / 0B", PIDs: fmt.Sprint(s.Pids.Current), MemPerc: percent(0),
	}
	if s.Memory.Limit > 0 {
		row.MemPerc = percent(float64(usage) / float64(s.Memory.Limit))
	}
	var read, written uint64
	for _, b := range s.Blkio {
		if strings.HasPrefix(b.Op, "r") {
			read += b.Bytes
		} else {
			written += b.Bytes
		}
	}
	row.BlockIO = units.HumanSizeWithPrecision(float64(read), 3) + " / " + units.HumanSizeWithPrecision(float64(written), 3)
	if trunc {
		row.ID = ref.Short(s.ID)
	}
	return row
}

func percent(share float64) string { return fmt.Sprintf("%.2f%%", 100*share) }

// memoryUsed leaves out what the kernel would give up at once: files read and not
// looked at since, under the name that v1 or v2 has for them.
func memoryUsed(m record.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if n, ok := m.Details[name]; ok && n < m.Usage {
			return m.Usage - n
		}
	}
	return m.Usage
}

// cpuShare is how many processors were busy with it between two samples.
func cpuShare(s, before record.Stats) float64 {
	if s.CPU.Total <= before.CPU.Total || s.SystemCPU <= before.SystemCPU || before.Read.IsZero() {
		return 0
	}
	return float64(s.CPU.Total-before.CPU.Total) / float64(s.SystemCPU-before.SystemCPU) * float64(s.Online)
}
