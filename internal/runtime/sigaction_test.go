package runtime_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction changes a disposition behind the Go runtime's back.
func sigaction(t *testing.T, sig unix.Signal, new, old *[4]uint64) {
	t.Helper()
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), 8, 0, 0); e != 0 {
		t.Fatal(e)
	}
}
