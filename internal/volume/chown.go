package volume

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// refuseSystem keeps U and id maps away from directories that the host itself
// lives in: container root would become the owner of what is there. The list is
// Podman's.
func refuseSystem(m record.Mount) error {
	if !systemPath(m.Source) {
		return nil
	}
	what := "map the ids of"
	if m.Chown {
		what = "change the owners of"
	}
	return fault.New(fault.Denied, what, m.Source, "it belongs to the host's system", "bind a directory below it, or bind it as it is")
}

// systemPath reports whether a path is one of the host's own, by whatever name.
func systemPath(path string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return slices.Contains([]string{
		"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media", "/mnt", "/opt", "/proc", "/root", "/run",
		"/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local", "/usr/sbin", "/usr/share", "/var",
		"/var/lib", "/var/log", "/var/run", "/var/tmp",
	}, filepath.Clean(path))
}

// giveAway changes the owner of everything in f to the container's user, as it
// will appear through shown. It does not follow links or enter other file
// systems, and it stays: nothing changes it back.
func giveAway(f *os.File, m record.Mount, as As, shown idmap.Pair) error {
	uid, gid, err := as.host(m)
	if err != nil {
		return err
	}
	c := &chowner{uid: int(uid), gid: int(gid), watch: as.Watch}
	if !shown.IsZero() { // what is stored is what the map makes of it
		in, ok := shown.UID.ToInside(uid)
		group, also := shown.GID.ToInside(gid)
		if !ok || !also {
			return fault.New(fault.Invalid, "change the owners of", m.Source, "the map of the mount has not the container's user", "leave out U or the map")
		}
		c.uid, c.gid = int(in), int(group)
	}
	return c.tree(f, m.Source)
}

// How often long work says how far it is: to who waits for it, and in the log.
const (
	progressEvery = time.Second
	loggedEvery   = 5
)

type chowner struct {
	uid, gid int
	watch    Watch
	done     atomic.Int64
	walkers  *errgroup.Group
}

func (c *chowner) tree(f *os.File, source string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return sysx.Fault("look at", source, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.change(f, "", &st)
	}
	dir, err := at.Beneath(f, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	stop := c.report(source, progressEvery)
	defer stop()
	c.walkers = &errgroup.Group{}
	c.walkers.SetLimit(max(4, runtime.GOMAXPROCS(0)))
	c.walkers.Go(func() error { return c.inside(dir) })
	err = c.walkers.Wait()
	if errors.Is(err, errStopped) {
		return fault.New(fault.Canceled, "change the owners of", source, fmt.Sprintf("interrupted: %d files have their new owner, and keep it", c.done.Load()), "the next start goes on")
	}
	if err != nil {
		return fault.Wrap(fault.ClassOf(err), "change the owners of", source, err, fmt.Sprintf("%d files have their new owner; the next start goes on", c.done.Load()))
	}
	return c.change(f, "", &st)
}

var errStopped = errors.New("interrupted")

// report says now and then how far the work is, until stop returns.
func (c *chowner) report(source string, every time.Duration) (stop func()) {
	over := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			if c.watch.Tell != nil {
				c.watch.Tell(record.Progress{ID: source, Status: "changing owners", Current: c.done.Load()})
			}
			if n%loggedEvery == 0 {
				slog.Info("changing owners", "directory", source, "files", c.done.Load())
			}
		}
	})
	return func() {
		close(over)
		reporter.Wait()
	}
}

// stopped reports whether the work is to end.
func (c *chowner) stopped() bool {
	select {
	case <-c.watch.Stop:
		return true
	default:
		return false
	}
}

// inside does the entries of a directory, which it closes.
func (c *chowner) inside(dir *os.File) error {
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if c.stopped() {
				return errStopped
			}
			if err := c.entry(dir, name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return sysx.Fault("list", dir.Name(), err)
		}
	}
}

func (c *chowner) entry(dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return vanished(sysx.Fault("look at", name, err))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		sub, err := at.Beneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if errors.Is(err, unix.EXDEV) {
			return nil // another file system
		}
		if err != nil {
			return vanished(err)
		}
		if !c.walkers.TryGo(func() error { return c.inside(sub) }) {
			if err := c.inside(sub); err != nil {
				return err
			}
		}
	}
	return vanished(c.change(dir, name, &st))
}

func (c *chowner) change(dir *os.File, name string, st *unix.Stat_t) error {
	c.done.Add(1)
	if int(st.Uid) == c.uid && int(st.Gid) == c.gid {
		return nil // its setuid bit and capabilities stay (chown(2))
	}
	return sysx.Fault("change the owner of", filepath.Join(dir.Name(), name), unix.Fchownat(int(dir.Fd()), name, c.uid, c.gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH))
}

func vanished(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
