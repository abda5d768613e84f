package userns

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of clone3(2) in its first version, 64 bytes.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID     uint64
	exitSignal, stack, stackSize, tlsArea uint64
}

// clonePaused forks a child that sits in a new user namespace and does nothing.
func clonePaused() (pid, pidfd int, errno syscall.Errno) { return fork(unix.CLONE_NEWUSER, -1) }

// cloneInto forks a child that enters user namespace ns and ends there: with
// status 0, or with the errno of what it could not do.
func cloneInto(ns int) (pid, pidfd int, errno syscall.Errno) { return fork(0, ns) }

// fork forks a child that enters a namespace, or pauses when ns is negative.
//
// What makes a raw fork of a Go process safe here:
//   - No CLONE_VM: the child runs on a copy of this stack, whatever other
//     threads do to the real one.
//   - Every signal is blocked on this thread before the clone, so that neither
//     side runs one of Go's signal handlers in between; the child, where no
//     runtime is left that could, never unblocks them. SIGKILL passes.
//   - CLONE_CLEAR_SIGHAND (v5.5): a fault in the child kills it instead of
//     starting Go's handler.
//   - nosplit and norace: nothing between the first and the last system call
//     grows the stack, allocates, or calls into the runtime.
//
// CLONE_FILES, because the child touches no descriptor: a copied table would
// keep the daemon's pipes and locks open a moment longer than it believes.
// The exit signal is 0, which neither disturbs a handler of SIGCHLD nor lets a
// stray wait for any child reap this one.
//
//go:nosplit
//go:norace
//go:noinline
func fork(flags uint64, ns int) (pid, pidfd int, errno syscall.Errno) {
	var fd int32
	var all, old uint64 = 1<<64 - 1, 0
	args := cloneArgs{
		flags: flags | unix.CLONE_PIDFD | unix.CLONE_FILES | unix.CLONE_CLEAR_SIGHAND,
		pidfd: uint64(uintptr(unsafe.Pointer(&fd))),
	}
	parent, _, _ := syscall.RawSyscall6(unix.SYS_GETPID, 0, 0, 0, 0, 0, 0)
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0)
	if errno != 0 {
		return 0, 0, errno
	}
	r, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0, 0, 0, 0)
	if errno == 0 && r == 0 {
		if ns < 0 {
			pause(parent)
		}
		enter(uintptr(ns))
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	return int(r), int(fd), errno
}

// pause is the whole life of the child. It ends with its parent: if that died
// before the child could ask for its SIGKILL, the child has another parent.
//
//go:nosplit
//go:norace
//go:noinline
func pause(parent uintptr) {
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	now, _, _ := syscall.RawSyscall6(unix.SYS_GETPPID, 0, 0, 0, 0, 0, 0)
	for now == parent {
		// ppoll(2) without descriptors and time limit waits for a signal; arm64
		// has no pause(2).
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0, 0)
	}
}

// enter is the whole life of a child that enters a user namespace. It may be
// somebody's container's, whose root has CAP_SYS_PTRACE over whom it sees there:
// the copy of the daemon's memory is made untraceable first. A process with one
// thread, and without CLONE_FS, may enter it (setns(2)).
//
//go:nosplit
//go:norace
//go:noinline
func enter(ns uintptr) {
	_, _, errno := syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_SETNS, ns, unix.CLONE_NEWUSER, 0, 0, 0, 0)
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0, 0, 0, 0)
	}
}
