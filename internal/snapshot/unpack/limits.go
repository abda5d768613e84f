package unpack

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"fief/internal/words/fault"

	"golang.org/x/sys/unix"
)

// Limits bound what a layer may ask of the machine. A zero field means its
// default, which is above every image known to be useful.
type Limits struct {
	Entries   int64 // entries, left-out parents included; 2 million
	Bytes     int64 // content of all files, holes included; 256 GiB
	Stream    int64 // the archive itself; 512 GiB
	Name      int   // bytes of a name or link target; 4095, the kernel's PATH_MAX without its NUL
	NameBytes int64 // memory for names of directories whose times are set at the end; 256 MiB
	Xattr     int   // bytes of one extended attribute; 65536, the kernel's XATTR_SIZE_MAX
	Xattrs    int   // extended attributes of one entry; 256
}

func (l Limits) orDefault() Limits {
	l.Entries = or(l.Entries, 2_000_000)
	l.Bytes = or(l.Bytes, 256<<30)
	l.Stream = or(l.Stream, 512<<30)
	l.Name = or(l.Name, 4095)
	l.NameBytes = or(l.NameBytes, 256<<20)
	l.Xattr = or(l.Xattr, 65536)
	l.Xattrs = or(l.Xattrs, 256)
	return l
}

func or[N int | int64](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

func over(what string, limit int64) error {
	return fault.New(fault.Exhausted, "unpack", "layer", "it has more than "+strconv.FormatInt(limit, 10)+" "+what,
		"the limit protects the host from archives made to exhaust it")
}

// bad is an entry that no honest layer has.
func bad(name, why string) error {
	return fault.New(fault.Invalid, "unpack", quote(name), why, "")
}

// quote makes a hostile name printable and short.
func quote(name string) string {
	if len(name) > 100 {
		name = name[:97] + "..."
	}
	return strconv.Quote(name)
}

// readFault says why the archive cannot be read. What the reader below says is
// a fault already (see counted), such as a digest that does not verify;
// everything else comes from the archive's own structure.
func readFault(what string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Corrupt, "unpack", what, "the archive is cut off", "")
	}
	return fault.Wrap(fault.Corrupt, "unpack", what, err, "")
}

// sysFault says which system call failed on which entry.
func sysFault(op, name string, err error) error {
	class, hint := fault.Internal, ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		class, hint = fault.Exhausted, "free some space below the data root"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		class = fault.Exhausted
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		class = fault.Invalid
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EEXIST):
		class = fault.Invalid
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		class = fault.Denied
	case errors.Is(err, unix.EOPNOTSUPP):
		class, hint = fault.Unsupported, "move the data root to a file system that has it"
	}
	return fault.Wrap(class, fmt.Sprintf("unpack layer: %s", op), quote(name), err, hint)
}
