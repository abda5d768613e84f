package snapshot

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/sysx"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

// refillPause keeps the making of new pairs out of the start that took one.
const refillPause = 20 * time.Millisecond

// stock is a supply of empty upper and work directories. ext4 passes over
// inodes that were freed lately, so making directories gets slower the faster
// containers come and go; a start that finds a pair ready does not feel it.
//
// Only pairs that were never mounted return to the stock: an overlay may
// outlive its container in a namespace somebody still holds, and a second
// overlay on the same upper would show one container's files to another.
type stock struct {
	dir   *os.File // uppers/
	log   *slog.Logger
	ready chan string
	want  chan struct{}
	stop  chan struct{}
	done  chan struct{}

	mu   sync.Mutex          // never held across a system call
	mine map[string]struct{} // made or adopted by this process, not dropped
}

func newStock(dir *os.File, size int, log *slog.Logger) *stock {
	k := &stock{
		dir: dir, log: log,
		ready: make(chan string, size),
		want:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
		mine:  map[string]struct{}{},
	}
	go k.run()
	return k
}

func (k *stock) close() {
	close(k.stop)
	<-k.done
}

// refill asks for a refill; it never blocks.
func (k *stock) refill() {
	select {
	case k.want <- struct{}{}:
	default:
	}
}

func (k *stock) run() {
	defer close(k.done)
	for {
		select {
		case <-k.stop:
			return
		case <-k.want:
		}
		select {
		case <-k.stop:
			return
		case <-time.After(refillPause):
		}
		k.fill()
	}
}

func (k *stock) fill() {
	for len(k.ready) < cap(k.ready) {
		name, err := k.make()
		if err != nil {
			k.log.Warn("cannot keep writable layers in stock", "error", err)
			return
		}
		if !k.put(name) {
			return // others were put meanwhile; the pair is adopted at the next start
		}
	}
}

func (k *stock) put(name string) bool {
	select {
	case k.ready <- name:
		return true
	default:
		return false
	}
}

// make makes a pair; a half-made one is removed, or found by the next sweep.
func (k *stock) make() (string, error) {
	name := token()
	k.own(name)
	for _, d := range []struct {
		name string
		mode uint32
	}{{name, 0o700}, {name + "/work", 0o700}, {name + "/fs", 0o755}} {
		failpoint.Hit("upper-making")
		if err := at.MakeDir(k.dir, d.name, d.mode); err != nil {
			k.disown(name)
			at.RemoveTree(k.dir, name)
			return "", err
		}
	}
	return name, nil
}

func (k *stock) own(name string) {
	k.mu.Lock()
	k.mine[name] = struct{}{}
	k.mu.Unlock()
}

func (k *stock) disown(name string) {
	k.mu.Lock()
	delete(k.mine, name)
	k.mu.Unlock()
}

func (k *stock) owns(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.mine[name]
	return ok
}

// adopt takes a pair that was never mounted into the stock: overlayfs leaves
// work/work behind. It reports false when the pair is not as new or when there
// is no room.
func (k *stock) adopt(name string) bool {
	if !k.untouched(name, "fs", 0o755) || !k.untouched(name, "work", 0o700) {
		return false
	}
	k.own(name)
	if k.put(name) {
		return true
	}
	k.disown(name)
	return false
}

func (k *stock) untouched(name, sub string, mode uint32) bool {
	dir, err := at.SubDir(k.dir, name+"/"+sub)
	if err != nil {
		return false
	}
	defer dir.Close()
	var st unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &st) != nil || st.Mode != unix.S_IFDIR|mode || st.Uid != 0 || st.Gid != 0 {
		return false
	}
	names, err := at.Names(dir)
	return err == nil && len(names) == 0
}

// checkUpper refuses what is no name of an upper, before it becomes a path.
func checkUpper(name string) error {
	if len(name) == 16 && strings.Trim(name, "0123456789abcdef") == "" {
		return nil
	}
	return fault.New(fault.Invalid, "use writable layer", name, "it is no name of one", "")
}

// NewUpper returns the name of an empty writable layer, from the stock or, when
// that is empty, made now. It is the caller's until DropUpper.
func (s *Store) NewUpper() (string, error) {
	defer s.stock.refill()
	select {
	case name := <-s.stock.ready:
		return name, nil
	default:
		return s.stock.make()
	}
}

// DropUpper deletes a writable layer in the background. The record that names
// it must be gone. It may be repeated.
func (s *Store) DropUpper(name string) {
	if checkUpper(name) != nil {
		return
	}
	s.stock.disown(name)
	s.drops.push(drop{from: s.uppers, name: name, try: func() bool { return s.stock.adopt(name) }})
}

// SweepUppers deletes, in the background, every writable layer that is neither
// in keep nor made by this process: what killed daemons left. Pairs of their
// stock that were never used are taken over.
func (s *Store) SweepUppers(keep map[string]bool) error {
	names, err := at.Names(s.uppers)
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep[name] || s.stock.owns(name) {
			continue
		}
		if checkUpper(name) == nil && s.stock.adopt(name) {
			continue
		}
		s.drops.add(s.uppers, name)
	}
	s.stock.refill()
	return nil
}

// HasUpper reports whether a writable layer is there.
func (s *Store) HasUpper(name string) bool {
	if checkUpper(name) != nil {
		return false
	}
	ok, err := at.Exists(s.uppers, name+"/fs")
	return ok && err == nil
}

// UpperDir returns the path of a writable layer's files, for showing and for
// tools.
func (s *Store) UpperDir(name string) (string, error) {
	if err := checkUpper(name); err != nil {
		return "", err
	}
	return filepath.Join(s.path, "uppers", name, "fs"), nil
}

// dirt is where a volatile overlay says that it was mounted, below work.
const dirt = "work/incompat"

// prepareUpper makes an upper fit to be mounted: its root gets the owner and
// mode of the image's root, once, and the mark of an earlier volatile mount is
// removed, with which the kernel refuses the next mount (EINVAL). A volatile
// upper never outlives a boot, so what the mark warns of cannot have happened.
func (s *Store) prepareUpper(r Request, root rootOwner) error {
	if err := checkUpper(r.Upper); err != nil {
		return err
	}
	fs, err := at.SubDir(s.uppers, r.Upper+"/fs")
	if err != nil {
		return err
	}
	defer fs.Close()
	work, err := at.SubDir(s.uppers, r.Upper+"/work")
	if err != nil {
		return err
	}
	defer work.Close()
	used, err := at.Exists(work, "work")
	if err != nil {
		return err
	}
	if !used {
		return r.Mapped.firstUse(fs, work, root)
	}
	if !r.Volatile {
		return nil
	}
	return clean(work)
}

func clean(work *os.File) error {
	marked, err := at.Exists(work, dirt)
	if err != nil || !marked {
		return err
	}
	in, err := at.SubDir(work, "work")
	if err != nil {
		return err
	}
	defer in.Close()
	return at.RemoveTree(in, "incompat")
}

// firstUse gives the directories of a new pair to their owners. With ids that
// are shifted by the mount those on disk are right already.
func (m *Mapped) firstUse(fs, work *os.File, root rootOwner) error {
	host := m.onDisk(root)
	if host.uid != 0 || host.gid != 0 {
		if err := chown(fs, host); err != nil {
			return err
		}
	}
	if root.mode != defaultRoot.mode {
		if err := chmod(fs, root.mode); err != nil {
			return err
		}
	}
	if owner := m.onDisk(defaultRoot); owner.uid != 0 || owner.gid != 0 {
		return chown(work, owner)
	}
	return nil
}

func chown(f *os.File, o rootOwner) error {
	err := unix.Fchownat(int(f.Fd()), "", int(o.uid), int(o.gid), unix.AT_EMPTY_PATH)
	return sysx.Fault("set owner of", f.Name(), err)
}
