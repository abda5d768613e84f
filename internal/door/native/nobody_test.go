package native_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody runs f on a thread of its own whose user is nobody. The thread ends
// with it: a raw setresuid(2) changes only the calling thread.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	go func() {
		runtime.LockOSThread()
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			t.Errorf("setresuid: %v", errno)
		}
		f()
	}()
}
