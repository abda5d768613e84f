package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// in copies into the container.
func (p *copying) in(src, dst string) error {
	to, err := p.destination(dst)
	if err != nil {
		return err
	}
	if src == "-" {
		if !to.dir {
			return fault.Say(fault.Invalid, fmt.Sprintf("destination \"%s:%s\" must be a directory", p.container, dst))
		}
		return p.put(to.path, p.In)
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return fault.Wrap(fault.Invalid, "find", src, err, "")
	}
	switch { // filepath.Abs drops what says that a directory, or its content, is meant
	case wantsContent(src):
		abs = strings.TrimSuffix(abs, "/") + "/."
	case assertsDir(src) && abs != "/":
		abs += "/"
	}
	stat := os.Lstat
	if p.followLinks {
		stat = os.Stat
	}
	st, err := stat(abs)
	if err != nil {
		return fault.Say(fault.NotFound, err.Error())
	}
	dir, name, err := placeFor(abs, st.IsDir(), to)
	if err != nil {
		return err
	}
	return p.upload(abs, dir, name)
}

// destination looks at a path in the container, behind a symbolic link.
func (p *copying) destination(dst string) (end, error) {
	st, exists, err := p.stat(dst)
	if err == nil && exists && st.LinkTarget != "" {
		dst = st.LinkTarget
		st, exists, err = p.stat(dst)
	}
	if err != nil {
		return end{}, err
	}
	if exists && !st.Mode.IsDir() && !st.Mode.IsRegular() {
		return end{}, fault.Say(fault.Invalid, fmt.Sprintf("destination \"%s:%s\" must be a directory or a regular file", p.container, dst))
	}
	if !strings.HasPrefix(dst, "/") {
		dst = "/" + dst
	}
	return end{dst, exists, exists && st.Mode.IsDir()}, nil
}

// put sends an archive.
func (p *copying) put(dir string, f *os.File) error {
	c := wire.CopyInCall{ID: p.container, CopyIn: ask.CopyIn{Path: dir, KeepKinds: true}}
	return p.watch(wire.WritePath, c, nil, nil, int(f.Fd()))
}

func (p *copying) upload(src, dir, name string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.Internal, "make", "pipe", err, "")
	}
	defer w.Close()
	packed := make(chan error, 1)
	go func() {
		t := tar.NewWriter(w)
		err := p.pack(t, src, name, p.followLinks)
		if err == nil {
			err = t.Close()
		}
		w.Close()
		packed <- err
	}()
	err = p.put(dir, r)
	r.Close() // so that packing ends
	if local := <-packed; local != nil && !errors.Is(local, unix.EPIPE) {
		return local
	}
	return err
}

// pack writes a file, or a directory with what is below it, under another name.
// Owners are root's unless they are to be kept.
func (p *copying) pack(t *tar.Writer, src, name string, follow bool) error {
	stat := os.Lstat
	if follow || assertsDir(src) {
		stat = os.Stat
	}
	st, err := stat(src)
	if err != nil {
		return fault.Say(fault.NotFound, err.Error())
	}
	link := ""
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(src); err != nil {
			return fault.Say(fault.NotFound, err.Error())
		}
	case st.Mode()&(fs.ModeDevice|fs.ModeSocket) != 0:
		p.warn(src, "it is a device or a socket")
		return nil
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return fault.Wrap(fault.Unsupported, "copy", src, err, "")
	}
	h.Format, h.Name, h.Uname, h.Gname = tar.FormatPAX, name, "", ""
	if !p.keepOwners {
		h.Uid, h.Gid = 0, 0
	}
	if st.IsDir() {
		h.Name += "/"
	}
	switch {
	case st.IsDir():
		return p.packDir(t, h, src, name)
	case st.Mode().IsRegular():
		return p.packFile(t, h, src)
	}
	return t.WriteHeader(h)
}

func (p *copying) packDir(t *tar.Writer, h *tar.Header, src, name string) error {
	dir, err := os.Open(src)
	if err != nil {
		return fault.Say(fault.Denied, err.Error())
	}
	defer dir.Close()
	p.readAttrs(dir, h)
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return fault.Say(fault.Denied, err.Error())
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := p.pack(t, filepath.Join(src, e.Name()), path.Join(name, e.Name()), false); err != nil {
			return err
		}
	}
	return nil
}

func (p *copying) packFile(t *tar.Writer, h *tar.Header, src string) error {
	f, err := os.Open(src)
	if err != nil {
		return fault.Say(fault.Denied, err.Error())
	}
	defer f.Close()
	caps := make([]byte, 24) // linux/capability.h, struct vfs_ns_cap_data
	if n, err := unix.Fgetxattr(int(f.Fd()), "security.capability", caps); err == nil {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(caps[:n])}
	}
	p.readAttrs(f, h)
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(t, f, h.Size)
	p.bytes += n
	if err == io.EOF {
		return fault.New(fault.Conflict, "copy", src, "it became shorter while it was being copied", "copy it again")
	}
	return err
}
