package volume

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// memory is a bucket that outlives stores.
type memory struct {
	mu  sync.Mutex
	all map[string][]byte
}

func (m *memory) Put(key string, v any) error {
	raw, err := json.Marshal(v)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[key] = raw
	return err
}

func (m *memory) PutSoon(key string, v any) error {
	if v == nil {
		return m.Delete(key)
	}
	return m.Put(key, v)
}

func (m *memory) Delete(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, key)
	return nil
}

func (m *memory) Each(f func(string, []byte) error) error {
	m.mu.Lock()
	all := maps.Clone(m.all)
	m.mu.Unlock()
	for k, raw := range all {
		if err := f(k, raw); err != nil {
			return err
		}
	}
	return nil
}

func open(t *testing.T, root string, docs *memory) *Store {
	t.Helper()
	s, err := Open(root, docs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newStore(t *testing.T, kind string) (*Store, string, *memory) {
	t.Helper()
	root, docs := mnttest.FileSystem(t, kind), &memory{all: map[string][]byte{}}
	return open(t, root, docs), root, docs
}

func names(list []record.Volume) (out []string) {
	for _, v := range list {
		out = append(out, v.Name)
	}
	return out
}

// The same inside id is the same id through every map, and what one writes is the
// other's, on every file system that can show ids through a map.
func TestOneVolumeManyMaps(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			s, root, _ := newStore(t, kind)
			if _, _, err := s.Create(ask.CreateVolume{Name: "vol"}, ""); err != nil {
				t.Fatal(err)
			}
			m := record.Mount{Kind: "volume", Name: "vol", Source: root + "/volumes/vol/_data"}
			other, err := idmap.Range(500000, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for i, as := range []As{{Pair: pair(t)}, {Pair: other}, {}} {
				f, err := s.Mount(m, as)
				if fault.Is(err, fault.Unsupported) && kind == "tmpfs" {
					t.Skip("kernel: tmpfs can be idmapped since Linux 6.3")
				}
				if err != nil {
					t.Fatal(err)
				}
				host := 999
				if !as.Pair.IsZero() {
					h, _ := as.Pair.UID.ToHost(999)
					host = int(h)
				}
				name := string(rune('a' + i))
				if err := errors.Join(os.Mkdir(m.Source+"/"+name, 0o700), unix.Fchownat(int(f.Fd()), name, host, host, 0)); err != nil {
					t.Fatal(err)
				}
				var st unix.Stat_t
				if err := unix.Fstatat(int(f.Fd()), "a", &st, 0); err != nil || int(st.Uid) != host {
					t.Errorf("map %d shows uid %d, not %d, %v", i, st.Uid, host, err)
				}
				if err := unix.Stat(m.Source+"/"+name, &st); err != nil || st.Uid != 999 || st.Gid != 999 {
					t.Errorf("stored as %d:%d, %v", st.Uid, st.Gid, err)
				}
				f.Close()
			}
		})
	}
}

// A file system that cannot show ids through a map is refused with the ways out.
func TestNoMaps(t *testing.T) {
	s, root, _ := newStore(t, "ext3")
	if _, _, err := s.Create(ask.CreateVolume{Name: "vol"}, ""); err != nil {
		t.Fatal(err)
	}
	m := record.Mount{Kind: "volume", Name: "vol", Source: root + "/volumes/vol/_data"}
	f, err := s.Mount(m, As{Pair: pair(t)})
	if err == nil {
		f.Close()
		t.Skip("kernel: ext3 can be idmapped here")
	}
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(fault.HintOf(err), "--userns=host") {
		t.Errorf("%v, %s", err, fault.HintOf(err))
	}
	if f, err = s.Mount(m, As{}); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// fill copies into a volume what the test says.
func fill(s *Store, name string, copy func(dst string) error) error {
	return s.Fill(name, func(dst *os.File) (bool, error) { return true, copy("/proc/self/fd/" + itoa(int(dst.Fd()))) })
}

func itoa(n int) string { return strings.TrimSpace(string(must(json.Marshal(n)))) }

func must(b []byte, _ error) []byte { return b }

// An empty volume is filled by one of many, with what the directory itself has;
// what fails leaves nothing, what holds something is left alone.
func TestFill(t *testing.T) {
	s, root, _ := newStore(t, "tmpfs")
	if _, _, err := s.Create(ask.CreateVolume{Name: "vol"}, ""); err != nil {
		t.Fatal(err)
	}
	data := root + "/volumes/vol/_data"
	err := fill(s, "vol", func(dst string) error {
		return errors.Join(os.WriteFile(dst+"/half", nil, 0o600), unix.ENOSPC)
	})
	if left, _ := os.ReadDir(data); !errors.Is(err, unix.ENOSPC) || len(left) > 0 {
		t.Fatalf("%v, %v", err, left)
	}
	var times atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := fill(s, "vol", func(dst string) error {
				times.Add(1)
				return errors.Join(os.WriteFile(dst+"/f", []byte("x"), 0o640), os.Mkdir(dst+"/d", 0o755), os.Chown(dst, 999, 998), unix.Chmod(dst, 0o2750))
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var st unix.Stat_t
	if err := unix.Stat(data, &st); err != nil || st.Uid != 999 || st.Gid != 998 || st.Mode&0o7777 != 0o2750 {
		t.Errorf("%d:%d %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	if entries, _ := os.ReadDir(data); times.Load() != 1 || len(entries) != 2 {
		t.Errorf("copied %d times: %v", times.Load(), entries)
	}
	if left, _ := os.ReadDir(filepath.Dir(data)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if n, err := s.Size("vol"); err != nil || n != 1 {
		t.Errorf("size %d, %v", n, err)
	}
}

// What a kill leaves at each step is finished or taken back.
func TestRecovery(t *testing.T) {
	s, root, docs := newStore(t, "tmpfs")
	for _, name := range []string{"kept", "lost", "goes", "half"} {
		if _, _, err := s.Create(ask.CreateVolume{Name: name, Labels: map[string]string{"l": name}}, ""); err != nil {
			t.Fatal(err)
		}
	}
	v, _, err := s.Create(ask.CreateVolume{}, "container")
	if err != nil || !v.Anonymous {
		t.Fatal(v, err)
	}
	dir := root + "/volumes/"
	unrecorded, _, err := s.Create(ask.CreateVolume{}, "another")
	if err != nil {
		t.Fatal(err)
	}
	docs.Delete(unrecorded.Name)
	docs.Put("begun", record.Volume{Name: "begun", Driver: "local"})
	docs.Delete("lost")
	err = errors.Join(os.Rename(dir+"goes", dir+".gone-goes"), os.Mkdir(dir+".making-begun", 0o700), os.WriteFile(dir+"lost/_data/file", nil, 0o600),
		os.Rename(dir+"half/_data", dir+"half/.fief-filled"), os.Mkdir(dir+"half/_data", 0o755), os.WriteFile(dir+"half/.fief-filled/f", nil, 0o600),
		os.Mkdir(dir+"half/.fief-filling", 0o700))
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, root, docs)
	s.Settle(func(v record.Volume) bool { return v.Container != "" })
	if got, want := names(s.List()), []string{"half", "kept", "lost"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := os.Stat(dir + "lost/_data/file"); err != nil {
		t.Error("files were deleted for want of a record")
	}
	if err := fill(s, "half", func(string) error { return errors.New("copied again") }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "half/_data/f"); err != nil {
		t.Error(err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 3 {
		t.Errorf("left: %v", entries)
	}
	if kept, err := s.Get("kept"); err != nil || kept.Labels["l"] != "kept" || !kept.Made {
		t.Errorf("%+v, %v", kept, err)
	}
}

// A directory that was swapped on the host is not followed anywhere.
func TestSwapped(t *testing.T) {
	s, root, _ := newStore(t, "tmpfs")
	if _, _, err := s.Create(ask.CreateVolume{Name: "vol"}, ""); err != nil {
		t.Fatal(err)
	}
	data := root + "/volumes/vol/_data"
	if err := errors.Join(os.Remove(data), os.Symlink("/etc", data)); err != nil {
		t.Fatal(err)
	}
	if f, err := s.Mount(record.Mount{Kind: "volume", Name: "vol"}, As{}); !fault.Is(err, fault.Corrupt) {
		t.Errorf("%v, %v", f, err)
	}
	if len(s.Verify()) != 1 {
		t.Error("nothing is said of it")
	}
	remove, err := s.Doom("vol")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(ask.CreateVolume{Name: "other"}, ""); err != nil {
		t.Error(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal(err)
	}
}

// A subpath that somebody exchanges with a link all the time is found in the volume or
// refused: never what the link names.
func TestSubpathExchanged(t *testing.T) {
	s, root, _ := newStore(t, "tmpfs")
	if _, _, err := s.Create(ask.CreateVolume{Name: "vol"}, ""); err != nil {
		t.Fatal(err)
	}
	data, outside := root+"/volumes/vol/_data", t.TempDir()
	err := errors.Join(os.MkdirAll(data+"/a/sub", 0o755), os.WriteFile(data+"/a/sub/inside", nil, 0o600), os.MkdirAll(outside+"/sub", 0o755), os.Symlink(outside, data+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var exchanger sync.WaitGroup
	exchanger.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, data+"/a", unix.AT_FDCWD, data+"/link", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer exchanger.Wait()
	defer close(over)
	found, refused := 0, 0
	for end := time.Now().Add(time.Minute); (found < 100 || refused < 100) && time.Now().Before(end); {
		f, err := s.Mount(record.Mount{Kind: "volume", Name: "vol", Subpath: "a/sub"}, As{})
		if err != nil {
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot access path") {
				t.Fatal(err)
			}
			refused++
			continue
		}
		_, err = os.Stat(fd.Path(f) + "/inside")
		f.Close()
		if err != nil {
			t.Fatal("the mount shows something outside the volume")
		}
		found++
	}
	if found == 0 || refused == 0 {
		t.Errorf("found %d times, refused %d times: nothing was exchanged", found, refused)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    map[string]string
		want string
	}{
		{nil, ""},
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, ""},
		{map[string]string{"type": "none", "o": "bind,ro", "device": "/srv/x"}, ""},
		{map[string]string{"type": "none", "o": "rbind", "device": "/etc/../usr"}, ""},
		{map[string]string{"type": "none", "o": "rbind,idmap", "device": "/etc/../usr"}, "belongs to the host"},
		{map[string]string{"type": "tmpfs"}, `missing required option: "device"`},
		{map[string]string{"device": "x"}, `missing required option: "type"`},
		{map[string]string{"mode": "1"}, `invalid option: "mode"`},
	} {
		err := checkOptions(c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.o, err)
		}
	}
	flags, rest, propagation := parseFlags("ro,noexec,exec,rbind,size=1m,defaults,rslave,,uid=5")
	if flags != unix.MS_RDONLY|unix.MS_BIND|unix.MS_REC || !slices.Equal(rest, []string{"size=1m", "uid=5"}) || propagation != unix.MS_SLAVE|unix.MS_REC {
		t.Errorf("%x %v %x", flags, rest, propagation)
	}
	if got := hidden("user=a,password=b"); got != "user=a,password=********" {
		t.Error(got)
	}
}

// Owners are changed in the whole tree and no further: not behind links, not on
// other file systems.
// Who waits is told how far it is, and ends it where it is: what has been changed is
// said and stays, and the next one goes on.
func TestGiveAwayWatched(t *testing.T) {
	dir := mnttest.FileSystem(t, "tmpfs")
	for i := range 5000 {
		if err := os.WriteFile(dir+"/"+itoa(i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	owned := func() (n int) {
		for i := range 5000 {
			var st unix.Stat_t
			if err := unix.Stat(dir+"/"+itoa(i), &st); err != nil {
				t.Fatal(err)
			}
			if st.Uid == 7 {
				n++
			}
		}
		return n
	}
	stop := make(chan struct{})
	give := func(w Watch) error {
		f, err := Prepare(record.Mount{Kind: "bind", Source: dir, Chown: true}, As{UID: 7, GID: 8, Watch: w})
		if err == nil {
			f.Close()
		}
		return err
	}
	close(stop)
	err := give(Watch{Stop: stop})
	if !fault.Is(err, fault.Canceled) || !strings.Contains(err.Error(), "interrupted: 0 files have their new owner") || owned() != 0 {
		t.Errorf("%v, and %d are changed", err, owned())
	}
	if err := give(Watch{}); err != nil || owned() != 5000 {
		t.Errorf("%v, and %d are changed", err, owned())
	}
	told := make(chan record.Progress)
	c := &chowner{watch: Watch{Tell: func(p record.Progress) { told <- p }}}
	c.done.Store(12)
	end := c.report("/x", time.Millisecond)
	if got, want := <-told, (record.Progress{ID: "/x", Status: "changing owners", Current: 12}); got != want {
		t.Errorf("told %+v", got)
	}
	go func() {
		for range told { // until end returns
		}
	}()
	end()
	close(told) // nobody is told any more, or this panics
}

func TestGiveAway(t *testing.T) {
	dir := source(t) // with another file system on sub
	outside := filepath.Join(t.TempDir(), "outside")
	err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(outside, dir+"/link"), os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/a/b/f", nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	f, err := Prepare(record.Mount{Kind: "bind", Source: dir, Chown: true, Recursive: true}, As{Pair: pair(t), UID: 7, GID: 8})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, want := range map[string]uint32{".": 100007, "link": 100007, "a/b/f": 100007, "sub/below": 0, outside: 0} {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil || st.Uid != want {
			t.Errorf("%s is %d's, not %d's, %v", name, st.Uid, want, err)
		}
	}
}
