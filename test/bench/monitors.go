package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sleepers is how many idle containers the monitors' memory is measured with:
// what they share is divided among them.
const sleepers = 100

// memory is what one monitor of idle containers has, in KiB. Pss is its share of
// memory (proc_pid_smaps(5)).
type memory struct {
	Monitors int   `json:"monitors"`
	MeanPSS  int64 `json:"mean_pss_kib"`
	MaxPSS   int64 `json:"max_pss_kib"`
}

// monitors starts idle containers and measures the monitors of this stage's
// binary. It removes them again.
func (s *stage) monitors() memory {
	names := make([]string, sleepers)
	for i := range names {
		names[i] = "sleeper-" + strconv.Itoa(i)
		s.must(s.fief("run", "-d", "--name", names[i], "--network", "none", "busybox", "sleep", "100000"))
	}
	defer func() { s.must(s.fief(append([]string{"rm", "-f"}, names...)...)) }()
	time.Sleep(2 * time.Second)
	var m memory
	var sum int64
	for _, pss := range s.pss() {
		m.Monitors++
		m.MaxPSS = max(m.MaxPSS, pss)
		sum += pss
	}
	if m.Monitors < sleepers {
		fatal(fmt.Errorf("%d monitors of %d containers are found", m.Monitors, sleepers))
	}
	m.MeanPSS = sum / int64(m.Monitors)
	fmt.Printf("a monitor's memory, %d idle containers: PSS %d KiB in the mean, %d at most\n", sleepers, m.MeanPSS, m.MaxPSS)
	return m
}

// pss lists the shares of memory of all processes of this stage's fief-mon, in KiB.
func (s *stage) pss() (list []int64) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if target, _ := os.Readlink(exe); target != "/fief-mon" { // all run from a view of their directory
			continue
		}
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(exe), "smaps_rollup"))
		for line := range strings.Lines(string(b)) {
			if words := strings.Fields(line); len(words) == 3 && words[0] == "Pss:" {
				if kib, err := strconv.ParseInt(words[1], 10, 64); err == nil {
					list = append(list, kib)
				}
			}
		}
	}
	return list
}
