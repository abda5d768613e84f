package snapshot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func TestStoreIsPrivate(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, root, Options{Force: shift.Copy})
	mapsOf(t, s, pairOf(t, 1<<20))
	for _, dir := range []string{"layers", "uppers", "building", "dropped", "1048576.1048576", "1048576.1048576/layers"} {
		st, err := os.Stat(filepath.Join(root, dir))
		if err != nil || st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
}

func TestLayers(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	b, err := s.Build(lowID)
	if err != nil {
		t.Fatal(err)
	}
	if s.HasLayer(lowID) {
		t.Error("a layer being built is visible")
	}
	second, err := s.Build(lowID)
	if err != nil {
		t.Fatal(err)
	}
	aborted, err := s.Build(topID)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{b.Commit(), second.Commit()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	aborted.Abort()
	names, err := s.Layers()
	if err != nil || len(names) != 1 || !s.HasLayer(names[0]) || !s.HasLayer(lowID) || s.HasLayer(topID) {
		t.Fatalf("layers %v, %v", names, err)
	}
	dir, err := s.LayerDir(lowID)
	if _, e := os.Stat(dir); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if err := errors.Join(s.RemoveLayer(lowID), s.RemoveLayer(lowID)); err != nil || s.HasLayer(lowID) {
		t.Fatal("remove:", err)
	}
	s.drops.settle()
	empty(t, s, "layers", "building", "dropped")
}

func empty(t *testing.T, s *Store, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if left, err := os.ReadDir(filepath.Join(s.path, d)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v left, %v", d, left, err)
		}
	}
}

// TestKilled: whatever a killed process leaves is removed at the next start,
// and what is complete or used stays.
func TestKilled(t *testing.T) {
	mnttest.NeedRoot(t)
	root := t.TempDir()
	s, err := Open(root, Options{Stock: 4})
	if err != nil {
		t.Fatal(err)
	}
	buildLayer(t, s, lowID, func(string) {})
	if _, err := s.Build(topID); err != nil {
		t.Fatal(err)
	}
	kept, lost, drop := newUpper(t, s), newUpper(t, s), newUpper(t, s)
	for _, n := range []string{kept, lost} {
		files{t, root}.file("uppers/"+n+"/fs/file", 0, 0, 0o644, "x")
	}
	files{t, root}.must(os.Mkdir(filepath.Join(root, "uppers", "0123456789abcdef"), 0o700)) // half made
	files{t, root}.must(os.Rename(filepath.Join(root, "uppers", drop), filepath.Join(root, "dropped", "half")))
	s.Close()

	s = openStore(t, root, Options{Stock: 4})
	if err := errors.Join(s.SweepBuilding(), s.SweepUppers(map[string]bool{kept: true})); err != nil {
		t.Fatal(err)
	}
	s.drops.settle()
	empty(t, s, "building", "dropped")
	if !s.HasLayer(lowID) || s.HasLayer(topID) {
		t.Error("layers are not as committed")
	}
	for name, want := range map[string]bool{kept: true, lost: false, "0123456789abcdef": false} {
		if _, err := os.Stat(filepath.Join(root, "uppers", name)); (err == nil) != want {
			t.Errorf("upper %s: %v", name, err)
		}
	}
}

// churn uses a store until it is killed.
func churn(dataRoot string) int {
	s, err := Open(dataRoot, Options{Stock: 4})
	for i := 0; err == nil; i++ {
		err = churnOnce(s, fmt.Sprintf("sha256:%032x%032x", i, i), i%3 == 0)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func churnOnce(s *Store, id string, remove bool) error {
	upper, err := s.NewUpper()
	if err != nil {
		return err
	}
	dir, _ := s.UpperDir(upper)
	err = errors.Join(os.WriteFile(dir+"/f", nil, 0o600), os.MkdirAll(dir+"/a/b/c", 0o755))
	s.DropUpper(upper)
	if err != nil {
		return err
	}
	b, err := s.Build(id)
	if err != nil {
		return err
	}
	in := fmt.Sprintf("/proc/self/fd/%d/", b.Dir.Fd())
	err = errors.Join(os.WriteFile(in+"one", nil, 0o600), os.WriteFile(in+"two", nil, 0o600), b.Commit())
	if err == nil && remove {
		err = s.RemoveLayer(id)
	}
	return err
}

// TestKill9: after a kill at any moment every layer is complete, and a sweep
// leaves nothing else.
func TestKill9(t *testing.T) {
	root := mnttest.FileSystem(t, "tmpfs")
	for i := range 8 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{partEnv + "=" + partChurn, targetEnv + "=" + root}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(30+7*i) * time.Millisecond)
		cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
			t.Fatal("it ended by itself:", err)
		}
		s, err := Open(root, Options{Stock: 4})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.SweepBuilding(), s.SweepUppers(nil)); err != nil {
			t.Fatal(err)
		}
		s.drops.settle()
		empty(t, s, "building", "dropped")
		complete(t, s)
		s.Close()
		if left, err := os.ReadDir(filepath.Join(root, "uppers")); err != nil || len(left) > 4 {
			t.Errorf("%d uppers are left, %v", len(left), err)
		}
	}
}

func complete(t *testing.T, s *Store) {
	t.Helper()
	names, err := s.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		dir, err := s.LayerDir(n)
		if err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
			t.Errorf("layer %s has %d files, %v", n, len(entries), err)
		}
	}
}

// TestStock: pairs are made ahead; unused ones survive a restart and come back
// when dropped, used ones do not.
func TestStock(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{Stock: 3})
	first := newUpper(t, s)
	waitFor(t, func() bool { return len(s.stock.ready) == 3 })
	ready := newUpper(t, s)
	s.DropUpper(ready) // untouched: back to the stock
	s.drops.settle()
	if _, err := os.Stat(filepath.Join(root, "uppers", ready)); err != nil && len(s.stock.ready) < 3 {
		t.Error("an untouched pair was thrown away:", err)
	}
	m := mapsOf(t, s, pairOf(t, 1<<20))
	withRoot(t, s, Request{Mapped: m, Upper: first}, func(*Root) {})
	s.DropUpper(first)
	s.DropUpper("../../etc")
	s.drops.settle()
	if _, err := os.Stat(filepath.Join(root, "uppers", first)); err == nil {
		t.Error("a pair that was mounted is used again")
	}
}

func TestStockSurvives(t *testing.T) {
	mnttest.NeedRoot(t)
	root := t.TempDir()
	s, err := Open(root, Options{Stock: 3})
	if err != nil {
		t.Fatal(err)
	}
	s.stock.fill()
	s.Close()
	before, err := os.ReadDir(filepath.Join(root, "uppers"))
	if err != nil || len(before) != 3 {
		t.Fatal(before, err)
	}
	s = openStore(t, root, Options{Stock: 3})
	if err := s.SweepUppers(nil); err != nil || len(s.stock.ready) != 3 {
		t.Errorf("%d of 3 adopted, %v", len(s.stock.ready), err)
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// TestAtOnce: uppers, roots and drops from several goroutines, in every way of
// mounting.
func TestAtOnce(t *testing.T) {
	for _, way := range waysOn(t, os.TempDir()) {
		t.Run(string(way), func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{Force: way})
			buildLayer(t, s, lowID, func(dir string) { files{t, dir}.file("f", 0, 0, 0o644, "x") })
			m := mapsOf(t, s, pairOf(t, 1<<20))
			var names sync.Map
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for range 5 {
						upper, err := s.NewUpper()
						if _, twice := names.LoadOrStore(upper, true); twice || err != nil {
							t.Error("upper given twice", err)
							return
						}
						r, err := s.Rootfs(Request{Mapped: m, Layers: []string{lowID}, Upper: upper, Volatile: true})
						if err != nil {
							t.Error(err)
							return
						}
						r.Close()
						s.DropUpper(upper)
					}
				})
			}
			all.Wait()
			s.drops.settle()
			empty(t, s, "dropped")
		})
	}
}

// TestFull: a full disk is a clear error, and afterwards all is as before.
func TestFull(t *testing.T) {
	mnttest.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=60"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := openStore(t, dir, Options{Stock: 1})
	s.drops.settle()
	var names []string
	for {
		n, err := s.NewUpper()
		if err != nil {
			if !fault.Is(err, fault.Exhausted) {
				t.Errorf("out of inodes: %v", err)
			}
			break
		}
		names = append(names, n)
	}
	for i := 0; unix.Mknod(filepath.Join(dir, "fill"+strconv.Itoa(i)), unix.S_IFREG, 0) == nil; i++ {
	}
	if _, err := s.Build(lowID); !fault.Is(err, fault.Exhausted) {
		t.Errorf("build: %v", err)
	}
	if _, err := Open(dir, Options{}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("a full disk was taken for something else: %v", err)
	}
	for _, n := range names {
		s.DropUpper(n)
	}
	s.drops.settle()
	buildLayer(t, s, lowID, func(string) {})
}

func TestCopies(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{Force: shift.Copy})
	buildLayer(t, s, lowID, func(dir string) { files{t, dir}.file("f", 0, 0, 0o644, "x") })
	one, two := pairOf(t, 1<<20), pairOf(t, 2<<20)
	for _, pair := range []idmap.Pair{one, two} {
		withRoot(t, s, Request{Mapped: mapsOf(t, s, pair), Layers: []string{lowID}, Upper: newUpper(t, s)}, func(*Root) {})
	}
	has := func(dir string) bool {
		_, err := os.Stat(filepath.Join(root, dir, "layers", lowID[7:39], "fs/f"))
		return err == nil
	}
	if !has("1048576.1048576") || !has("2097152.2097152") {
		t.Fatal("copies are not where they are documented to be")
	}
	if err := s.SweepCopies([]idmap.Pair{one}); err != nil || !has("1048576.1048576") || has("2097152.2097152") {
		t.Error("sweep:", err)
	}
	if err := s.RemoveLayer(lowID); err != nil || has("1048576.1048576") {
		t.Error("remove layer:", err)
	}
	if err := s.DropCopies(one); err != nil {
		t.Error(err)
	}
	s.drops.settle()
	empty(t, s, "dropped")
	small, err := idmap.Range(1<<20, 10)
	if err != nil || copiesName(small) == copiesName(one) {
		t.Error("two maps share their copies", err)
	}
}

// FuzzNames: only what is surely a name becomes a path.
func FuzzNames(f *testing.F) {
	for _, s := range []string{lowID, lowID[7:39], "sha256:../../../../../../../../../../../../../../../../../../../../..", "", ":", "host-0123456789abcdef", "0123456789abcdef", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if name, err := short(id); err == nil && (len(name) != shortLen || filepath.Base(name) != name) {
			t.Errorf("%q is layer %q", id, name)
		}
		if checkUpper(id) == nil && (filepath.Base(id) != id || id == "." || id == "..") {
			t.Errorf("%q is an upper", id)
		}
	})
}
