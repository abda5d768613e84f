package shift

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
)

// file makes a regular file: empty, with what the way puts into it, then with
// its attributes.
func (c *copier) file(from, to object, st *unix.Stat_t, path string) error {
	n, err := unix.Openat(int(to.dir.Fd()), to.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return sysx.Fault("copy", to.String(), err)
	}
	to.file = fd.Wrap(n, to.String())
	defer to.file.Close()
	if c.Way == Metacopy {
		if err := shadow(to.file, st, path); err != nil {
			return sysx.Fault("make shadow", to.String(), err)
		}
		return c.finish(from, to, st)
	}
	if from.file, err = at.Beneath(from.dir, from.name, unix.O_RDONLY|unix.O_NOFOLLOW); err != nil {
		return err
	}
	defer from.file.Close()
	if err := c.contents(from.file, to.file, st.Size); err != nil {
		return sysx.Fault("copy", to.String(), err)
	}
	return c.finish(from, to, st)
}

// The attributes by which overlayfs takes what a file holds from the data
// layer (overlayfs.rst, "Data-only lower layers").
const (
	overlayMetacopy = "trusted.overlay.metacopy"
	overlayRedirect = "trusted.overlay.redirect"
	overlayOpaque   = "trusted.overlay.opaque"
	overlayPrefix   = "trusted.overlay."
)

// shadow makes out stand for the file at path: it has the size, and says where
// in the data layers the rest is. An empty file needs no other.
func shadow(out *os.File, st *unix.Stat_t, path string) error {
	if st.Size == 0 {
		return nil
	}
	if err := unix.Ftruncate(int(out.Fd()), st.Size); err != nil {
		return err
	}
	if err := unix.Fsetxattr(int(out.Fd()), overlayRedirect, []byte("/"+path), 0); err != nil {
		return err
	}
	return unix.Fsetxattr(int(out.Fd()), overlayMetacopy, nil, 0)
}

func (c *copier) contents(in, out *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if c.Way == Reflink {
		// btrfs refuses for a file without checksums (EINVAL, chattr(1) +C).
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return data(in, out)
}

// TryReflink makes two files below dir, which is empty, that share one block.
func TryReflink(dir *os.File) error {
	open := func(name string, flags int) (*os.File, error) {
		n, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return fd.Wrap(n, name), sysx.Fault("make file", name, err)
	}
	in, err := open("in", unix.O_RDWR)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := open("out", unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := in.Write(make([]byte, 1<<16)); err != nil {
		return sysx.Fault("write to", in.Name(), err)
	}
	return sysx.Fault("share the blocks of", in.Name(), unix.IoctlFileClone(int(out.Fd()), int(in.Fd())))
}

// data copies a file by its extents, so that holes stay holes: lastlog(8) of
// a machine with large user ids is hundreds of gigabytes of nothing. io.Copy
// uses copy_file_range(2), which shares blocks where the file system can.
func data(in, out *os.File) error {
	st, err := in.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(in.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := extent(in, out, start, end-start); err != nil {
			return err
		}
		off = end
	}
	return out.Truncate(size)
}

func extent(in, out *os.File, start, n int64) error {
	if _, err := in.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(start, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(out, in, n)
	return err
}
