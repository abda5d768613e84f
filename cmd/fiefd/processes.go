package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/proc"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// processes looks at containers' processes from the host. A pid from a record
// may be somebody else's by now: it counts only when that process was started
// when the record says (pids are used again, pid and start time together are
// not).
type processes struct{}

// started may differ from the kernel's start time by what a start takes on a
// loaded machine.
const startSlack = 30 * time.Second

// ticksPerSecond is USER_HZ, the unit of start times; fixed by the ABI on every
// architecture that Go runs on (proc_pid_stat(5), field 22).
const ticksPerSecond = 100

// Top lists processes, or when there are none given those of pid's namespace: by
// Podman's descriptors when args are nothing else, as what is outside and inside
// can only be told so, and else by the host's ps.
func (processes) Top(pid int, pids []int, args []string) (_ record.Top, err error) {
	if len(pids) == 0 {
		if pids, err = proc.NamespacePids(pid); err != nil {
			return record.Top{}, err
		}
	}
	if names, ok := proc.Descriptors(args); ok {
		return proc.Describe(pid, pids, names)
	}
	return proc.Top(context.Background(), pids, args)
}

// Root opens the root directory as the process sees it.
func (processes) Root(pid int, started time.Time) (*os.File, error) {
	if err := is(pid, started); err != nil {
		return nil, err
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Conflict, "open root of process", fmt.Sprint(pid), err, "")
	}
	if err := is(pid, started); err != nil { // it is still the same one, so the root is its
		root.Close()
		return nil, err
	}
	return root, nil
}

// Handle opens a pidfd, which cannot come to mean another process.
func (processes) Handle(pid int, started time.Time) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, "find process", fmt.Sprint(pid), err, "")
	}
	if err := is(pid, started); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Kill ends the process by pidfd.
func (p processes) Kill(pid int, started time.Time) error {
	f, err := p.Handle(pid, started)
	if err != nil {
		return err
	}
	defer f.Close()
	return fault.Wrap(fault.Internal, "kill process", fmt.Sprint(pid), unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0), "")
}

// is refuses a pid that is not the process that was started then.
func is(pid int, started time.Time) error {
	ticks, err := proc.StartTime(pid)
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fault.Wrap(fault.Internal, "read", "CLOCK_BOOTTIME", err, "")
	}
	age := time.Duration(now.Nano()) - time.Duration(ticks)*time.Second/ticksPerSecond
	if off := time.Since(started) - age; off.Abs() > startSlack {
		return fault.New(fault.NotFound, "find process", fmt.Sprint(pid), "its pid belongs to another process now", "")
	}
	return nil
}

// Owner says who a process runs as and what it is.
func (processes) Owner(pid int) (uid, gid uint32, exe string, err error) { return proc.Owner(pid) }
