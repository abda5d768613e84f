package idpool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
)

// shelf keeps documents in memory, as state.db does on disk.
type shelf struct {
	mu   sync.Mutex
	docs map[string][]byte
}

func (s *shelf) PutSoon(key string, v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v == nil {
		delete(s.docs, key)
		return nil
	}
	raw, err := json.Marshal(v)
	if s.docs == nil {
		s.docs = map[string][]byte{}
	}
	s.docs[key] = raw
	return err
}

func (s *shelf) Each(f func(string, []byte) error) error {
	s.mu.Lock()
	docs := maps.Clone(s.docs)
	s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(docs)) {
		if err := f(key, docs[key]); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.docs)
}

// tree makes files owned by id, and returns the directory.
func tree(t testing.TB, id uint64, names ...string) string {
	t.Helper()
	mnttest.NeedRoot(t)
	dir := t.TempDir()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, "")
		if err := os.Chown(path, int(id), 0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rush makes the pool walk for what is due at once.
func (p *Pool) rush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rests {
		r.next = time.Now()
	}
	p.looks.after(0)
	p.wakeKeeper()
}

// until waits until something is so.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

func (p *Pool) why(owner string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rests {
		if r.Owner == owner {
			return r.Why
		}
	}
	return "none"
}

func TestRangesWaitForTheirFiles(t *testing.T) {
	docs := &shelf{}
	cfg := newHost(t).slabsFrom(10, 1)
	cfg.Quarantine = docs
	p := open(t, cfg)
	whole := lease(t, p, "c", slabIDs)
	dir := tree(t, uint64(whole.Base)+33, "data/deep/file")
	p.Release("c", filepath.Join(dir, "vanished"), dir)
	p.Release("c", dir) // nothing any more
	if got := p.Info(); got.Free != 0 || got.Quarantined != 64 || docs.size() != 1 {
		t.Fatalf("%+v, %d documents", got, docs.size())
	}
	if l, err := p.Lease("d", 0); !fault.Is(err, fault.Exhausted) || !strings.Contains(fault.HintOf(err), "64 released ranges wait") {
		t.Fatalf("%+v, %v", l, err)
	}
	want := fmt.Sprintf("%s/data/deep/file belongs to %d:0", dir, whole.Base+33)
	until(t, want, func() bool { p.rush(); return p.why("c") == want })

	p.Close()
	p = open(t, cfg) // also after a restart, and as what it was
	if got := p.Info(); got.Free != 0 || got.Quarantined != 64 || p.why("c") != want {
		t.Fatalf("%+v, %s", got, p.why("c"))
	}
	p.rush()
	time.Sleep(20 * time.Millisecond)
	if _, err := p.Lease("d", 0); !fault.Is(err, fault.Exhausted) {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Join(dir, "data/deep/file"), 0, 0); err != nil {
		t.Fatal(err)
	}
	p.rush()
	leaseSoon(t, p, "d", 0)
	if docs.size() != 0 {
		t.Errorf("%d documents are left", docs.size())
	}
}

// TestLowPoolWalksAtOnce has nobody who would ask for a walk: that few ranges
// are free is reason enough.
func TestLowPoolWalksAtOnce(t *testing.T) {
	p := open(t, newHost(t).slabsFrom(10, 1))
	lease(t, p, "c", slabIDs)
	p.Release("c", t.TempDir())
	p.mu.Lock()
	for _, r := range p.rests {
		r.next = time.Now().Add(time.Hour)
	}
	p.mu.Unlock()
	leaseSoon(t, p, "d", 0)
}

// TestFilesComeAfterProcesses does not look for files while a process could
// still write some.
func TestFilesComeAfterProcesses(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	p := open(t, cfg)
	l := lease(t, p, "c", 0)
	process(t, cfg, 77, fmt.Sprintf("0 %d 65536\n", l.Base), "")
	dir := tree(t, uint64(l.Base))
	p.Release("c", dir)
	for range 20 {
		p.rush()
		time.Sleep(2 * time.Millisecond)
	}
	if got := p.Info().Quarantined; got != 1 {
		t.Fatal(got)
	}
	write(t, filepath.Join(dir, "late"), "")
	if err := os.Chown(filepath.Join(dir, "late"), 0, int(l.Base)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Proc, "77")); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s/late belongs to 0:%d", dir, l.Base)
	until(t, want, func() bool { p.rush(); return p.why("c") == want })
}

func TestWalk(t *testing.T) {
	const id = 1 << 30
	dir := tree(t, id, "a/b/found", "single")
	other := tree(t, 0, "x/y")
	for _, err := range []error{
		os.Symlink(filepath.Join(dir, "a"), filepath.Join(other, "link")),
		os.Symlink(dir, filepath.Join(other, "x/link")),
		os.Symlink(dir, filepath.Join(dir, "link")),
		os.Mkdir(filepath.Join(dir, "own"), 0o700),
		os.Chown(filepath.Join(dir, "own"), 0, id+7),
		unix.Mkfifo(filepath.Join(other, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	here := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name string
		ids  extent
		left []string
		want string
	}{
		{"a file below", extent{id, id + 1}, []string{here("a")}, here("a/b/found") + " belongs to 1073741824:0"},
		{"a file itself", extent{id, id + 65536}, []string{here("single")}, here("single") + " belongs to 1073741824:0"},
		{"a directory itself, by group", extent{id + 7, id + 8}, []string{here("own")}, here("own") + " belongs to 0:1073741831"},
		{"other ids", extent{id + 1, id + 7}, []string{dir}, ""},
		{"links are not followed", extent{id, id + 65536}, []string{other}, ""},
		{"vanished", extent{id, id + 1}, []string{here("none"), here("single/below a file")}, ""},
		{"a link at the top", extent{id, id + 1}, []string{here("link")}, "cannot read " + here("link") + ": it is a symbolic link now"},
		{"the second place", extent{id, id + 1}, []string{other, here("none"), here("a")}, here("a/b/found") + " belongs to 1073741824:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &rest{Owner: "c", IDs: extents{c.ids}, Left: c.left}
			also := &rest{Owner: "d", IDs: extents{{id + 100, id + 200}}, Left: []string{dir, other}}
			found := walk(context.Background(), map[string]*rest{"r": r, "also": also})
			if got := found[r].why; got != c.want || len(found) != 2 || found[also].why != "" {
				t.Errorf("%+v\nwant %s", found, c.want)
			}
		})
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r := &rest{IDs: extents{{id, id + 1}}, Left: []string{dir}}
	if found := walk(ended, map[string]*rest{"r": r}); found != nil {
		t.Errorf("a walk that was ended says %v", found)
	}
}

// TestWalkOfOtherMounts: what is mounted below is another file system's.
func TestWalkOfOtherMounts(t *testing.T) {
	mnttest.NeedRoot(t)
	const id = 1 << 30
	var dev, shm unix.Stat_t
	if unix.Stat("/dev", &dev) != nil || unix.Stat("/dev/shm", &shm) != nil || dev.Dev == shm.Dev {
		t.Skip("fs: /dev/shm is no file system of its own")
	}
	f, err := os.CreateTemp("/dev/shm", "fief-walk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	if err := errors.Join(f.Chown(id, id), f.Close()); err != nil {
		t.Fatal(err)
	}
	for top, want := range map[string]string{"/dev": "", "/dev/shm": f.Name() + " belongs to 1073741824:1073741824"} {
		r := &rest{IDs: extents{{id, id + 1}}, Left: []string{top}}
		if found := walk(context.Background(), map[string]*rest{"r": r}); found[r].why != want {
			t.Errorf("%s: %+v", top, found[r])
		}
	}
}

func TestWalkTooDeepStaysQuarantined(t *testing.T) {
	root := t.TempDir()
	d, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	for range maxDeep + 2 {
		if err := unix.Mkdirat(int(d.Fd()), "d", 0o700); err != nil {
			t.Fatal(err)
		}
		n, err := unix.Openat(int(d.Fd()), "d", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		d.Close()
		d = os.NewFile(uintptr(n), "d")
	}
	d.Close()
	r := &rest{IDs: extents{{1 << 30, 1<<30 + 1}}, Left: []string{root}}
	if found := walk(context.Background(), map[string]*rest{"r": r}); !strings.Contains(found[r].why, "deeper than 256 directories") {
		t.Errorf("%+v", found)
	}
}

func TestUnreadableStaysQuarantined(t *testing.T) {
	r := &rest{IDs: extents{{1 << 30, 1<<30 + 1}}, Left: []string{"/some/dir"}}
	h := hunt{ctx: context.Background(), top: "/some/dir", rests: []*rest{r}, found: map[*rest]sign{}}
	h.unreadable("below", fmt.Errorf("open: %w", &os.PathError{Op: "open", Path: "x", Err: unix.EIO}))
	if got := h.found[r].why; got != "cannot read /some/dir/below: input/output error" || h.more() {
		t.Error(got)
	}
}

func TestCloseEndsASearch(t *testing.T) {
	var names []string
	for i := range 4000 { // takes a fifth of a second at the pace of a walk
		names = append(names, fmt.Sprint(i))
	}
	dir := tree(t, 0, names...)
	p := open(t, newHost(t).slabsFrom(10, 1))
	lease(t, p, "c", 0)
	p.Release("c", dir)
	var walker chan struct{}
	until(t, "a search", func() bool {
		p.rush()
		p.mu.Lock()
		defer p.mu.Unlock()
		walker = p.walker
		return walker != nil
	})
	p.Close()
	select {
	case <-walker:
	default:
		t.Error("it goes on")
	}
}

// TestRememberedFile is looked at before anything is walked.
func TestRememberedFile(t *testing.T) {
	const id = 1 << 30
	dir := tree(t, id, "a/found")
	r := &rest{IDs: extents{{id, id + 1}}, Left: []string{dir}}
	r.sign = walk(context.Background(), map[string]*rest{"r": r})[r]
	if r.sign.name != "a/found" || !r.still() {
		t.Fatalf("%+v", r.sign)
	}
	if err := os.Rename(filepath.Join(dir, "a/found"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if r.still() {
		t.Error("it is not there any more")
	}
	if found := walk(context.Background(), map[string]*rest{"r": r}); !strings.HasPrefix(found[r].why, dir+"/b belongs") {
		t.Errorf("%+v", found)
	}
}

// TestReleasedAgainAtRecovery: a daemon that was killed between the end of a
// container and its record's releases it once more.
func TestReleasedAgainAtRecovery(t *testing.T) {
	docs := &shelf{}
	cfg := newHost(t).slabsFrom(10, 1)
	cfg.Quarantine = docs
	p := open(t, cfg)
	l := lease(t, p, "c", 0)
	first, second := tree(t, uint64(l.Base)), tree(t, uint64(l.Base), "file")
	p.Release("c", first)
	p.Close()

	p = open(t, cfg, Held{"c", l})
	if got := p.Info(); got.Granted != 1 || got.Quarantined != 0 {
		t.Errorf("%+v", got)
	}
	p.Release("nobody", first)
	p.Release("c", second)
	if got := p.Info(); got.Granted != 0 || got.Quarantined != 1 || docs.size() != 1 {
		t.Errorf("%+v, %d documents", got, docs.size())
	}
	want := fmt.Sprintf("%s/file belongs to %d:0", second, l.Base)
	until(t, want, func() bool { p.rush(); return p.why("c") == want })
}

func TestQuarantineNobodyUnderstands(t *testing.T) {
	for _, raw := range []string{"", "{}", `{"ids":[[5,4]]}`, `{"ids":[[1,99999999999]]}`, `[]`} {
		cfg := newHost(t).slabsFrom(10, 1)
		cfg.Quarantine = &shelf{docs: map[string][]byte{"c@1": []byte(raw)}}
		if p, err := Open(cfg, nil); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%q: %v", raw, err)
			if p != nil {
				p.Close()
			}
		}
	}
	cfg := newHost(t)
	cfg.Quarantine = brokenShelf{}
	if _, err := Open(cfg, nil); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

type brokenShelf struct{}

func (brokenShelf) Each(func(string, []byte) error) error {
	return fault.Wrap(fault.Unavailable, "list", "", errors.New("broken"), "")
}
func (brokenShelf) PutSoon(string, any) error { return errors.New("broken") }

// TestQuarantineClaimsItsSlab: somebody has removed the claim meanwhile.
func TestQuarantineClaimsItsSlab(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 2)
	cfg.Quarantine = &shelf{}
	p := open(t, cfg)
	l := lease(t, p, "c", slabIDs)
	p.Release("c", "/")
	path := p.claims.path(int(l.Base) / slabIDs)
	p.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p = open(t, cfg)
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), p.ID()) {
		t.Error(err)
	}
	other := another(t, cfg)
	other.Quarantine = nil
	q := open(t, other)
	if got, err := q.Lease("x", 0); err == nil && overlap(got, l) {
		t.Errorf("%+v is quarantined", got)
	}
}

func TestShare(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	p := open(t, cfg)
	l := lease(t, p, "pod", 0)
	pair := pairOf(t, fmt.Sprintf("0:%d:65536", l.Base), fmt.Sprintf("0:%d:65536", l.Base))
	for _, owner := range []string{"one", "two"} {
		if err := p.Share(owner, pair); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 63 {
		lease(t, p, fmt.Sprint("c", i), 0)
	}
	exhausted := func(when string) {
		t.Helper()
		if got, err := p.Lease("more", 0); !fault.Is(err, fault.Exhausted) {
			t.Fatalf("%s: %+v, %v", when, got, err)
		}
	}
	p.Release("pod") // those who share its ids outlive it
	exhausted("the pod has ended")
	p.Release("one")
	exhausted("one is left")
	p.Release("two")
	if got := leaseSoon(t, p, "more", 0); got != l {
		t.Errorf("%+v, want %+v", got, l)
	}
}

// TestReleaseDuringALook: what is released while processes are being read may
// have a process that was not there when its part of /proc was read, also when
// the range rested already because somebody else had shared it.
func TestReleaseDuringALook(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	p := open(t, cfg)
	l := lease(t, p, "c", slabIDs)
	if err := p.Share("s", pairOf(t, fmt.Sprintf("0:%d:1", l.Base), "0:1:1")); err != nil {
		t.Fatal(err)
	}
	p.Close() // nobody else looks
	p.Release("s")
	fifo := filepath.Join(cfg.Proc, "7", "uid_map")
	if err := errors.Join(os.Mkdir(filepath.Dir(fifo), 0o700), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	looked := make(chan error)
	go func() {
		_, err := p.sweep(nil)
		looked <- err
	}()
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0) // the look is at this process now
	if err != nil {
		t.Fatal(err)
	}
	p.Release("c")
	f.Close()
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	if got := p.Info(); got.Free != 0 || got.Quarantined != 64 {
		t.Errorf("%+v", got)
	}
}

// TestShareOfOthers: ids that another daemon may lease cannot be shared, those
// that the host gives to somebody can, by any daemon.
func TestShareOfOthers(t *testing.T) {
	cfg := newHost(t).slabsFrom(10, 1)
	write(t, cfg.SubUID, fmt.Sprintf("dockremap:%d:65536\n", cfg.First+5*rangeIDs))
	first, second := open(t, cfg), open(t, another(t, cfg))
	common := fmt.Sprintf("0:%d:65536", cfg.First+5*rangeIDs)
	for _, p := range []*Pool{first, second} {
		if err := p.Share("remap", pairOf(t, common, common)); err != nil {
			t.Error(err)
		}
	}
	theirs := fmt.Sprintf("0:%d:65536", cfg.First+6*rangeIDs)
	if err := second.Share("x", pairOf(t, theirs, theirs)); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if got := first.Info(); got.Granted+got.Free != 63 {
		t.Errorf("%+v", got)
	}
}

// TestReleaseIsCheap also with many quarantines: nothing waits for the disk.
func TestReleaseIsCheap(t *testing.T) {
	cfg := newHost(t)
	cfg.Quarantine = &shelf{}
	p := open(t, cfg)
	best := time.Hour
	for i := range 200 {
		owner := fmt.Sprint("c", i)
		lease(t, p, owner, 0)
		began := time.Now()
		p.Release(owner, "/somewhere", "/else")
		best = min(best, time.Since(began))
	}
	t.Logf("the quickest of 200 took %v", best)
	if best > 100*time.Microsecond {
		t.Errorf("%v", best)
	}
}
