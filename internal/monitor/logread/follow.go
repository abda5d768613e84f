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
		w.see(r.path)         // before it is read, anew after a rotation
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

// watcher wakes a follower when files come into a directory or leave it, and when
// the one it was shown last is written to. All logs lie in one directory: a watch
// of that for writes would wake every follower for every container's.
type watcher struct {
	changed chan struct{}
	gone    atomic.Bool // the directory has been removed
	stop    func()

	file *os.File // an inotify instance; nil: the directory is looked at
	dir  int32    // the directory's watch descriptor
}

func watch(dir string) *watcher {
	w := &watcher{changed: make(chan struct{}, 1)}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		w.look(dir)
		return w
	}
	wd, err := unix.InotifyAddWatch(fd, dir, watched)
	if err != nil {
		unix.Close(fd)
		w.look(dir)
		return w
	}
	w.file, w.dir = os.NewFile(uintptr(fd), "inotify"), int32(wd)
	w.stop = func() { w.file.Close() }
	go w.listen(w.file)
	return w
}

func (w *watcher) close() { w.stop() }

func (w *watcher) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

const watched = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR

// see watches a file for writes; one that is watched already is not watched
// twice (inotify_add_watch(2)). A file that is not there yet is told of by its
// directory; where the kernel grants no further watch (max_user_watches) the
// file is looked at.
func (w *watcher) see(path string) {
	if w.file == nil {
		return
	}
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) { _, err = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY) })
	if err != nil && err != unix.ENOENT {
		w.close()
		w.file = nil
		w.look(filepath.Dir(path))
	}
}

// listen turns events into wake-ups until the instance is closed. A file's watch
// ends with the file, which the directory tells.
func (w *watcher) listen(f *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd, mask := int32(binary.NativeEndian.Uint32(buf[at:])), binary.NativeEndian.Uint32(buf[at+4:])
			if wd == w.dir && mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
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
