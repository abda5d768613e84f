package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// meter watches the memory of a process and its descendants.
type meter struct {
	pid  int
	quit chan struct{}
	most chan int64
}

// watch looks every 50 ms, until stop.
func watch(pid int) *meter {
	m := &meter{pid: pid, quit: make(chan struct{}), most: make(chan int64)}
	go func() {
		var most int64
		for {
			most = max(most, residents(pid))
			select {
			case <-m.quit:
				m.most <- most
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return m
}

// stop returns the most that was seen, or that the process itself had at some
// moment between (VmHWM, when it lives yet). kB.
func (m *meter) stop() int64 {
	close(m.quit)
	return max(<-m.most, status(m.pid, "VmHWM"))
}

// residents sums up the resident memory of a process and its descendants, kB.
func residents(pid int) int64 {
	sum := status(pid, "VmRSS")
	for _, child := range children(pid) {
		sum += residents(child)
	}
	return sum
}

func children(pid int) (list []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// status reads a line of proc_pid_status(5) in kB; 0 when the process is gone.
func status(pid int, key string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), key+":")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(fields[0], 10, 64)
	return kb
}
