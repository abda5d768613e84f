package within

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const (
	// maxDepth bounds the descriptors of a copy: two for each level.
	maxDepth = 256
	// batch is how many names of a directory are held and sorted at a time.
	batch = 4096
	// maxLinked bounds the memory for files with several names; beyond, each name
	// becomes a file of its own.
	maxLinked = 1 << 20
)

// Source is a file or a directory of a container.
type Source struct {
	tree
	file *os.File
	abs  string
	st   unix.Stat_t
}

// Open finds unsafeName, a path as processes of the container with this root
// directory see it. pair is the container's map, zero without one. root stays
// the caller's, who closes the result. NotFound when there is no such file,
// Denied for files of the kernel.
func Open(root *os.File, pair idmap.Pair, unsafeName string) (*Source, error) {
	t, err := newTree(root, pair)
	if err != nil {
		return nil, err
	}
	s := &Source{tree: t, abs: absolute(unsafeName)}
	if s.file, err = s.open(s.abs); err == nil {
		s.st, err = look(s.file)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close lets go of the file.
func (s *Source) Close() { fd.CloseAll(s.file, s.root) }

// Stat describes what was found.
func (s *Source) Stat() record.PathStat { return s.stat(s.abs, &s.st) }

// Tar writes the file, or the directory with all below it, as an archive whose
// names begin with the last part of the path. Owners are those that the
// container sees: 65534 for files outside its map. Left out, as docker does, are
// sockets; of mounts of the kernel's own file systems and of /dev only the
// directory is there. A file that others make shorter meanwhile is an error,
// since its size has been written by then.
func (s *Source) Tar(ctx context.Context, w io.Writer) error {
	if err := s.refuseGoverned(s.file); err != nil {
		return err
	}
	if s.st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return fault.New(fault.Unsupported, "copy", s.abs, "it is a socket, which no archive can hold", "")
	}
	r := &reader{tree: s.tree, ctx: ctx, tar: tar.NewWriter(w), linked: map[inode]string{}, buf: make([]byte, 256<<10)}
	name := path.Base(s.abs)
	if name == "/" {
		name = "" // as docker has it: the root's own entry is "/"
	}
	if err := r.entry(s.file, name, 0, s.st.Dev); err != nil {
		return err
	}
	return outFault(r.tar.Close())
}

// outFault is for errors of who reads the archive.
func outFault(err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.Canceled, "send", "archive", err, "")
}

type inode struct{ dev, ino uint64 }

type reader struct {
	tree
	ctx    context.Context
	tar    *tar.Writer
	linked map[inode]string // names of files that have several
	buf    []byte
}

// entry writes what f, opened with O_PATH, is. dev is where its directory is.
func (r *reader) entry(f *os.File, name string, depth int, dev uint64) error {
	if err := r.ctx.Err(); err != nil {
		return fault.Wrap(fault.Canceled, "copy", f.Name(), err, "")
	}
	st, err := look(f)
	if err != nil {
		return err
	}
	h := r.header(name, &st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if h.PAXRecords, err = r.attrsOf(f); err != nil {
			return err
		}
		if err := r.write(h); err != nil {
			return err
		}
		return r.dir(f, name, depth, &st, dev)
	case unix.S_IFREG:
		return r.file(f, h, &st)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = target(f); err != nil {
			return err
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil
	}
	return r.write(h)
}

func (r *reader) write(h *tar.Header) error {
	if strings.IndexByte(h.Name, 0) >= 0 || len(h.Name) > unix.PathMax {
		return fault.New(fault.Exhausted, "copy", "", "a path in the container is longer than any system call takes", "")
	}
	return outFault(r.tar.WriteHeader(h))
}

func (r *reader) header(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: int64(st.Mode & 0o7777),
		Uid: inside(r.pair.UID, st.Uid), Gid: inside(r.pair.GID, st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	}
	return h
}

// file writes a regular file. It is opened by its descriptor, not by its name
// again, so that it is the one that was looked at: a pipe in its place would
// block, and opening a device has effects.
func (r *reader) file(f *os.File, h *tar.Header, st *unix.Stat_t) error {
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, seen := r.linked[key]; seen {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return r.write(h)
		}
		if len(r.linked) < maxLinked {
			r.linked[key] = h.Name
		}
	}
	n, err := openContent(f)
	if err != nil {
		return err
	}
	defer unix.Close(n)
	h.PAXRecords, err = r.records(f.Name(), func(b []byte) (int, error) { return unix.Flistxattr(n, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(n, name, b) })
	if err != nil {
		return err
	}
	h.Size = st.Size
	if err := r.write(h); err != nil {
		return err
	}
	return r.content(n, f.Name(), st.Size)
}

func openContent(f *os.File) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	n, err := unix.Open(fd.Path(f), flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // O_NOATIME is for owners (open(2))
		n, err = unix.Open(fd.Path(f), flags, 0)
	}
	return n, sysx.Fault("open", f.Name(), err)
}

// content copies exactly size bytes.
func (r *reader) content(n int, name string, size int64) error {
	for size > 0 {
		if err := r.ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, "copy", name, err, "")
		}
		got, err := unix.Read(n, r.buf[:min(size, int64(len(r.buf)))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return sysx.Fault("read", name, err)
		}
		if got == 0 {
			return fault.New(fault.Conflict, "copy", name, "it became shorter while it was being copied", "copy it again")
		}
		if _, err := r.tar.Write(r.buf[:got]); err != nil {
			return outFault(err)
		}
		size -= int64(got)
	}
	return nil
}

// dir writes what is in a directory, unless it is not the container's.
func (r *reader) dir(f *os.File, name string, depth int, st *unix.Stat_t, dev uint64) error {
	if st.Dev != dev && depth > 0 {
		skip, err := governs(f)
		if err != nil || skip || f.Name() == "/dev" {
			return err
		}
	}
	if depth >= maxDepth {
		return fault.New(fault.Exhausted, "copy", "", "directories are nested deeper than 256", "copy a directory further down")
	}
	list, err := at.Beneath(f, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer list.Close()
	for {
		names, err := list.Readdirnames(batch)
		slices.Sort(names)
		for _, n := range names {
			if err := r.child(f, n, name+"/"+n, depth, st.Dev); err != nil {
				return err
			}
		}
		if err == io.EOF || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return sysx.Fault("list", f.Name(), err)
		}
	}
}

func (r *reader) child(dir *os.File, unsafeName, name string, depth int, dev uint64) error {
	f, err := at.Below(dir, unsafeName, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // it was there when the directory was listed
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return r.entry(f, name, depth+1, dev)
}
