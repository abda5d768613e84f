package cli

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

var errNotDir error = syscall.ENOTDIR

// out copies from the container.
func (p *copying) out(src, dst string) error {
	st, exists, err := p.stat(src)
	if err != nil {
		return err
	}
	named := src
	if p.followLinks && exists && st.LinkTarget != "" {
		src = st.LinkTarget
		if st, exists, err = p.stat(src); err != nil {
			return err
		}
	}
	if dst == "-" {
		if isTerminal(p.Out) {
			return fault.Say(fault.Invalid, "cowardly refusing to write an archive to a terminal")
		}
		return p.stream(src)
	}
	to, err := local(dst)
	if err != nil {
		return err
	}
	dir, name, err := placeFor(named, exists && st.Mode.IsDir(), to)
	if err != nil {
		return err
	}
	return p.download(src, dir, name)
}

// stream writes the archive to standard output.
func (p *copying) stream(src string) error {
	f, ok := p.Out.(*os.File)
	if !ok {
		f = p.Files[1]
	}
	return p.fetch(src, f)
}

func (p *copying) fetch(src string, to *os.File) error {
	var st record.PathStat
	return p.watch(wire.ReadPath, wire.PathCall{ID: p.container, Path: src}, &st, nil, int(to.Fd()))
}

// download unpacks what src is in dir, under another name.
func (p *copying) download(src, dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.Say(fault.ClassOf(err), err.Error())
	}
	defer root.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.Internal, "make", "pipe", err, "")
	}
	defer r.Close()
	fetched := make(chan error, 1)
	go func() {
		fetched <- p.fetch(src, w)
		w.Close() // the daemon has closed its own by now
	}()
	u := &unpacking{copying: p, root: root, name: name, made: map[string]bool{}}
	err = u.all(tar.NewReader(r))
	if err != nil {
		r.Close() // the daemon's writing fails
		if remote := <-fetched; remote != nil && errors.Is(err, io.ErrUnexpectedEOF) {
			return remote
		}
		return err
	}
	_, _ = io.Copy(io.Discard, r)
	return <-fetched
}

// unpacking makes local files of an archive whose content is a container's. Go's
// os.Root lets no symbolic link lead out of the directory, and below directories
// of the archive's own none is followed at all: what is made is only ever what
// the archive says.
type unpacking struct {
	*copying
	root  *os.Root
	name  string
	made  map[string]bool // directories that may be written to
	times []dirTime
}

type dirTime struct {
	name string
	h    *tar.Header
}

func (u *unpacking) all(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if err == io.EOF {
			return u.finish()
		}
		if err != nil {
			return fault.Wrap(fault.Corrupt, "read", "archive", err, "")
		}
		if slices.Contains(strings.Split(h.Name, "/"), "..") {
			return fault.New(fault.Corrupt, "unpack", h.Name, `the name holds ".."`, "")
		}
		name := rename(h.Name, u.name)
		if err := u.entry(t, name, h); err != nil {
			return u.explain(name, err)
		}
	}
}

func (u *unpacking) explain(name string, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fault.Wrap(fault.Denied, "write", path.Join(u.root.Name(), name), err, "")
}

func (u *unpacking) entry(t *tar.Reader, name string, h *tar.Header) error {
	if dir := path.Dir(name); dir != "." && dir != name && !u.made[dir] {
		return fault.New(fault.Corrupt, "unpack", h.Name, "it comes before its directory", "")
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.mkdir(name, h)
	case tar.TypeReg:
		return u.file(t, name, h)
	case tar.TypeSymlink:
		if err := u.clear(name); err != nil {
			return err
		}
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return errors.Join(u.chown(name, h), u.linkTime(name, h.ModTime))
	case tar.TypeLink:
		if err := u.clear(name); err != nil {
			return err
		}
		return u.root.Link(rename(h.Linkname, u.name), name)
	}
	u.warn(h.Name, "it is a device or a pipe")
	return nil
}

func (u *unpacking) mkdir(name string, h *tar.Header) error {
	st, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = u.root.Mkdir(name, 0o700)
	case err == nil && !st.IsDir():
		err = fault.Say(fault.Invalid, "cannot overwrite non-directory "+name+" with directory "+name)
	case err == nil && u.name == "." && name == ".", err == nil && u.made[name]:
		u.made[name] = true
		return nil
	}
	if err != nil {
		return err
	}
	u.made[name] = true
	u.times = append(u.times, dirTime{name, h})
	return nil
}

// clear removes what is in the way of a file, which is no directory.
func (u *unpacking) clear(name string) error {
	st, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		return fault.Say(fault.Invalid, "cannot overwrite directory "+name+" with non-directory "+name)
	}
	return u.root.Remove(name)
}

func (u *unpacking) file(t *tar.Reader, name string, h *tar.Header) error {
	if err := u.clear(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := copySparse(f, t)
	u.bytes += n
	if err == nil && u.keepOwners {
		err = f.Chown(h.Uid, h.Gid)
	}
	if err == nil {
		err = f.Chmod(fs.FileMode(h.Mode) & fs.ModePerm)
		u.setAttrs(f, h)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = u.root.Chtimes(name, time.Time{}, h.ModTime)
	}
	return err
}

func (u *unpacking) chown(name string, h *tar.Header) error {
	if !u.keepOwners {
		return nil
	}
	return u.root.Lchown(name, h.Uid, h.Gid)
}

// linkTime sets the time of a symbolic link, which os.Root would follow.
func (u *unpacking) linkTime(name string, mtime time.Time) error {
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	spec := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(mtime.UnixNano())}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(name), spec, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives directories, last first, what had to wait until they were filled.
func (u *unpacking) finish() error {
	for _, d := range slices.Backward(u.times) {
		f, err := u.root.Open(d.name)
		if err != nil {
			return u.explain(d.name, err)
		}
		if u.keepOwners {
			err = f.Chown(d.h.Uid, d.h.Gid)
		}
		mode := fs.FileMode(d.h.Mode) & fs.ModePerm
		if d.h.Mode&0o1000 != 0 {
			mode |= fs.ModeSticky
		}
		err = errors.Join(err, f.Chmod(mode))
		u.setAttrs(f, d.h)
		err = errors.Join(err, f.Close(), u.root.Chtimes(d.name, time.Time{}, d.h.ModTime))
		if err != nil {
			return u.explain(d.name, err)
		}
	}
	return nil
}
