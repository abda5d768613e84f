package within

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// Owner is a user and a group as the container knows them.
type Owner struct{ UID, GID idmap.Inside }

// Target says where an archive goes.
type Target struct {
	Root      *os.File   // the container's root directory; stays the caller's
	Pair      idmap.Pair // its map; zero without one
	Path      string     // a directory as processes of the container see it
	KeepKinds bool       // refuse to replace directories by others and others by directories
	Owner     *Owner     // of everything made; nil: the archive says
	ReadOnly  bool       // the container's root was asked for read-only
}

const (
	// maxStamps bounds the memory for directories whose times are set at the end.
	maxStamps = 1 << 20
	// tries bounds how often a name is cleared that the container makes again.
	tries = 16
)

// Extract unpacks a tar below Path, in docker's way: what is there is replaced,
// directories of one name become one, and the entry of Path itself changes
// nothing. It reads r to the end of the archive. After an error a part of the
// archive has been unpacked.
//
// Faults: NotFound when Path does not exist, Invalid when it is no directory, for
// what is no tar, and for owners that the map has not; Denied for read-only
// places, files of the kernel and directories whose owner the map has not;
// Unsupported for device nodes; Exhausted; Canceled.
func Extract(ctx context.Context, to Target, r io.Reader) error {
	t, err := newTree(to.Root, to.Pair)
	if err != nil {
		return err
	}
	defer t.root.Close()
	w := &writer{tree: t, ctx: ctx, to: to, tar: tar.NewReader(r), stamps: map[string]time.Time{}, buf: make([]byte, 256<<10)}
	w.dir, err = at.InRoot(t.root, absolute(to.Path), unix.O_PATH|unix.O_DIRECTORY)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return fault.Say(fault.Invalid, "extraction point is not a directory")
	case fault.Is(err, fault.NotFound):
		return missing(absolute(to.Path))
	case err != nil:
		return err
	}
	defer w.dir.Close()
	if err := w.mayWrite(); err != nil {
		return err
	}
	return asRoot(to.Pair, w.entries)
}

// mayWrite says early, and in docker's words, what a system call would refuse.
func (w *writer) mayWrite() error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(w.dir.Fd()), &s); err != nil {
		return sysx.Fault("look at the file system of", w.dir.Name(), err)
	}
	switch {
	case s.Flags&unix.ST_RDONLY == 0:
		return nil
	case w.to.ReadOnly:
		return fault.Say(fault.Denied, "container rootfs is marked read-only")
	}
	return fault.Say(fault.Denied, "mounted volume is marked read-only")
}

type writer struct {
	tree
	ctx    context.Context
	to     Target
	dir    *os.File // what Path was found to be, O_PATH
	tar    *tar.Reader
	stamps map[string]time.Time // of directories, by name
	last   *os.File             // the directory of the entry before this one
	name   string               // its name
	buf    []byte
}

func (w *writer) entries() error {
	defer func() { w.keep("", nil) }()
	for {
		if err := w.ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, "unpack", "archive", err, "")
		}
		h, err := w.tar.Next()
		if err == io.EOF {
			return w.stamp()
		}
		if err != nil {
			return inFault(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := w.entry(h); err != nil {
			return err
		}
		failpoint.Hit("copied-in")
	}
}

// inFault is for errors of the archive; what whoever delivers it says is a
// fault already.
func inFault(err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.Invalid, "unpack", "archive", "it is cut off", "")
	}
	return fault.Wrap(fault.Invalid, "unpack", "archive", err, "")
}

func bad(name, why string) error { return fault.New(fault.Invalid, "unpack", quote(name), why, "") }

func quote(name string) string {
	if len(name) > 100 {
		name = name[:97] + "..."
	}
	return strconv.Quote(name)
}

// clean makes a name relative; a leading slash means Path, and ".." is refused.
func clean(raw string) (string, error) {
	if len(raw) >= unix.PathMax || strings.IndexByte(raw, 0) >= 0 {
		return "", bad(raw, "no file can have this name")
	}
	for part := range strings.SplitSeq(raw, "/") {
		if part == ".." {
			return "", bad(raw, `the name holds ".."`)
		}
	}
	return path.Clean("./" + strings.TrimLeft(raw, "/")), nil
}

func (w *writer) entry(h *tar.Header) error {
	name, err := clean(h.Name)
	if err != nil || name == "." {
		return err
	}
	m, err := w.metaOf(name, h)
	if err != nil {
		return err
	}
	dir, base := path.Split(name)
	parent, err := w.parent(path.Clean(dir))
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return w.mkdir(parent, base, name, m)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return w.file(parent, base, h, m)
	case tar.TypeLink:
		return w.link(parent, base, h)
	case tar.TypeSymlink:
		return w.node(parent, base, m, func() error { return unix.Symlinkat(h.Linkname, int(parent.Fd()), base) })
	case tar.TypeFifo:
		return w.node(parent, base, m, func() error { return unix.Mkfifoat(int(parent.Fd()), base, 0o600) })
	case tar.TypeChar, tar.TypeBlock:
		return fault.New(fault.Unsupported, "unpack", quote(name), "device nodes are not made in containers", "leave it out of the archive, or start the container with --device")
	}
	return bad(name, "it is an entry of unknown type "+strconv.Quote(string(h.Typeflag)))
}

// parent opens the directory that entries are made in, and makes those that the
// archive left out. It stays open until the next one is asked for.
func (w *writer) parent(name string) (*os.File, error) {
	if w.last != nil && w.name == name {
		return w.last, nil
	}
	f, err := w.find(name)
	if errors.Is(err, unix.ENOENT) && name != "." {
		f, err = w.makeParent(name)
	}
	if err != nil {
		return nil, err
	}
	if err := w.mayMake(f); err != nil {
		f.Close()
		return nil, err
	}
	w.keep(name, f)
	return f, nil
}

func (w *writer) keep(name string, f *os.File) {
	fd.CloseAll(w.last)
	w.name, w.last = name, f
}

// find opens a directory below Path. Where there are symbolic links on the way,
// as in /var/run, it is resolved again from the container's root; it is a
// directory of the container's in any case.
func (w *writer) find(name string) (*os.File, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	f, err := at.Below(w.dir, name, flags)
	if errors.Is(err, unix.ELOOP) {
		f, err = at.InRoot(w.root, path.Join(absolute(w.to.Path), name), flags)
	}
	return f, err
}

func (w *writer) makeParent(name string) (*os.File, error) {
	above, base := path.Split(name)
	dir, err := w.parent(path.Clean(above))
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(int(dir.Fd()), base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, w.fault("make directory", name, err)
	}
	return w.find(name)
}

// mayMake refuses directories that the container's root may not make files in:
// somebody else's, unless everybody may, and those through which the kernel is
// governed.
func (w *writer) mayMake(dir *os.File) error {
	const everybody, sticky = unix.S_IWOTH | unix.S_IXOTH, unix.S_ISVTX
	st, err := look(dir)
	if err == nil && st.Mode&(everybody|sticky) == everybody {
		return w.refuseGoverned(dir)
	}
	return w.check(dir)
}

// check refuses directories that the container's root may not change and those
// through which the kernel is governed.
func (w *writer) check(dir *os.File) error {
	if err := w.refuseGoverned(dir); err != nil {
		return err
	}
	st, err := look(dir)
	if err != nil || w.ours(&st) {
		return err
	}
	return fault.New(fault.Denied, "write to", dir.Name(), "it belongs to somebody whom the container's map does not have",
		"give the directory to the container's ids on the host")
}

// fault names what failed as the container knows it.
func (w *writer) fault(op, name string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EBUSY):
		hint = "something is mounted there: write to what is mounted instead"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "the file system of the container, or of what is mounted there, is full"
	}
	return sysx.Hint(op, path.Join(absolute(w.to.Path), name), err, hint)
}

// mkdir makes a directory or gives an existing one the archive's owner and mode.
func (w *writer) mkdir(parent *os.File, base, name string, m meta) error {
	err := unix.Mkdirat(int(parent.Fd()), base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		err = w.overDir(parent, base, name)
	}
	if err != nil {
		return w.fault("make directory", name, err)
	}
	f, err := at.Below(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.check(f); err != nil {
		return err
	}
	if len(w.stamps) < maxStamps {
		w.stamps[name] = m.mtime
	}
	return m.apply(f)
}

// overDir makes room for a directory where something is; nothing is to be done
// for a directory.
func (w *writer) overDir(parent *os.File, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if w.to.KeepKinds {
		return fault.Say(fault.Invalid, "cannot overwrite non-directory "+quote(path.Join(absolute(w.to.Path), name))+" with directory "+quote(base))
	}
	if err := unlink(parent, base); err != nil {
		return err
	}
	return unix.Mkdirat(int(parent.Fd()), base, 0o700)
}

// unlink removes what is no directory. A mount point is left (EBUSY): unlinkat(2)
// protects only those of the caller's mount namespace, and takes the mounts of
// others away with the name (Linux 3.18, commit 8ed936b5671b, "vfs: Lazily
// remove mounts on unlinked files and directories").
func unlink(parent *os.File, base string) error {
	var st unix.Statx_t
	err := unix.Statx(int(parent.Fd()), base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		err = unix.EBUSY
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(int(parent.Fd()), base, 0)
}

// place does what makes something at base, after removing what is there.
func (w *writer) place(parent *os.File, base string, do func() error) error {
	for range tries {
		err := do()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := w.clear(parent, base); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.EBUSY
}

func (w *writer) clear(parent *os.File, base string) error {
	err := unlink(parent, base)
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if w.to.KeepKinds {
		return fault.Say(fault.Invalid, "cannot overwrite directory "+quote(path.Join(parent.Name(), base))+" with non-directory "+quote(base))
	}
	return at.RemoveTree(parent, base)
}

// stamp sets the times of directories, which making files in them had changed.
// What the container has moved meanwhile keeps its own.
func (w *writer) stamp() error {
	for name, mtime := range w.stamps {
		f, err := at.Below(w.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
		if err != nil {
			continue
		}
		if w.check(f) == nil {
			setTime(f, mtime)
		}
		f.Close()
	}
	return nil
}
