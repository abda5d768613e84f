package main

import (
	"flag"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/words/fault"
)

// passing is what the caller hands through to a process, and has handed back:
// descriptors from 3 on, and the process's own.
type passing struct {
	fds       int
	pidfd     string // socket that receives the pidfd
	inherited int    // see app
}

func (p *passing) flags(a *app, set *flag.FlagSet) {
	p.inherited = a.inherited
	set.IntVar(&p.fds, "preserve-fds", 0, "pass so many descriptors, from 3 on, besides those of $LISTEN_FDS")
	set.StringVar(&p.pidfd, "pidfd-socket", "", "unix socket that receives the pidfd of the process")
}

// maxPassed bounds --preserve-fds: each takes a slot of the plan.
const maxPassed = 1024

// inherited counts the descriptors from 3 on that were open at execve. Those that
// the Go runtime has opened by now are marked to be closed at the next one, which
// one that has survived execve cannot be.
func inherited() (n int) {
	for n < 2*maxPassed {
		flags, err := unix.FcntlInt(uintptr(launch.FirstPassed+n), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			break
		}
		n++
	}
	return n
}

// open gives the descriptors that are passed to the plan: first those of socket
// activation (sd_listen_fds(3)), then as many as the caller says, with the
// numbers that they have here. What is socket-activated learns of it as with
// runc: its LISTEN_PID is 1.
func (p *passing) open(f *files, opt *launch.Options, process *specs.Process) error {
	sockets := listening()
	if p.fds < 0 || p.fds > maxPassed {
		return fault.New(fault.Invalid, "preserve", strconv.Itoa(p.fds)+" descriptors", "not between 0 and "+strconv.Itoa(maxPassed), "")
	}
	opt.Passed = sockets + p.fds
	if opt.Passed > p.inherited {
		return fault.New(fault.Invalid, "preserve descriptor", strconv.Itoa(launch.FirstPassed+p.inherited), "it is not open",
			"as many must be open, from 3 on, as --preserve-fds and $LISTEN_FDS say")
	}
	for i := range opt.Passed {
		f.given[launch.PassedName(i)] = launch.FirstPassed + i
	}
	if sockets > 0 && process != nil {
		process.Env = append(append([]string{}, process.Env...), "LISTEN_FDS="+strconv.Itoa(sockets), "LISTEN_PID=1")
	}
	return nil
}

// listening is the number of sockets that systemd has given to this process.
func listening() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxPassed || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return n
}

// sendPidfd sends a process's descriptor to the caller's socket; kind is what
// runc says with it, "standard" of a first process and "setns" of another.
func (p *passing) sendPidfd(kind string, fd int) error {
	if p.pidfd == "" {
		return nil
	}
	return fault.Wrap(fault.Unavailable, "send pidfd to", p.pidfd, sendFD(p.pidfd, []byte(kind), fd), "")
}
