package pack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// inode names a file within one machine.
type inode struct{ dev, ino uint64 }

// writer writes entries into a tar.
type writer struct {
	ctx     context.Context
	s       Source
	tar     *tar.Writer
	links   map[inode]string // first path of files with several names
	entries int64
	buf     []byte
}

func newWriter(ctx context.Context, s Source, to io.Writer) *writer {
	return &writer{ctx: ctx, s: s, tar: tar.NewWriter(to), links: map[inode]string{}, buf: make([]byte, 256<<10)}
}

func (w *writer) put(h *tar.Header) error {
	w.entries++
	return writeFault(quote(h.Name), w.tar.WriteHeader(h))
}

// writeFault keeps what the receiver of the tar said, which may be a fault.
func writeFault(what string, err error) error {
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return err
	case errors.Is(err, tar.ErrHeader):
		return fault.Wrap(fault.Invalid, "archive", what, err, "")
	}
	return fault.Wrap(fault.Unavailable, "write archive at", what, err, "")
}

// file writes an entry that is no directory and no whiteout. Sockets are left
// out, as they mean nothing without their process, and device nodes below dev/,
// as containers have a /dev of their own over it.
func (w *writer) file(t tree, name, path string, st *unix.Stat_t) error {
	switch kind(st) {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFCHR, unix.S_IFBLK:
		if strings.HasPrefix(path, "dev/") {
			return nil
		}
		return refused(path, "it is a device node, and no image may have one", "delete it: containers have the usual nodes in /dev")
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := w.links[id]; ok {
			return w.link(t, name, path, first, st)
		}
		w.links[id] = path
	}
	if kind(st) == unix.S_IFREG {
		return w.regular(t, name, path, st.Ino)
	}
	h, err := w.s.header(t, name, path, st)
	if gone(err) || err == nil && h.Typeflag == tar.TypeSymlink && h.Linkname == "" {
		w.unlinked(path)
		return nil
	}
	if err != nil {
		return err
	}
	return w.put(h)
}

// link writes another name of a file that was written.
func (w *writer) link(t tree, name, path, first string, st *unix.Stat_t) error {
	if err := fits(path); err != nil {
		return err
	}
	uid, gid, err := w.s.owner(t, st, path)
	if err != nil {
		return err
	}
	return w.put(&tar.Header{Typeflag: tar.TypeLink, Name: path, Linkname: first, Mode: int64(st.Mode & 0o7777), Uid: uid, Gid: gid, Format: tar.FormatPAX})
}

// unlinked forgets a file that vanished before it was written: its other names
// cannot be links to it.
func (w *writer) unlinked(path string) {
	for id, first := range w.links {
		if first == path {
			delete(w.links, id)
		}
	}
}

// regular writes a file with the size it has now, whatever happens to it
// meanwhile.
func (w *writer) regular(t tree, name, path string, ino uint64) error {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	n, err := unix.Openat(int(t.dir.Fd()), name, flags, 0)
	if gone(err) || errors.Is(err, unix.ENXIO) {
		w.unlinked(path)
		return nil
	}
	if err != nil {
		return sysx.Fault("open", quote(path), err)
	}
	f := fd.Wrap(n, name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(n, &st); err != nil {
		return sysx.Fault("look at", quote(path), err)
	}
	if kind(&st) != unix.S_IFREG {
		w.unlinked(path)
		return nil
	}
	h, err := w.s.header(t, name, path, &st)
	if gone(err) {
		w.unlinked(path)
		return nil
	}
	if err != nil {
		return err
	}
	if st.Ino != ino { // another file took the name meanwhile
		w.unlinked(path)
	}
	if err := w.put(h); err != nil {
		return err
	}
	return w.content(f, path, st.Size)
}

func (w *writer) content(f *os.File, path string, size int64) error {
	for size > 0 {
		if err := canceled(w.ctx); err != nil {
			return err
		}
		p := w.buf[:min(size, int64(len(w.buf)))]
		n, err := io.ReadFull(f, p)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return sysx.Fault("read", quote(path), err)
		}
		clear(p[n:]) // it was cut meanwhile
		if _, err := w.tar.Write(p); err != nil {
			return writeFault(quote(path), err)
		}
		size -= int64(len(p))
	}
	return nil
}

func (w *writer) finish() error { return writeFault("its end", w.tar.Close()) }
