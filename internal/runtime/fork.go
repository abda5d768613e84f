package runtime

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/launch/child"
	"fief/internal/words/plan"
)

// fork does the plan's first step on a thread of its own: what a thread enters
// or becomes for the length of clone3 (a pid namespace, an effective uid) is undone
// before the thread is used for anything else, and a thread that cannot undo it
// is never used again: its goroutine ends without unlocking it.
func (l *launch) fork() *plan.Failure {
	done := make(chan *plan.Failure)
	go func() {
		runtime.LockOSThread()
		failure, clean := l.forkHere()
		if clean {
			runtime.UnlockOSThread()
		}
		done <- failure
	}()
	failure := <-done
	if failure == nil {
		unix.Close(l.theirs)
		l.theirs = -1
	}
	return failure
}

// forkHere forks from the calling, locked thread. clean says that the thread is
// again what it was.
func (l *launch) forkHere() (failure *plan.Failure, clean bool) {
	own, errno := l.enter()
	if errno != 0 {
		return &plan.Failure{Step: plan.StepClone, Errno: errno}, true
	}
	cpus, errno := confine(l.plan.Affinity)
	if errno != 0 {
		return &plan.Failure{Step: plan.StepClone, Errno: errno}, leave(own)
	}
	became, errno := become(l.plan.Owner)
	if errno == 0 {
		errno = l.clone()
	}
	undone := became.undo()
	clean = leave(own) && undone && unconfine(cpus)
	if errno != 0 {
		return &plan.Failure{Step: plan.StepClone, Errno: errno}, clean
	}
	return nil, clean
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

// clone calls clone3. All signals are blocked meanwhile: the child has the
// parent's handlers until CLONE_CLEAR_SIGHAND took effect and must never run one.
func (l *launch) clone() syscall.Errno {
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
	all, old := ^uint64(0), uint64(0)
	if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0); e != 0 {
		return e
	}
	pid, errno := child.Fork(unsafe.Pointer(args), sysx.SizeofCloneArgs, l.frame)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	runtime.KeepAlive(args)
	if errno == 0 {
		l.pid, l.pidfd = pid, int(l.frame.PIDFD)
	}
	return errno
}

// pidSpace is the calling thread's pid namespace for the children it will have.
const pidSpace = "/proc/thread-self/ns/pid_for_children"

// enter makes the thread have its next children in the plan's pid namespace, and
// returns a descriptor of its own one to go back to, -1 when there is nothing to
// go back to.
func (l *launch) enter() (own int, errno syscall.Errno) {
	if l.plan.PIDSpace == 0 {
		return -1, 0
	}
	own, err := unix.Open(pidSpace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err.(syscall.Errno)
	}
	if err := unix.Setns(l.files[l.plan.PIDSpace-1], unix.CLONE_NEWPID); err != nil {
		unix.Close(own)
		return -1, err.(syscall.Errno)
	}
	return own, 0
}

// leave undoes enter and reports whether that succeeded.
func leave(own int) bool {
	if own < 0 {
		return true
	}
	defer unix.Close(own)
	return unix.Setns(own, unix.CLONE_NEWPID) == nil
}

// confine lets the calling thread run on the CPUs of a mask, which its next
// child inherits, and returns its own mask, nil when nothing was changed.
func confine(mask []byte) (own []byte, errno syscall.Errno) {
	if len(mask) == 0 {
		return nil, 0
	}
	own = make([]byte, 1024) // of as many CPUs as any kernel has
	n, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, uintptr(len(own)), uintptr(unsafe.Pointer(&own[0])))
	if e != 0 {
		return nil, e
	}
	_, _, e = syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	return own[:n], e
}

// unconfine undoes confine and reports whether that succeeded.
func unconfine(own []byte) bool {
	if len(own) == 0 {
		return true
	}
	_, _, e := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(own)), uintptr(unsafe.Pointer(&own[0])))
	return e == 0
}

// persona is what a thread was before it took another effective uid.
type persona struct {
	changed  bool
	euid     uintptr
	bits     uintptr
	dumpable uintptr
}

const unchanged = ^uintptr(0)

// become gives the calling thread, and it alone, the effective uid under which
// a user namespace is to be made. SECBIT_NO_SETUID_FIXUP keeps its capabilities
// (capabilities(7)). The kernel makes the whole process non-dumpable at a change
// of credentials; undo takes that back.
func become(uid uint32) (persona, syscall.Errno) {
	if uid == 0 {
		return persona{}, 0
	}
	was := persona{changed: true, euid: uintptr(unix.Geteuid())}
	var e syscall.Errno
	if was.dumpable, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0); e != 0 {
		return persona{}, e
	}
	if was.bits, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS, 0, 0); e != 0 {
		return persona{}, e
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, was.bits|sysx.SecbitNoSetuidFixup, 0); e != 0 {
		return persona{}, e
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); e != 0 {
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, was.bits, 0)
		return persona{}, e
	}
	return was, 0
}

// undo makes the thread what it was and reports whether that succeeded.
func (p persona) undo() bool {
	if !p.changed {
		return true
	}
	_, _, e1 := syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, p.euid, unchanged)
	_, _, e2 := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, p.bits, 0)
	if p.dumpable == 1 {
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
	}
	return e1 == 0 && e2 == 0
}
