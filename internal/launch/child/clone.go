package child

import "unsafe"

// clone calls clone3, and in the child run on the new stack. In the parent it
// returns what the kernel does: the pid, or a negative errno. It is assembly
// because the child has another stack than the code that made it.
//
//go:noescape
func clone(args unsafe.Pointer, size uintptr, f *Frame) int

// run is called from that assembly only.
var _ = run
