package runtime

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/launch/child"
	"fief/internal/words/plan"
)

// fork does the plan's first step. What the thread enters or becomes for the
// length of clone3 is undone before anything else runs on it: see guise.
func (l *launch) fork() *plan.Failure {
	g, err := newGuise(l.plan, l.files)
	if err == nil {
		err = l.clone(g)
	}
	if err != nil {
		return &plan.Failure{Step: plan.StepClone, Errno: err.(syscall.Errno)}
	}
	unix.Close(l.theirs)
	l.theirs = -1
	return nil
}

// second waits for the process that enters namespaces, and goes on with the one
// that it has made: a child of this process too, unreaped, so that its number is
// its own until it has a pidfd. On failure there is neither.
func (l *launch) second() error {
	reap(l.pid)
	unix.Close(l.pidfd)
	l.pidfd = -1
	if l.pid = int(l.frame.PID); l.pid == 0 {
		if err := l.verdict(); err != nil {
			return err
		}
		return &plan.Failure{Step: plan.StepClone} // a plan that execs before it forks is nobody's
	}
	fd, err := unix.PidfdOpen(l.pid, 0)
	if err != nil {
		unix.Kill(l.pid, unix.SIGKILL)
		reap(l.pid)
		return &plan.Failure{Step: plan.StepClone, Errno: err.(syscall.Errno)}
	}
	l.pidfd = fd
	return nil
}

// clone calls clone3 in a guise, which it lays aside.
func (l *launch) clone(g *guise) error {
	defer g.close()
	base := uintptr(unsafe.Pointer(&l.mem[0]))
	args := &sysx.CloneArgs{
		Flags:      l.plan.Flags | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_SETTLS,
		PIDFD:      uint64(uintptr(unsafe.Pointer(&l.frame.PIDFD))),
		ExitSignal: uint64(unix.SIGCHLD),
		Stack:      uint64(base),
		StackSize:  child.StackSize,
		TLS:        uint64(base + tlsAt + child.TLSSize/2),
	}
	if l.plan.Cgroup != 0 {
		args.Flags |= unix.CLONE_INTO_CGROUP
		args.Cgroup = uint64(l.files[l.plan.Cgroup-1])
	}
	if l.lean != nil {
		defer l.lean.only(l.mem)()
	}
	pid, errno := g.fork(unsafe.Pointer(args), l.frame)
	if errno != 0 {
		return errno
	}
	l.pid, l.pidfd = pid, int(l.frame.PIDFD)
	return nil
}
