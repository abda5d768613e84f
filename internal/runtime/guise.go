package runtime

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/launch/child"
	"fief/internal/words/plan"
)

// guise is what a thread is only while it forks, because its child is to be made
// so: in another pid namespace, on other CPUs, with another effective uid. A
// thread in a guise must run nothing else. A goroutine locked to its thread is one
// way to have that, and costs a thread more (runtime.startTemplateThread) and two
// switches between threads; here nothing else can come in between, as fork and
// all it calls never look whether they are to be preempted (go:nosplit), and
// signals are blocked.
type guise struct {
	space, own int    // pid namespaces: the child's and the thread's; -1: the thread's
	cpus, all  []byte // masks of CPUs: the child's, nil for the thread's, and the thread's
	euid       uintptr

	worn             worn
	was              struct{ euid, bits, dumpable uintptr }
	signals, blocked uint64
}

// worn says what of a guise a thread has put on.
type worn uint8

const (
	inSpace worn = 1 << iota
	onCPUs
	withBits
	withEUID
)

const (
	unchanged = ^uintptr(0)
	// pidSpace is the calling thread's pid namespace for the children it will have;
	// all threads have the same when none is in a guise.
	pidSpace = "/proc/thread-self/ns/pid_for_children"
	// maskSize is enough for a mask of as many CPUs as any kernel has.
	maskSize = 1024
)

// newGuise reads from a plan how its process is to be made. The caller closes it.
func newGuise(p *plan.Decoded, files []int) (*guise, error) {
	g := &guise{space: -1, own: -1, cpus: p.Affinity, euid: uintptr(p.Owner), blocked: ^uint64(0)}
	if len(g.cpus) > 0 {
		g.all = make([]byte, maskSize)
		n, _, e := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, maskSize, uintptr(unsafe.Pointer(&g.all[0])))
		if e != 0 {
			return nil, e
		}
		g.all = g.all[:n]
	}
	g.was.euid = uintptr(unix.Geteuid())
	if p.PIDSpace == 0 {
		return g, nil
	}
	var err error
	g.space = files[p.PIDSpace-1]
	g.own, err = unix.Open(pidSpace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return g, err
}

func (g *guise) close() {
	if g.own >= 0 {
		unix.Close(g.own)
	}
}

// fork is child.Fork in the guise. All signals are blocked meanwhile: the child
// has the parent's handlers until CLONE_CLEAR_SIGHAND took effect and must never
// run one. A thread that cannot be made again what it was would run other
// goroutines in the guise: the process is ended instead, as if by SIGABRT.
//
//go:nosplit
//go:norace
func (g *guise) fork(args unsafe.Pointer, f *child.Frame) (pid int, errno syscall.Errno) {
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&g.blocked)), uintptr(unsafe.Pointer(&g.signals)), 8, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if errno = g.put(); errno == 0 {
		pid, errno = child.Fork(args, sysx.SizeofCloneArgs, f)
	}
	if !g.off() {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 128+uintptr(unix.SIGABRT), 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&g.signals)), 0, 8, 0, 0)
	return pid, errno
}

// put puts the guise on, the effective uid last: what comes before wants
// privilege. Securebits keep the thread's capabilities when its uid is not 0
// (SECBIT_NO_SETUID_FIXUP, capabilities(7)).
//
//go:nosplit
//go:norace
func (g *guise) put() (e syscall.Errno) {
	if g.space >= 0 {
		if _, _, e = syscall.RawSyscall(unix.SYS_SETNS, uintptr(g.space), unix.CLONE_NEWPID, 0); e != 0 {
			return e
		}
		g.worn |= inSpace
	}
	if len(g.cpus) > 0 {
		if _, _, e = syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(g.cpus)), uintptr(unsafe.Pointer(unsafe.SliceData(g.cpus)))); e != 0 {
			return e
		}
		g.worn |= onCPUs
	}
	if g.euid == 0 {
		return 0
	}
	if g.was.dumpable, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0); e != 0 {
		return e
	}
	if g.was.bits, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_SECUREBITS, 0, 0); e != 0 {
		return e
	}
	if _, _, e = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, g.was.bits|sysx.SecbitNoSetuidFixup, 0); e != 0 {
		return e
	}
	g.worn |= withBits
	if _, _, e = syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, g.euid, unchanged); e != 0 {
		return e
	}
	g.worn |= withEUID
	return 0
}

// off lays aside what was put on, and reports whether that succeeded. The kernel
// makes the whole process non-dumpable at a change of credentials, which is taken
// back too.
//
//go:nosplit
//go:norace
func (g *guise) off() bool {
	var e1, e2, e3, e4 syscall.Errno
	if g.worn&withEUID != 0 {
		_, _, e1 = syscall.RawSyscall(unix.SYS_SETRESUID, unchanged, g.was.euid, unchanged)
	}
	if g.worn&withBits != 0 {
		_, _, e2 = syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, g.was.bits, 0)
	}
	if g.worn&withEUID != 0 && g.was.dumpable == 1 {
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0)
	}
	if g.worn&onCPUs != 0 {
		_, _, e3 = syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(g.all)), uintptr(unsafe.Pointer(unsafe.SliceData(g.all))))
	}
	if g.worn&inSpace != 0 {
		_, _, e4 = syscall.RawSyscall(unix.SYS_SETNS, uintptr(g.own), unix.CLONE_NEWPID, 0)
	}
	return e1|e2|e3|e4 == 0
}
