package child

import "unsafe"

// clone calls clone3, and in the child run on the new stack. In the parent it
// returns what the kernel does: the pid, or a negative errno. It is assembly
// because the child has another stack than the code that made it.
//
//go:noescape
func clone(args unsafe.Pointer, size uintptr, f *Frame) int

// split calls clone3 without a stack of its own for the new process, which
// returns 0 here; the calling process ends. It is assembly because the two share
// the memory of their stack: the calling one may not touch it once there is the
// other. A negative errno is returned when there is none.
//
//go:noescape
func split(args unsafe.Pointer, size uintptr) int

// beget calls clone(2) with flags, the end of a stack, where the kernel puts a
// pidfd, and thread-local storage; in the child it calls run, in the parent it
// returns what the kernel does.
//
//go:noescape
func beget(flags, stack uintptr, pidfd unsafe.Pointer, tls uintptr, f *Frame) int

// run is called from that assembly only.
var _ = run
