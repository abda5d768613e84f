package shift

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"
)

// overflow owns what a map does not map: the id that an idmapped mount shows
// for it (/proc/sys/kernel/overflowuid), which no container has.
const overflow = 65534

type inode struct{ dev, ino uint64 }

// copier copies one tree. Paths in it are relative to the anchors.
type copier struct {
	ctx  context.Context
	pair idmap.Pair
	root *os.File         // destination
	seen map[inode]string // first name of files with several links
}

// CopyTree copies what is below src into the empty directory dst, with every
// id shifted: owners, POSIX ACLs, and file capabilities, which become revision
// 3 with the container's root as root id. Hard links, holes, times, device
// nodes and extended attributes are kept. Nothing is synced. On failure dst
// holds a part.
//
// Nobody else may write to either tree. Depth is limited by descriptors: one
// is held on each side for each level.
func CopyTree(ctx context.Context, src, dst *os.File, pair idmap.Pair) error {
	c := &copier{ctx: ctx, pair: pair, root: dst, seen: map[inode]string{}}
	in, err := at.Beneath(src, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := at.Beneath(dst, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer out.Close()
	return c.inside(in, out, "")
}

// inside copies the entries of a directory, then the directory's own
// attributes: its times last, as every new entry changes them.
func (c *copier) inside(in, out *os.File, path string) error {
	for {
		entries, err := in.ReadDir(256)
		for _, e := range entries {
			if err := c.entry(in, out, e.Name(), filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(entries) == 0 {
			break
		}
		if err != nil {
			return sysx.Fault("list", in.Name(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return sysx.Fault("look at", in.Name(), err)
	}
	return c.finish(object{in, "."}, object{out, "."}, &st)
}

func (c *copier) entry(in, out *os.File, name, path string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(in.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return sysx.Fault("look at", filepath.Join(in.Name(), name), err)
	}
	if linked, err := c.again(out, name, path, &st); linked || err != nil {
		return err
	}
	from, to := object{in, name}, object{out, name}
	if err := c.make(from, to, &st, path); err != nil {
		return sysx.Fault("copy", to.String(), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil // finished by inside
	}
	return c.finish(from, to, &st)
}

// again makes a hard link when the file was copied under another name.
func (c *copier) again(out *os.File, name, path string, st *unix.Stat_t) (bool, error) {
	if st.Nlink < 2 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil
	}
	id := inode{uint64(st.Dev), st.Ino}
	first, ok := c.seen[id]
	if !ok {
		c.seen[id] = path
		return false, nil
	}
	err := unix.Linkat(int(c.root.Fd()), first, int(out.Fd()), name, 0)
	return true, sysx.Fault("link", filepath.Join(out.Name(), name), err)
}

func (c *copier) make(from, to object, st *unix.Stat_t, path string) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.dir(from, to, path)
	case unix.S_IFREG:
		return c.file(from, to)
	case unix.S_IFLNK:
		target, err := from.readlink()
		if err != nil {
			return err
		}
		return unix.Symlinkat(target, int(to.dir.Fd()), to.name)
	default: // whiteouts and other nodes, fifos, sockets
		return unix.Mknodat(int(to.dir.Fd()), to.name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
}

func (c *copier) dir(from, to object, path string) error {
	if err := unix.Mkdirat(int(to.dir.Fd()), to.name, 0o700); err != nil {
		return err
	}
	in, err := at.Beneath(from.dir, from.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := at.Beneath(to.dir, to.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer out.Close()
	return c.inside(in, out, path)
}

func (c *copier) file(from, to object) error {
	in, err := at.Beneath(from.dir, from.name, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer in.Close()
	n, err := unix.Openat(int(to.dir.Fd()), to.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(n), to.String())
	defer out.Close()
	if err := data(in, out); err != nil {
		return err
	}
	return out.Close()
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

// finish gives to the attributes of from. The order matters: a change of
// owner clears setuid bits and file capabilities (chown(2)), and a default ACL
// changes nothing once the mode is set after it.
func (c *copier) finish(from, to object, st *unix.Stat_t) error {
	uid, gid := c.owner(st)
	if err := unix.Fchownat(int(to.dir.Fd()), to.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return sysx.Fault("set owner of", to.String(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(int(to.dir.Fd()), to.name, st.Mode&0o7777, 0); err != nil {
			return sysx.Fault("set mode of", to.String(), err)
		}
	}
	if err := c.xattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	err := unix.UtimesNanoAt(int(to.dir.Fd()), to.name, times, unix.AT_SYMLINK_NOFOLLOW)
	return sysx.Fault("set times of", to.String(), err)
}

func (c *copier) owner(st *unix.Stat_t) (uid, gid int) {
	return toHost(c.pair.UID, st.Uid), toHost(c.pair.GID, st.Gid)
}

func toHost(m idmap.Map, id uint32) int {
	if host, ok := m.ToHost(idmap.Inside(id)); ok {
		return int(host)
	}
	return overflow
}

// object is an entry of a directory that fief alone writes to.
type object struct {
	dir  *os.File
	name string
}

func (o object) String() string { return filepath.Join(o.dir.Name(), o.name) }

func (o object) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(o.dir.Fd()), o.name, buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", &fs.PathError{Op: "readlink", Path: o.String(), Err: unix.ENAMETOOLONG}
	}
	return string(buf[:n]), nil
}
