// Package sysx turns the errno of a system call into a fault: the one table
// from error numbers to classes below the rooms.
package sysx

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Class says which class of fault an errno is when the caller knows nothing
// more about it. EINVAL, EPERM and EACCES depend on the call: a caller that
// knows better says so itself.
func Class(errno unix.Errno) fault.Class {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ESRCH, unix.ENODEV, unix.ENXIO:
		return fault.NotFound
	case unix.EEXIST, unix.ENOTEMPTY:
		return fault.Exists
	case unix.EPERM, unix.EACCES, unix.EROFS:
		return fault.Denied
	case unix.EBUSY, unix.ETXTBSY, unix.EAGAIN:
		return fault.Busy
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return fault.Unsupported
	case unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EUSERS, unix.EFBIG:
		return fault.Exhausted
	case unix.ELOOP, unix.EXDEV, unix.ENAMETOOLONG:
		return fault.Invalid
	case unix.EIO, unix.EUCLEAN, unix.EBADMSG:
		return fault.Corrupt
	}
	return fault.Internal
}

// Fault wraps the error of a system call with what was being done to what. It
// returns nil for nil. The paths that package os puts into its errors are
// dropped, as object names the thing already.
func Fault(op, object string, err error) error {
	return Hint(op, object, err, "")
}

// Hint is Fault with an advice for the reader.
func Hint(op, object string, err error, hint string) error {
	if err == nil {
		return nil
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fault.Wrap(fault.ClassOf(err), op, object, bare(err), hint)
	}
	return fault.Wrap(Class(errno), op, object, bare(err), hint)
}

func bare(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
