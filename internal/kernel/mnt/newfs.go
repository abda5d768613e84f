package mnt

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// FS is a file system being configured. The first failure sticks: later calls
// do nothing, and Mount reports it.
type FS struct {
	ctx  *os.File
	kind string
	err  error
}

// NewFS begins to configure a new file system of a kind ("overlay", "tmpfs").
// End it with Mount or Close.
func NewFS(kind string) *FS {
	n, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return &FS{kind: kind, err: refused("make file system", kind, err, "")}
	}
	return &FS{ctx: fd.Wrap(n, kind), kind: kind}
}

// Opened is a file system of a kind that somebody else has begun to configure:
// ctx is what fsopen(2) returned, and becomes the FS's.
func Opened(ctx *os.File, kind string) *FS { return &FS{ctx: ctx, kind: kind} }

// Set gives an option its value. Values are limited to 255 bytes (fsconfig(2)).
func (f *FS) Set(key, value string) *FS {
	return f.do(key+"="+value, func(n int) error { return unix.FsconfigSetString(n, key, value) })
}

// Flag sets an option that has no value.
func (f *FS) Flag(key string) *FS {
	return f.do(key, func(n int) error { return unix.FsconfigSetFlag(n, key) })
}

// FD gives an option a descriptor. value must stay open until Mount has
// returned: the kernel looks at it again when the file system is created.
// Before Linux 6.13 fsconfig(2) takes no O_PATH descriptor, and says EBADF:
// that is class Unsupported here.
func (f *FS) FD(key string, value *os.File) *FS {
	return f.do(key+"="+value.Name(), func(n int) error {
		err := unix.FsconfigSetFd(n, key, int(value.Fd()))
		if errors.Is(err, unix.EBADF) {
			return unix.EOPNOTSUPP
		}
		return err
	})
}

func (f *FS) do(what string, call func(int) error) *FS {
	if f.err == nil {
		if err := call(int(f.ctx.Fd())); err != nil {
			f.err = refused("set option "+what+" of", f.kind, err, f.log())
		}
	}
	return f
}

// Mount creates the file system and returns it as a detached mount with these
// attributes. The configuration is over, whatever the outcome. The caller
// closes the result.
func (f *FS) Mount(attrs int) (*os.File, error) {
	defer f.Close()
	if f.err != nil {
		return nil, f.err
	}
	if err := unix.FsconfigCreate(int(f.ctx.Fd())); err != nil {
		return nil, refused("create file system", f.kind, err, f.log())
	}
	n, err := unix.Fsmount(int(f.ctx.Fd()), unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, refused("mount file system", f.kind, err, f.log())
	}
	return fd.Wrap(n, f.kind), nil
}

// Err returns the first failure so far.
func (f *FS) Err() error { return f.err }

// Close gives the configuration up. It may be called twice.
func (f *FS) Close() {
	if f.ctx != nil {
		f.ctx.Close()
		f.ctx = nil
	}
}

// log returns what the kernel has to say about the failure: each read of the
// context is one message with a letter for its severity in front.
func (f *FS) log() string {
	var said []string
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(int(f.ctx.Fd()), buf)
		if err != nil || n <= 2 {
			return strings.Join(said, "; ")
		}
		said = append(said, strings.TrimSpace(string(buf[2:n])))
	}
}

// refused classifies: EINVAL for an option that fief always sets rightly means
// that this kernel or the file system below does not know it.
func refused(op, kind string, err error, said string) error {
	cause := err
	if said != "" {
		cause = fmt.Errorf("%w (%s)", err, said)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return fault.Wrap(fault.Unsupported, op, kind, cause, "")
	}
	var errno unix.Errno
	errors.As(err, &errno)
	return fault.Wrap(sysx.Class(errno), op, kind, cause, "")
}
