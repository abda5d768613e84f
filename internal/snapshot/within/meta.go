package within

import (
	"archive/tar"
	"errors"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// meta is what an entry becomes besides its content, with host ids.
type meta struct {
	uid, gid uint32
	mode     uint32
	mtime    time.Time
	xattrs   map[string][]byte
}

func (w *writer) metaOf(name string, h *tar.Header) (m meta, err error) {
	uid, gid := h.Uid, h.Gid
	if o := w.to.Owner; o != nil {
		uid, gid = int(o.UID), int(o.GID)
	}
	var okUID, okGID bool
	m.uid, okUID = outside(w.pair.UID, uid)
	m.gid, okGID = outside(w.pair.GID, gid)
	if !okUID || !okGID {
		return m, fault.New(fault.Invalid, "unpack", quote(name), "the container's map has no such owner as the archive names",
			"make the archive with --owner 0 --group 0, or give the container a larger range")
	}
	m.mode, m.mtime = uint32(h.Mode&0o7777), h.ModTime
	m.xattrs, err = w.attrsFor(name, h)
	return m, err
}

// apply sets everything on a descriptor that is open for reading or writing:
// owner first, since that clears the set-id bits and capabilities (chown(2)).
func (m meta) apply(f *os.File) error {
	n := int(f.Fd())
	if err := unix.Fchown(n, int(m.uid), int(m.gid)); err != nil {
		return sysx.Fault("set the owner of", f.Name(), err)
	}
	if err := unix.Fchmod(n, m.mode); err != nil {
		return sysx.Fault("set the mode of", f.Name(), err)
	}
	for attr, v := range m.xattrs {
		err := unix.Fsetxattr(n, attr, v, 0)
		if strings.HasPrefix(attr, "user.") && errors.Is(err, unix.EOPNOTSUPP) {
			continue // as docker does: a tmpfs before Linux 6.6 has none
		}
		if err != nil {
			return sysx.Fault("set "+attr+" on", f.Name(), err)
		}
	}
	setTime(f, m.mtime)
	return nil
}

// setTime sets the time of a last change. That nothing depends on it, and that
// some file systems have none, makes a failure no error.
func setTime(f *os.File, mtime time.Time) {
	spec, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, spec}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, fd.Path(f), times, 0)
}

// file makes a regular file anew. Half of one is not left behind.
func (w *writer) file(parent *os.File, base string, h *tar.Header, m meta) error {
	var n int
	err := w.place(parent, base, func() (err error) {
		n, err = unix.Openat(int(parent.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return w.fault("make file", h.Name, err)
	}
	f := fd.Wrap(n, path.Join(parent.Name(), base))
	err = w.fill(f, h)
	if err == nil {
		err = m.apply(f)
	}
	err = errors.Join(err, sysx.Fault("close", f.Name(), f.Close()))
	if err != nil {
		_ = unix.Unlinkat(int(parent.Fd()), base, 0)
	}
	return err
}

// fill copies the content; holes stay holes.
func (w *writer) fill(f *os.File, h *tar.Header) error {
	sparse := h.Typeflag == tar.TypeGNUSparse
	for key := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	var at int64
	for at < h.Size {
		if err := w.ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, "unpack", "archive", err, "")
		}
		n, err := w.tar.Read(w.buf)
		if n > 0 && (!sparse || !zero(w.buf[:n])) {
			if _, err := f.WriteAt(w.buf[:n], at); err != nil {
				return w.fault("write", h.Name, err)
			}
		}
		at += int64(n)
		if n == 0 && err != nil {
			return inFault(err)
		}
	}
	if sparse {
		return w.fault("set the size of", h.Name, f.Truncate(h.Size))
	}
	return nil
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// node makes what is neither file nor directory. Its owner is set through a
// descriptor: what the container may have put in its place is somebody's who
// could do the same.
func (w *writer) node(parent *os.File, base string, m meta, do func() error) error {
	if err := w.place(parent, base, do); err != nil {
		return w.fault("make", base, err)
	}
	f, err := at.Below(parent, base, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := look(f)
	if err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if !w.ours(&st) || kind != unix.S_IFLNK && kind != unix.S_IFIFO {
		return fault.New(fault.Conflict, "unpack", quote(base), "the container changed it meanwhile", "copy it again")
	}
	if err := unix.Fchownat(int(f.Fd()), "", int(m.uid), int(m.gid), unix.AT_EMPTY_PATH); err != nil {
		return w.fault("set the owner of", base, err)
	}
	spec, timeErr := unix.TimeToTimespec(m.mtime)
	if timeErr == nil {
		_ = unix.UtimesNanoAt(int(parent.Fd()), base, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, spec}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if kind == unix.S_IFLNK {
		return nil
	}
	return w.fault("set the mode of", base, unix.Chmod(fd.Path(f), m.mode))
}

// link makes a hard link to a file that an earlier entry has made, by its
// descriptor: a file that is not the container's gets no name from it.
func (w *writer) link(parent *os.File, base string, h *tar.Header) error {
	to, err := clean(h.Linkname)
	if err != nil {
		return err
	}
	dir, toBase := path.Split(to)
	from, err := w.find(path.Clean("./" + dir))
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := at.Below(from, toBase, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := look(f)
	if err != nil {
		return err
	}
	if !w.ours(&st) {
		return fault.New(fault.Denied, "unpack", quote(base), "it is a hard link to a file of somebody whom the container's map does not have", "")
	}
	err = w.place(parent, base, func() error { return unix.Linkat(int(f.Fd()), "", int(parent.Fd()), base, unix.AT_EMPTY_PATH) })
	return w.fault("make hard link", h.Name, err)
}
