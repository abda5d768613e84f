// Package fd has what fief does with descriptors whatever they refer to. A
// descriptor is an *os.File everywhere above the system call, so that it has
// one owner and a name that errors can print.
package fd

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
)

// Wrap gives the descriptor n a name and an owner: the caller, who closes it.
// n must be close-on-exec already.
func Wrap(n int, name string) *os.File { return os.NewFile(uintptr(n), name) }

// Dup returns another descriptor of the same open file, close-on-exec. The
// caller owns the result; f is untouched.
func Dup(f *os.File) (*os.File, error) {
	n, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, sysx.Fault("duplicate descriptor of", f.Name(), err)
	}
	return Wrap(n, f.Name()), nil
}

// Path names what f refers to for system calls that take only paths (proc(5),
// /proc/pid/fd). It is valid as long as f is open, in this process, where
// /proc is mounted.
func Path(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// CloseAll closes all files; nil ones are skipped.
func CloseAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
