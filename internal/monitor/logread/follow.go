package logread

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/filelog"
)

// lookEvery is how often files are looked at when the kernel grants no inotify
// instance (fs.inotify.max_user_instances, 128 for each user, inotify(7)).
const lookEvery = 200 * time.Millisecond

// follow reads on until there will be no more. Something that happens after the
// watch was set wakes it; what happened before is found by reading.
func (r *reader) follow(ctx context.Context, ended <-chan struct{}) error {
	w := watch(filepath.Dir(r.path))
	defer w.close()
	for {
		last := w.gone.Load() // asked before the files are
		select {
		case <-ended:
			last = true
		default:
		}
		if err := r.all(ctx); err != nil || r.over || last || r.removed() {
			return err
		}
		select {
		case <-w.changed:
		case <-ended:
		case <-ctx.Done():
			return canceled(ctx)
		}
	}
}

// all reads to the present end of the log.
func (r *reader) all(ctx context.Context) error {
	if r.file == nil {
		c, err := openChain(r.path)
		if err != nil || len(c) == 0 {
			return err
		}
		if err := r.start(c); err != nil {
			return err
		}
	}
	for {
		if err := r.lines(ctx); err != nil || r.over {
			return err
		}
		// The writer leaves a file for good before it is renamed: what came
		// between our end of file and the rename is read before going on.
		before, err := successorExists(r.path, r.file)
		if err != nil || !before {
			return r.fault(err)
		}
		if err := r.lines(ctx); err != nil || r.over {
			return err
		}
		more, err := r.advance()
		if err != nil || !more {
			return err
		}
	}
}

// removed reports whether the whole log has been removed while it was read. In
// the middle of a rotation at least one of its files is there. The watch cannot
// tell: a directory is not quite gone while a file that was in it is open.
func (r *reader) removed() bool {
	if r.file == nil {
		return false
	}
	if _, err := os.Stat(r.path); !os.IsNotExist(err) {
		return false
	}
	names, err := filelog.Files(r.path)
	return err == nil && len(names) == 0
}

// successorExists reports whether the log at path is another file than cur.
func successorExists(path string, cur *part) (bool, error) {
	mine, err := cur.disk.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if os.IsNotExist(err) {
		return true, nil
	}
	return err == nil && !os.SameFile(mine, now), err
}

// watcher wakes a follower when something in a directory changes.
type watcher struct {
	changed chan struct{}
	gone    atomic.Bool // the directory has been removed
	stop    func()
}

func watch(dir string) *watcher {
	w := &watcher{changed: make(chan struct{}, 1)}
	f, err := inotify(dir)
	if err != nil {
		w.look(dir)
		return w
	}
	w.stop = func() { f.Close() }
	go w.listen(f)
	return w
}

func (w *watcher) close() { w.stop() }

func (w *watcher) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

const watched = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR

func inotify(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	_, err = unix.InotifyAddWatch(fd, dir, watched)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// listen turns events into wake-ups until f is closed.
func (w *watcher) listen(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			mask := binary.NativeEndian.Uint32(buf[at+4:])
			if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
				w.gone.Store(true)
			}
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[at+12:]))
		}
		w.wake()
	}
}

// look wakes at intervals.
func (w *watcher) look(dir string) {
	ticker := time.NewTicker(lookEvery)
	done := make(chan struct{})
	w.stop = func() { ticker.Stop(); close(done) }
	go func() {
		for {
			select {
			case <-ticker.C:
				if _, err := os.Stat(dir); os.IsNotExist(err) {
					w.gone.Store(true)
				}
				w.wake()
			case <-done:
				return
			}
		}
	}()
}
