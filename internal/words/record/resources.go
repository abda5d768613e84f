package record

import (
	"strconv"
	"strings"
	"time"
)

// Resources is what a container may use of the machine, in the units and with
// the meanings of Docker's API; the zero value limits nothing.
type Resources struct {
	Memory            int64  // bytes
	MemorySwap        int64  // bytes of memory and swap together; -1: no limit; 0: twice Memory
	MemoryReservation int64  // bytes
	MemorySwappiness  *int64 // 0 to 100, -1 for the kernel's
	OomKillDisable    bool
	OomScoreAdj       int // of the first process, -1000 to 1000

	NanoCPUs   int64 // billionths of a processor
	CPUShares  int64
	CPUPeriod  int64 // microseconds
	CPUQuota   int64 // microseconds in each period; -1: no limit
	RTPeriod   int64 // microseconds
	RTRuntime  int64 // microseconds
	CpusetCpus string
	CpusetMems string

	PidsLimit *int64 // processes and threads; 0 and below: no limit

	BlkioWeight       uint16 // 10 to 1000
	BlkioWeightDevice []DeviceWeight
	ReadBps           []DeviceRate // bytes per second
	WriteBps          []DeviceRate
	ReadIOps          []DeviceRate // operations per second
	WriteIOps         []DeviceRate

	Devices     []Device
	DeviceRules []string // "c 1:3 rwm", as devices.allow of cgroup v1 takes them
	CDI         []string // devices by the names that vendors have given them: "vendor.com/class=name"
	Parent      string   // the cgroup that the container's is made in; empty: fief's own
}

// Limited reports whether anything is to be written into a cgroup.
func (r Resources) Limited() bool {
	return r.Memory != 0 || r.MemorySwap != 0 || r.MemoryReservation != 0 || r.MemorySwappiness != nil || r.OomKillDisable ||
		r.NanoCPUs != 0 || r.CPUShares != 0 || r.CPUPeriod != 0 || r.CPUQuota != 0 || r.RTPeriod != 0 || r.RTRuntime != 0 ||
		r.CpusetCpus != "" || r.CpusetMems != "" || r.PidsLimit != nil || r.BlkioWeight != 0 ||
		len(r.BlkioWeightDevice)+len(r.ReadBps)+len(r.WriteBps)+len(r.ReadIOps)+len(r.WriteIOps) > 0
}

// DeviceWeight is the share of a block device's time that a container gets.
type DeviceWeight struct {
	Path   string // of the device node
	Weight uint16
}

// DeviceRate is a limit on a block device.
type DeviceRate struct {
	Path string
	Rate uint64
}

// Device is one --device: a node, or a directory of nodes.
type Device struct {
	Host, Container string // absolute paths
	Access          string // of r, w and m
}

// GPUs are the names of CDI that --gpus stands for: "all", how many, or
// "device=ID,ID".
func GPUs(asked string) (names []string, ok bool) {
	asked = strings.Trim(asked, `"`)
	ids := []string{asked}
	if list, named := strings.CutPrefix(asked, "device="); named {
		ids = strings.Split(list, ",")
	} else if n, err := strconv.Atoi(asked); err == nil && n > 0 && n <= 64 {
		ids = nil
		for i := range n {
			ids = append(ids, strconv.Itoa(i))
		}
	} else if asked != "all" {
		return nil, false
	}
	for _, id := range ids {
		if id == "" {
			return nil, false
		}
		names = append(names, "nvidia.com/gpu="+id)
	}
	return names, true
}

// IsDeviceAccess reports whether s is one or more of the letters r, w and m.
func IsDeviceAccess(s string) bool {
	return s != "" && strings.Trim(s, "rwm") == "" && strings.Count(s, "r") < 2 && strings.Count(s, "w") < 2 && strings.Count(s, "m") < 2
}

// IsDeviceRule reports whether s is a rule such as "c 1:* rwm".
func IsDeviceRule(s string) bool {
	fields := strings.Split(s, " ")
	if len(fields) != 3 || len(fields[0]) != 1 || !strings.Contains("acb", fields[0]) || !IsDeviceAccess(fields[2]) {
		return false
	}
	major, minor, ok := strings.Cut(fields[1], ":")
	return ok && isDeviceNumber(major) && isDeviceNumber(minor)
}

// isDeviceNumber: a device number has 20 bits at most, makedev(3).
func isDeviceNumber(s string) bool {
	return s == "*" || len(s) > 0 && len(s) < 8 && strings.Trim(s, "0123456789") == ""
}

// Abilities is which limits this machine has a controller for, in the names of
// Docker's info.
type Abilities struct {
	Memory, Swap, Reservation, Swappiness, OomKillDisable                            bool
	CPUShares, CPUQuota, Realtime, Cpuset, Pids                                      bool
	BlkioWeight, BlkioWeightDevice, BlkioReadBps, BlkioWriteBps, ReadIOps, WriteIOps bool
	Devices                                                                          bool   // device rules
	Cpus, Mems                                                                       string // what a container can have, as lists
	CPUs                                                                             int    // how many processors there are
}

// Stats is what a container uses of the machine.
type Stats struct {
	ID, Name string
	Read     time.Time

	CPU       CPUStats
	SystemCPU uint64 // of all processors of the machine, idle time too, in nanoseconds
	Online    int    // processors
	Memory    MemoryStats
	Pids      PidsStats
	Blkio     []BlkioStat
}

// CPUStats are counters in nanoseconds and in numbers.
type CPUStats struct {
	Total, User, System uint64
	Periods, Throttled  uint64
	ThrottledTime       uint64
}

// MemoryStats are bytes. Details are the lines of memory.stat.
type MemoryStats struct {
	Usage, Max, Limit, Failures uint64
	Details                     map[string]uint64
}

// PidsStats counts processes and threads. Limit 0 is none.
type PidsStats struct{ Current, Limit uint64 }

// BlkioStat is what was done with a block device: Op is "read" or "write".
type BlkioStat struct {
	Major, Minor uint64
	Op           string
	Bytes        uint64
	Count        uint64
}
