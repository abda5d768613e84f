// Package child is the forked child: from clone3 to execve it runs no Go but
// the functions of this file, which call nothing but each other and raw system
// calls. The process has one thread, a stack of its own in the memory it shares
// with its parent, and nothing it can count on but that memory and the program's
// text and constants: its parent's writable memory may be missing, and else is
// in an unknown state. So no variable may be looked at, no lock taken, nothing
// allocated, no stack grown, no pointer stored (a write barrier would run), and
// the goroutine must not matter. TestChildCallsNothing and TestMachineCode keep
// it so.
package child

import (
	"syscall"
	"unsafe"
)

// Frame is what the child needs to know. It lies, with everything it refers to,
// in memory that parent and child share (MAP_SHARED) and that is outside the
// Go heap.
type Frame struct {
	// Set by the parent before clone3. Addresses are plain numbers.
	Base   uintptr // of the plan: what addresses in operations are offsets from
	Ops    uintptr // of the first RawOp
	NOps   uint32
	Report int32   // the child's end of the report socket
	Slots  uintptr // of an array of int32, indexed by slot
	Keep   uintptr // of a sorted array of int32: descriptors ≥ 3 to keep
	NKeep  uint32
	Stdio  [3]int32 // descriptors that become 0, 1 and 2; -1: the report socket until the plan says otherwise

	OpenFiles [2]uint64 // soft and hard RLIMIT_NOFILE to set in resetInherited; hard 0: leave it

	PIDFD int32 // written by clone3: a stack could move meanwhile, this memory does not

	// Second is the struct clone_args of operation Fork, complete but for the
	// operation's flags. It makes the kernel write the new process's pid to PID
	// before that runs (CLONE_PARENT_SETTID, clone(2)): a process killed right
	// after it has forked has still said so.
	Second [11]uint64
	PID    int32 // made by operation Fork; 0: none. Read by the parent once the forking process is reaped

	// Written by the child; read by the parent after the report socket's end.
	// Helper is where the frame of the processes of operation Spawn lies, after
	// their stack and thread-local storage, of which SpawnStack and SpawnTLS are
	// the addresses that clone(2) takes; 0 in a plan without. They are used by one
	// process at a time.
	Helper     uintptr
	SpawnStack uintptr
	SpawnTLS   uintptr

	PC     uint32 // operation being carried out
	Failed uint32 // 1 when that operation failed
	Errno  uint32
	Noted  uint32 // errno remembered
	Again  uint32 // times an openat2 was repeated

	zero [32]byte // a struct sigaction: SIG_DFL, no flags, empty mask
}

// rawOp mirrors plan.RawOp; TestLayout compares the two. It is repeated here
// because this package, which goes into the leanest binary, imports only
// syscall and unsafe.
type rawOp struct {
	args      [6]uint32
	nr        uint16
	step      uint16
	call      uint16
	skip      uint16
	onIgnored uint16
	save      uint16
	kind      uint8
	slots     uint8
	addresses uint8
	signed    uint8
	ignore    [4]uint8
	remember  uint8
	positive  uint8
	pad       [2]uint8
}

const (
	kindCall = iota
	kindCloseOthers
	kindResetInherited
	kindDropBounding
	kindPatch
	kindTestMem
	kindTestSlot
	kindCopy
	kindFail
	kindForget
	kindCloseAll
	kindFork
	kindSpawn
)

const (
	prCapbsetDrop = 24
	sigSetmask    = 2
	sigkill       = 9
	sigstop       = 19
	lastSignal    = 64
	lastCap       = 63
	maxFD         = 1<<32 - 1
	rlimitNofile  = 7
	maxAgain      = 1024                  // openat2 repetitions in all
	spawnFlags    = 0x1000 | 0x80000 | 17 // CLONE_PIDFD, CLONE_SETTLS, SIGCHLD
)

// StackSize is the least size of the child's stack. Functions that cannot grow
// a stack call each other at most 800 bytes deep, which the linker sees to, and
// no signal is handled on it.
const StackSize = 2048

// TLSSize is the size of the zeroed memory that the child needs as thread-local
// storage, in the middle of which CloneArgs.TLS points: the way from assembly
// into Go loads the goroutine from it, and nobody uses that.
const TLSSize = 128

// Fork makes the process that args (a struct clone_args of size bytes) tell of
// and lets it carry out the operations of frame f. It returns only in the
// parent: the child's pid, or clone3's errno. args must give the child a stack
// and, with CLONE_SETTLS, thread-local storage, both in memory that it has; it
// must not ask for CLONE_VM. The caller has blocked all signals, and unblocks them
// afterwards on the same thread.
//
//go:nosplit
//go:norace
//go:noinline
func Fork(args unsafe.Pointer, size uintptr, f *Frame) (pid int, errno syscall.Errno) {
	r := clone(args, size, f)
	if r < 0 {
		return 0, syscall.Errno(-r)
	}
	return r, 0
}

// run carries out the operations. It does not return: either execve succeeds or
// the process ends.
//
//go:nosplit
//go:norace
//go:noinline
func run(f *Frame) {
	for f.PC < f.NOps {
		o := (*rawOp)(at(f.Ops, uintptr(f.PC)*unsafe.Sizeof(rawOp{})))
		switch o.kind {
		case kindCall:
			call(f, o)
			continue
		case kindCloseOthers:
			closeOthers(f)
		case kindResetInherited:
			resetInherited(f)
		case kindDropBounding:
			dropBounding(f, o)
		case kindPatch:
			*(*int32)(at(f.Base, uintptr(o.args[1]))) = *slot(f, o.args[0])
		case kindTestMem:
			if *(*uint32)(at(f.Base, uintptr(o.args[0])))&o.args[1] == o.args[2] {
				f.PC += uint32(o.skip)
			}
		case kindTestSlot:
			if *slot(f, o.args[0]) >= 0 {
				f.PC += uint32(o.skip)
			}
		case kindCopy:
			*slot(f, uint32(o.save)) = *slot(f, o.args[0])
		case kindFail:
			if f.Noted == 0 {
				f.Noted = o.args[0]
			}
			die(f, f.Noted)
		case kindForget:
			f.Noted = 0
		case kindCloseAll:
			closeAll(f, o)
		case kindFork:
			forkAgain(f, o)
		case kindSpawn:
			spawn(f, o)
		}
		f.PC++
	}
	die(f, uint32(syscall.ENOEXEC))
}

// call makes one system call and goes to the next operation.
//
//go:nosplit
//go:norace
//go:noinline
func call(f *Frame, o *rawOp) {
	r, _, e := syscall.RawSyscall6(uintptr(o.nr), arg(f, o, 0), arg(f, o, 1), arg(f, o, 2), arg(f, o, 3), arg(f, o, 4), arg(f, o, 5))
	if e == syscall.EINTR {
		return // all signals are at their defaults: a stop and continue at most
	}
	if e == syscall.EAGAIN && o.nr == sysOpenat2 && f.Again < maxAgain {
		f.Again++
		return // a rename elsewhere while ".." was resolved in-root (openat2(2))
	}
	if e == 0 && r == 0 && o.positive != 0 {
		e = syscall.EPIPE // the parent is gone: nobody will say go
	}
	if e == 0 {
		if o.save != 0 {
			*slot(f, uint32(o.save)) = int32(r)
		}
		f.PC += 1 + uint32(o.skip)
		return
	}
	if !ignores(o, e) {
		die(f, uint32(e))
	}
	if o.remember != 0 && (f.Noted == 0 || e == syscall.EACCES) {
		f.Noted = uint32(e)
	}
	if o.save != 0 {
		*slot(f, uint32(o.save)) = -1
	}
	f.PC += 1 + uint32(o.onIgnored)
}

//go:nosplit
//go:norace
//go:noinline
func ignores(o *rawOp, e syscall.Errno) bool {
	return uintptr(e) == uintptr(o.ignore[0]) || uintptr(e) == uintptr(o.ignore[1]) ||
		uintptr(e) == uintptr(o.ignore[2]) || uintptr(e) == uintptr(o.ignore[3])
}

//go:nosplit
//go:norace
func arg(f *Frame, o *rawOp, i uintptr) uintptr {
	v := *(*uint32)(unsafe.Add(unsafe.Pointer(o), 4*i))
	switch {
	case o.slots>>i&1 != 0:
		return uintptr(*slot(f, v))
	case o.addresses>>i&1 != 0:
		return f.Base + uintptr(v)
	case o.signed>>i&1 != 0:
		return uintptr(int32(v))
	}
	return uintptr(v)
}

//go:nosplit
//go:norace
func slot(f *Frame, n uint32) *int32 { return (*int32)(at(f.Slots, 4*uintptr(n))) }

// at turns an address in the shared mapping into a pointer. The garbage
// collector knows nothing of that memory, so the rules about uintptr do not
// apply to it.
//
//go:nosplit
//go:norace
func at(base, offset uintptr) unsafe.Pointer {
	base += offset
	return *(*unsafe.Pointer)(unsafe.Pointer(&base))
}

// die records the errno and ends the process. The report is read from the
// shared memory once the report socket is closed: a write could be forbidden by
// the very filter just loaded. The exit code is what a shell would use
// (127 not found, 126 not executable), for a child that fails behind a gate,
// when nobody reads its report any longer.
//
//go:nosplit
//go:norace
//go:noinline
func die(f *Frame, errno uint32) {
	f.Errno = errno
	f.Failed = 1
	code := uintptr(126)
	if errno == uint32(syscall.ENOENT) || errno == uint32(syscall.ENOTDIR) {
		code = 127
	}
	syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	syscall.RawSyscall6(syscall.SYS_EXIT, code, 0, 0, 0, 0, 0)
	for {
		*(*uint32)(at(0, 0)) = 0 // a filter refuses even exit: the signal of a fault cannot be refused
	}
}

// forkAgain makes a second process, the parent's child (CLONE_PARENT), which
// goes on with the next operation, and ends this one. Both share f and, as it is
// in the same memory, the stack: of the two only the new process returns from
// split. Signals that the parent has blocked are blocked here, and in the new
// process until resetInherited.
//
//go:nosplit
//go:norace
//go:noinline
func forkAgain(f *Frame, o *rawOp) {
	f.Second[0] |= uint64(o.args[0])
	f.PID = 0 // a write to the memory the kernel is to write to: it is there, and no fault can be in the way
	if r := split(unsafe.Pointer(&f.Second), unsafe.Sizeof(f.Second)); r < 0 {
		die(f, uint32(-r))
	}
}

// closeOthers gives 0, 1 and 2 their descriptors and closes all others but the
// kept ones: a parent that starts several children at once would otherwise
// leave the ends of one child's sockets in another.
//
//go:nosplit
//go:norace
//go:noinline
func closeOthers(f *Frame) {
	for i := uintptr(0); i < 3; i++ {
		fd, flags := f.Stdio[i], uintptr(0)
		if fd < 0 {
			fd, flags = f.Report, syscall.O_CLOEXEC
		}
		if _, _, e := syscall.RawSyscall6(syscall.SYS_DUP3, uintptr(fd), i, flags, 0, 0, 0); e != 0 {
			die(f, uint32(e))
		}
	}
	next := uintptr(3)
	for i := uint32(0); i < f.NKeep; i++ {
		fd := uintptr(*(*int32)(at(f.Keep, 4*uintptr(i))))
		if fd > next {
			closeRange(f, next, fd-1)
		}
		if fd >= next {
			next = fd + 1
		}
	}
	closeRange(f, next, maxFD)
}

// spawn makes a child of this process, which carries out the operations that
// are skipped here. It has a frame and a stack of its own, as both run at once:
// what it does is seen by nobody but the kernel and who waits for its end. It is
// made by clone(2): a filter that is loaded by then may well refuse clone3, whose
// arguments filters cannot see. All signals are at their defaults.
//
//go:nosplit
//go:norace
//go:noinline
func spawn(f *Frame, o *rawOp) {
	h := (*Frame)(at(f.Helper, 0))
	h.Base, h.Ops, h.Slots, h.Report = f.Base, f.Ops, f.Slots, f.Report
	h.PC, h.NOps = f.PC+1, f.PC+1+uint32(o.skip)
	h.Failed, h.Noted, h.PIDFD = 0, 0, -1
	r := beget(spawnFlags, f.SpawnStack, unsafe.Pointer(&h.PIDFD), f.SpawnTLS, h)
	if r < 0 {
		die(f, uint32(-r))
	}
	*slot(f, uint32(o.save)) = h.PIDFD
	f.PC += uint32(o.skip)
}

// closeAll leaves 0, 1, 2, the report socket, which execve closes, and perhaps
// a gate and the like. The others are closed and not merely marked: a path such
// as /proc/self/fd/7 must lead nowhere at execve (CVE-2024-21626).
//
//go:nosplit
//go:norace
//go:noinline
func closeAll(f *Frame, o *rawOp) {
	next := 3 + uintptr(o.args[5])
	for {
		low := lower(maxFD+1, next, uintptr(f.Report))
		for i := uintptr(0); i < 5; i++ {
			if n := *(*uint32)(unsafe.Add(unsafe.Pointer(o), 4*i)); n != 0 {
				low = lower(low, next, uintptr(*slot(f, n)))
			}
		}
		if low > maxFD {
			break
		}
		if low > next {
			closeRange(f, next, low-1)
		}
		next = low + 1
	}
	closeRange(f, next, maxFD)
}

// lower is fd where that is at least from and below low, else low. An empty
// slot's -1 is above all descriptors.
//
//go:nosplit
//go:norace
func lower(low, from, fd uintptr) uintptr {
	if fd >= from && fd < low {
		return fd
	}
	return low
}

//go:nosplit
//go:norace
//go:noinline
func closeRange(f *Frame, first, last uintptr) {
	if _, _, e := syscall.RawSyscall6(sysCloseRange, first, last, 0, 0, 0, 0); e != 0 {
		die(f, uint32(e))
	}
}

// resetInherited gives every signal its default action and unblocks all:
// CLONE_CLEAR_SIGHAND leaves ignored signals ignored, and so does execve. It
// also lowers the limit of open files that Go has raised for itself.
//
//go:nosplit
//go:norace
//go:noinline
func resetInherited(f *Frame) {
	zero := uintptr(unsafe.Pointer(&f.zero))
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		if sig == sigkill || sig == sigstop {
			continue
		}
		if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, zero, 0, 8, 0, 0); e != 0 {
			die(f, uint32(e))
		}
	}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, zero, 0, 8, 0, 0); e != 0 {
		die(f, uint32(e))
	}
	if f.OpenFiles[1] == 0 {
		return
	}
	limit := uintptr(unsafe.Pointer(&f.OpenFiles))
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, rlimitNofile, limit, 0, 0, 0); e != 0 {
		die(f, uint32(e))
	}
}

// dropBounding drops every capability this kernel has that the mask lacks; the
// first number it does not know ends the list (capabilities(7), EINVAL).
//
//go:nosplit
//go:norace
//go:noinline
func dropBounding(f *Frame, o *rawOp) {
	keep := uint64(o.args[0]) | uint64(o.args[1])<<32
	for c := uintptr(0); c <= lastCap; c++ {
		if keep>>c&1 != 0 {
			continue
		}
		_, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapbsetDrop, c, 0, 0, 0, 0)
		if e == syscall.EINVAL {
			return
		}
		if e != 0 {
			die(f, uint32(e))
		}
	}
}
