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

// What makes a raw clone of a Go process safe here:
//   - Every signal is blocked on this thread before the clone, so that neither
//     side runs one of Go's signal handlers in between; the child, where no
//     runtime is left that could, never unblocks them. SIGKILL passes.
//   - CLONE_CLEAR_SIGHAND (v5.5): a fault in the child kills it instead of
//     starting Go's handler.
//
// CLONE_FILES, because the child touches no descriptor: a copied table would
// keep the daemon's pipes and locks open a moment longer than it believes.
// The exit signal is 0, which neither disturbs a handler of SIGCHLD nor lets a
// stray wait for any child reap this one.
const common = unix.CLONE_PIDFD | unix.CLONE_FILES | unix.CLONE_CLEAR_SIGHAND

// clonePaused makes a child that sits in a new user namespace and does nothing
// until it is killed. It ends with its parent: if that died before the child
// could ask for its SIGKILL, the child has another parent.
//
// The child shares this process's memory (CLONE_VM) and touches none of it, not
// even a stack. A copy is dear: all page tables of a daemon with 40 MB are
// copied, and what the daemon writes to afterwards, some 300 pages for each
// child, comes by page faults, of 12 µs each in a virtual machine. Nobody can
// reach the daemon's memory through the child: there is no other process in its
// namespace, and whoever is root on the host can reach the daemon itself.
func clonePaused() (pid, pidfd int, errno syscall.Errno) {
	var fd int32
	args := cloneArgs{
		flags: common | unix.CLONE_NEWUSER | unix.CLONE_VM,
		pidfd: uint64(uintptr(unsafe.Pointer(&fd))),
	}
	var all, old uint64 = 1<<64 - 1, 0
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0)
	if errno != 0 {
		return 0, 0, errno
	}
	r := clonePause(unsafe.Pointer(&args), unsafe.Sizeof(args), uintptr(unix.Getpid()))
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	if r < 0 {
		return 0, 0, syscall.Errno(-r)
	}
	return r, int(fd), 0
}

// clonePause calls clone3, and in the child waits as clonePaused says; parent is
// the calling process. It returns what the kernel does: the pid, or a negative
// errno. It is assembly because the child may not use the stack, on which its
// parent goes on.
//
//go:noescape
func clonePause(args unsafe.Pointer, size, parent uintptr) int

// cloneInto forks a child that enters user namespace ns and ends there: with
// status 0, or with the errno of what it could not do.
//
// Without CLONE_VM: the child makes itself untraceable, which would be the whole
// daemon's otherwise, and runs on a copy of this stack, whatever other threads do
// to the real one. nosplit and norace: nothing between the first and the last
// system call grows the stack, allocates, or calls into the runtime.
//
//go:nosplit
//go:norace
//go:noinline
func cloneInto(ns int) (pid, pidfd int, errno syscall.Errno) {
	var fd int32
	var all, old uint64 = 1<<64 - 1, 0
	args := cloneArgs{
		flags: common,
		pidfd: uint64(uintptr(unsafe.Pointer(&fd))),
	}
	_, _, errno = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK,
		uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), unsafe.Sizeof(all), 0, 0)
	if errno != 0 {
		return 0, 0, errno
	}
	r, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0, 0, 0, 0)
	if errno == 0 && r == 0 {
		enter(uintptr(ns))
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK,
		uintptr(unsafe.Pointer(&old)), 0, unsafe.Sizeof(old), 0, 0)
	return int(r), int(fd), errno
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
