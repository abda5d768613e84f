package snapshot

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// resizes bounds how often a measurement begins anew because the directory it
// stood in was moved.
const resizes = 8

// Size returns how many bytes a writable layer holds (0 for an empty name),
// and how many the layers and it hold together, as `docker ps -s` counts:
// lengths of files, hard links once, directories and devices not at all. A layer
// is read once and remembered; the writable one is read each time, while its
// container may write to it.
func (s *Store) Size(ctx context.Context, upper string, layers []string) (written, shown int64, err error) {
	if upper != "" {
		if err := checkUpper(upper); err != nil {
			return 0, 0, err
		}
		if written, err = measure(ctx, s.uppers, upper+"/fs"); err != nil {
			return 0, 0, err
		}
	}
	shown = written
	for _, id := range layers {
		n, err := s.layerSize(ctx, id)
		if err != nil {
			return 0, 0, err
		}
		shown += n
	}
	return written, shown, nil
}

func (s *Store) layerSize(ctx context.Context, id string) (int64, error) {
	layer, err := short(id)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	n, ok := s.sizes[layer]
	s.mu.Unlock()
	if ok {
		return n, nil
	}
	if n, err = measure(ctx, s.layers, layer+"/fs"); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.sizes[layer] = n
	s.mu.Unlock()
	return n, nil
}

// measure sums the tree name below dir.
func measure(ctx context.Context, dir *os.File, name string) (int64, error) {
	for range resizes {
		top, err := at.SubDir(dir, name)
		if err != nil {
			return 0, err
		}
		m := measurer{links: map[inode]struct{}{}}
		done, err := m.tree(ctx, top)
		if done || err != nil {
			return m.sum, err
		}
	}
	return 0, fault.New(fault.Busy, "measure", name, "its directories are being moved", "try again")
}

// inode names a file within one file system.
type inode struct{ dev, ino uint64 }

// measurer sums a tree with one open directory, however deep it is: a
// container can nest directories far deeper than RLIMIT_NOFILE or PATH_MAX.
type measurer struct {
	sum   int64
	links map[inode]struct{} // files with several names that were counted
	path  []level            // from the top to the open directory
}

// level is a directory that is being read.
type level struct {
	self inode
	todo []string // its directories that were not read yet
}

// tree sums everything below top, which it closes. It reports false when a
// directory it stood in was moved away, so that it did not find back.
func (m *measurer) tree(ctx context.Context, top *os.File) (bool, error) {
	cur := top
	defer func() { cur.Close() }()
	if err := m.enter(cur); err != nil {
		return false, err
	}
	for len(m.path) > 0 {
		if ctx.Err() != nil {
			return false, fault.Wrap(fault.Canceled, "measure", top.Name(), ctx.Err(), "")
		}
		next, err := m.step(cur)
		if err != nil {
			return false, err
		}
		if next == nil {
			continue
		}
		cur.Close()
		cur = next
		if self, err := identity(cur); err != nil || self != m.path[len(m.path)-1].self {
			return false, err
		}
	}
	return true, nil
}

// step opens the directory to go to from cur: the next one below it, which it
// sums, or else the one above. Nil when the next one is gone, or all is done.
func (m *measurer) step(cur *os.File) (*os.File, error) {
	here := &m.path[len(m.path)-1]
	n := len(here.todo)
	if n == 0 {
		m.path = m.path[:len(m.path)-1]
		if len(m.path) == 0 {
			return nil, nil
		}
		return neighbour(cur, "..")
	}
	name := here.todo[n-1]
	here.todo = here.todo[:n-1]
	next, err := neighbour(cur, name)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err == nil {
		err = m.enter(next)
	}
	if err != nil {
		fd.CloseAll(next)
		return nil, err
	}
	return next, nil
}

// neighbour opens the directory above or right below dir. The file does not
// get its path for a name, which grows without bound.
func neighbour(dir *os.File, name string) (*os.File, error) {
	n, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, sysx.Fault("open directory", name, err)
	}
	return fd.Wrap(n, "directory"), nil
}

// enter counts the files in dir and notes its directories.
func (m *measurer) enter(dir *os.File) error {
	self, err := identity(dir)
	if err != nil {
		return err
	}
	names, err := at.Names(dir)
	if err != nil {
		return err
	}
	l := level{self: self}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return sysx.Fault("look at", name, err)
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			l.todo = append(l.todo, name)
		default:
			m.count(&st)
		}
	}
	m.path = append(m.path, l)
	return nil
}

func (m *measurer) count(st *unix.Stat_t) {
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if _, seen := m.links[id]; seen {
			return
		}
		m.links[id] = struct{}{}
	}
	m.sum += st.Size
}

func identity(dir *os.File) (inode, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(dir.Fd()), &st)
	return inode{st.Dev, st.Ino}, sysx.Fault("look at", dir.Name(), err)
}
