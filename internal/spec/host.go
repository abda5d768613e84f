package spec

import (
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// HostMasks are the paths of this machine that are masked besides the usual
// ones: counters of thermal events, one directory for each processor
// (GHSA-6fw5-f8r9-fgfm). They do not change while the kernel runs.
func HostMasks() ([]string, error) {
	paths, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	slices.Sort(paths)
	return paths, fault.Wrap(fault.Internal, "list", "/sys/devices/system/cpu", err, "")
}

// HostLimits are the resource limits this process was started with. They are
// not those it has: a Go program raises its own limit of open files, and puts
// the first one back only in programs that it starts (golang.org/issue/46279).
// So it looks at one, its own binary, stopped before its first instruction.
// Where ptrace(2) is not allowed the limits are its own, with the soft limit of
// open files that the kernel starts init with, 1024.
func HostLimits() ([]record.Ulimit, error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	const self = "/proc/self/exe"
	pid, err := syscall.ForkExec(self, []string{self}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return ownLimits()
	}
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		wait(pid)
	}()
	if status, err := wait(pid); err != nil || !status.Stopped() {
		return nil, fault.New(fault.Internal, "trace", self, "it did not stop", "")
	}
	return limitsOf(pid)
}

// ownLimits are the limits of this process as it would have been started.
func ownLimits() ([]record.Ulimit, error) {
	const initial = 1024 // INR_OPEN_CUR, include/uapi/linux/fs.h
	list, err := limitsOf(0)
	for i := range list {
		if list[i].Name == "nofile" && list[i].Soft > initial {
			list[i].Soft = initial
		}
	}
	return list, err
}

// limitsOf reads the limits of a process, 0 for this one.
func limitsOf(pid int) (out []record.Ulimit, err error) {
	for n := 0; ; n++ {
		name, ok := harden.RlimitName(n)
		if !ok {
			return out, nil
		}
		var limit unix.Rlimit
		if err := unix.Prlimit(pid, n, nil, &limit); err != nil {
			return nil, fault.Wrap(fault.Internal, "read limit", name, err, "")
		}
		out = append(out, record.Ulimit{Name: name, Soft: finite(limit.Cur), Hard: finite(limit.Max)})
	}
}

func wait(pid int) (status unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &status, unix.WALL, nil); err != unix.EINTR {
			return status, err
		}
	}
}

// finite turns RLIM_INFINITY, and what a record cannot hold, into -1.
func finite(v uint64) int64 {
	if v > math.MaxInt64 {
		return -1
	}
	return int64(v)
}
