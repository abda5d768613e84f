package shift

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"
)

// overflow owns what a map does not map: the id that an idmapped mount shows
// for it (/proc/sys/kernel/overflowuid), which no container has.
const overflow = 65534

// Job is a tree to be made again with the ids of a map.
type Job struct {
	Src, Dst *os.File   // Dst is empty
	Pair     idmap.Pair // zero: every id stays
	Way      Way        // Copy, Reflink or Metacopy
}

type inode struct{ dev, ino uint64 }

// copier carries out a job. Paths in it are relative to the anchors.
type copier struct {
	Job
	ctx     context.Context // ends with the first failure
	walkers *errgroup.Group

	mu   sync.Mutex       // held while a file with several links is made
	seen map[inode]string // first name of files with several links; guarded by mu
}

// CopyTree makes what is below job.Src again in job.Dst, with every id shifted:
// owners, POSIX ACLs, and file capabilities, which become revision 3 with the
// container's root as root id. Hard links, holes, times, device nodes and
// extended attributes are kept. What regular files hold is copied, shared, or
// left where it is, as job.Way says: a shadow, made by Metacopy, is to be
// mounted above data layers that have the same files at the same paths. Nothing
// is synced. On failure Dst holds a part.
//
// Nobody else may write to either tree. Depth is limited by descriptors: one
// is held on each side for each level.
func CopyTree(ctx context.Context, job Job) error {
	in, err := at.Beneath(job.Src, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	out, err := at.Beneath(job.Dst, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		in.Close()
		return err
	}
	c := &copier{Job: job, seen: map[inode]string{}}
	c.walkers, c.ctx = errgroup.WithContext(ctx)
	c.walkers.SetLimit(walkers())
	c.walkers.Go(func() error { return c.inside(in, out, "") })
	return c.walkers.Wait()
}

// walkers is how many threads make a tree: what they wait for is the file
// system's locks, more than four only wait for each other.
func walkers() int { return min(4, max(2, runtime.GOMAXPROCS(0))) }

// inside makes the entries of a directory, then the directory's own attributes:
// its times last, as every new entry changes them. Entries of directories below
// change nothing here, so those may come later. It closes both.
func (c *copier) inside(in, out *os.File, path string) error {
	defer fd.CloseAll(in, out)
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
	return c.finish(object{in, ".", in}, object{out, ".", out}, &st)
}

func (c *copier) entry(in, out *os.File, name, path string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(in.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return sysx.Fault("look at", filepath.Join(in.Name(), name), err)
	}
	from, to := object{dir: in, name: name}, object{dir: out, name: name}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return sysx.Fault("copy", to.String(), c.dir(from, to, path))
	case st.Nlink > 1:
		return c.linked(from, to, &st, path)
	}
	return c.make(from, to, &st, path)
}

// dir makes a directory, whose entries are for another walker if one is free.
func (c *copier) dir(from, to object, path string) error {
	if err := unix.Mkdirat(int(to.dir.Fd()), to.name, 0o700); err != nil {
		return err
	}
	in, err := at.Beneath(from.dir, from.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	out, err := at.Beneath(to.dir, to.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		in.Close()
		return err
	}
	if c.walkers.TryGo(func() error { return c.inside(in, out, path) }) {
		return nil
	}
	return c.inside(in, out, path)
}

// linked makes a file with several names, or another name for it.
func (c *copier) linked(from, to object, st *unix.Stat_t, path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := inode{uint64(st.Dev), st.Ino}
	if first, ok := c.seen[id]; ok {
		return sysx.Fault("link", to.String(), unix.Linkat(int(c.Dst.Fd()), first, int(to.dir.Fd()), to.name, 0))
	}
	c.seen[id] = path
	return c.make(from, to, st, path)
}

// make makes all but directories and further names.
func (c *copier) make(from, to object, st *unix.Stat_t, path string) error {
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return c.file(from, to, st, path)
	}
	if err := node(from, to, st); err != nil {
		return sysx.Fault("copy", to.String(), err)
	}
	return c.finish(from, to, st)
}

// node makes links, whiteouts and other nodes, fifos and sockets.
func node(from, to object, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return unix.Mknodat(int(to.dir.Fd()), to.name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
	target, err := from.readlink()
	if err != nil {
		return err
	}
	return unix.Symlinkat(target, int(to.dir.Fd()), to.name)
}

// finish gives to the attributes of from. The order matters: a change of
// owner clears setuid bits and file capabilities (chown(2)), and a default ACL
// changes nothing once the mode is set after it.
func (c *copier) finish(from, to object, st *unix.Stat_t) error {
	uid, gid := toHost(c.Pair.UID, st.Uid), toHost(c.Pair.GID, st.Gid)
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

func toHost(m idmap.Map, id uint32) int {
	if m.IsZero() {
		return int(id)
	}
	if host, ok := m.ToHost(idmap.Inside(id)); ok {
		return int(host)
	}
	return overflow
}

// object is an entry of a directory that fief alone writes to.
type object struct {
	dir  *os.File
	name string
	file *os.File // the entry itself, where it is open
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
