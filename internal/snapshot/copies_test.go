package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

var hostWays = []shift.Way{shift.Metacopy, shift.Reflink, shift.Copy}

// TestSharedData: a file system that can share what files hold does.
func TestSharedData(t *testing.T) {
	const size = 16 << 20
	for _, c := range []struct {
		fs  string
		way shift.Way
	}{
		{"ext4", shift.Metacopy}, {"xfs", shift.Metacopy}, {"btrfs", shift.Metacopy}, {"tmpfs", shift.Metacopy},
		{"xfs", shift.Reflink}, {"btrfs", shift.Reflink},
	} {
		t.Run(c.fs+"/"+string(c.way), func(t *testing.T) {
			s := openStore(t, mnttest.FileSystem(t, c.fs), Options{Force: c.way})
			buildLayer(t, s, lowID, func(dir string) {
				files{t, dir}.file("big", 0, 0, 0o644, string(bytes.Repeat([]byte("x"), size)))
			})
			before := used(t, s)
			m := mapsOf(t, s, pairOf(t, 1<<20))
			withRoot(t, s, Request{Mapped: m, Layers: []string{lowID}, Upper: newUpper(t, s)}, func(r *Root) {
				got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/big", r.FD.Fd()))
				if err != nil || len(got) != size || got[size-1] != 'x' {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			})
			if more := used(t, s) - before; more > size/8 {
				t.Errorf("%d bytes were copied", more)
			}
		})
	}
}

// TestNoReflink: a file system that cannot share blocks is not asked to.
func TestNoReflink(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs-noreflink", "tmpfs"} {
		if s, err := Open(mnttest.FileSystem(t, fs), Options{Force: shift.Reflink}); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", fs, err)
			s.Close()
		}
	}
}

// TestFullCopy: without space nothing is left of a copy, and later it is made.
func TestFullCopy(t *testing.T) {
	for _, way := range []shift.Way{shift.Metacopy, shift.Copy} {
		t.Run(string(way), func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=400"); err != nil {
				t.Skip("root: " + err.Error())
			}
			defer unix.Unmount(dir, unix.MNT_DETACH)
			s := openStore(t, dir, Options{Force: way, Stock: 1})
			buildLayer(t, s, lowID, func(dir string) {
				for i := range 100 {
					files{t, dir}.file(fmt.Sprint("f", i), 0, 0, 0o644, "x")
				}
			})
			r := Request{Mapped: mapsOf(t, s, pairOf(t, 1<<20)), Layers: []string{lowID}, Upper: newUpper(t, s)}
			var filled []string
			for i := 0; ; i++ {
				path := filepath.Join(dir, fmt.Sprint("fill", i))
				if unix.Mknod(path, unix.S_IFREG, 0) != nil {
					break
				}
				filled = append(filled, path)
			}
			for _, path := range filled[:50] {
				os.Remove(path)
			}
			if _, err := s.Rootfs(r); !fault.Is(err, fault.Exhausted) {
				t.Errorf("without space: %v", err)
			}
			s.drops.settle()
			empty(t, s, "building", "dropped")
			for _, path := range filled[50:] {
				os.Remove(path)
			}
			withRoot(t, s, r, func(*Root) {})
		})
	}
}

// TestShadows: a shadow is shared by the containers of a map, made for each
// chain of layers, and goes with any of its layers.
func TestShadows(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Force: shift.Metacopy})
	makeLayers(t, s)
	m := mapsOf(t, s, pairOf(t, 1<<20))
	for _, layers := range [][]string{{lowID}, {lowID, topID}, {lowID, topID}} {
		withRoot(t, s, Request{Mapped: m, Layers: layers, Upper: newUpper(t, s)}, func(*Root) {})
	}
	shadows := filepath.Join(s.path, "1048576.1048576", "shadows")
	if left, err := os.ReadDir(shadows); err != nil || len(left) != 2 {
		t.Fatalf("shadows %v, %v", left, err)
	}
	for _, step := range []struct {
		layer string
		left  int
	}{{topID, 1}, {lowID, 0}} {
		if err := s.RemoveLayer(step.layer); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(shadows); err != nil || len(left) != step.left {
			t.Errorf("shadows after %s went: %v, %v", step.layer[7:12], left, err)
		}
	}
	s.drops.settle()
	empty(t, s, "dropped", "building")
}

// TestForgedRedirect: attributes by which overlayfs would show another layer's
// file are not taken over from a layer.
func TestForgedRedirect(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Force: shift.Metacopy})
	buildLayer(t, s, lowID, func(dir string) { files{t, dir}.file("secret", 0, 0, 0o600, "secret") })
	buildLayer(t, s, topID, func(dir string) {
		f := files{t, dir}
		f.file("forged", 0, 0, 0o644, "")
		f.dir("moved", 0, 0, 0o755)
		f.must(unix.Setxattr(f.path("forged"), "trusted.overlay.redirect", []byte("/secret"), 0))
		f.must(unix.Setxattr(f.path("forged"), "trusted.overlay.metacopy", nil, 0))
		f.must(unix.Setxattr(f.path("moved"), "trusted.overlay.redirect", []byte("/"), 0))
	})
	m := mapsOf(t, s, pairOf(t, 1<<20))
	withRoot(t, s, Request{Mapped: m, Layers: []string{topID}, Upper: newUpper(t, s)}, func(r *Root) {
		root := fmt.Sprintf("/proc/self/fd/%d/", r.FD.Fd())
		got, err := os.ReadFile(root + "forged")
		if err != nil || len(got) != 0 {
			t.Errorf("%q, %v", got, err)
		}
		if left, err := os.ReadDir(root + "moved"); err != nil || len(left) != 0 {
			t.Errorf("%v, %v", left, err)
		}
	})
}

const copyFiles = 300

// copying makes first root file systems, each under another map, until it is
// killed.
func copying(target string) int {
	way := shift.Way(filepath.Base(target))
	s, err := Open(target, Options{Force: way, Stock: 2})
	for i := idmap.Host(16); err == nil; i++ {
		err = copyOnce(s, i<<16)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func copyOnce(s *Store, base idmap.Host) error {
	pair, err := idmap.Range(base, 1<<16)
	if err != nil {
		return err
	}
	m, err := s.Maps(pair, "")
	if err != nil {
		return err
	}
	defer m.Close()
	upper, err := s.NewUpper()
	if err != nil {
		return err
	}
	r, err := s.Rootfs(Request{Mapped: m, Layers: []string{lowID}, Upper: upper})
	if err == nil {
		r.Close()
		s.DropUpper(upper)
	}
	return err
}

// TestKilledCopies: after a kill at any moment every copy that is there is
// complete.
func TestKilledCopies(t *testing.T) {
	dir := mnttest.FileSystem(t, "xfs")
	for _, way := range hostWays {
		t.Run(string(way), func(t *testing.T) {
			root := filepath.Join(dir, string(way))
			for i := range 3 {
				t.Run(fmt.Sprint("round ", i), func(t *testing.T) {
					s := openStore(t, root, Options{Force: way, Stock: 2})
					if err := errors.Join(s.SweepBuilding(), s.SweepUppers(nil)); err != nil {
						t.Fatal(err)
					}
					s.drops.settle()
					empty(t, s, "building", "dropped")
					if i == 0 {
						buildLayer(t, s, lowID, func(dir string) {
							for i := range copyFiles {
								files{t, dir}.file(fmt.Sprint("f", i), 0, 0, 0o644, "x")
							}
						})
					}
				})
				killWhileCopying(t, root, i)
			}
			for _, c := range copiesBelow(t, root) {
				if left, err := os.ReadDir(c); err != nil || len(left) != copyFiles {
					t.Errorf("%s has %d files, %v", c, len(left), err)
				}
			}
		})
	}
}

func copiesBelow(t *testing.T, root string) []string {
	t.Helper()
	copies, err := filepath.Glob(root + "/*.*/*/*/fs")
	if err != nil {
		t.Fatal(err)
	}
	return copies
}

// killWhileCopying kills some milliseconds after a copy was made, in the middle
// of the next.
func killWhileCopying(t *testing.T, root string, round int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{partEnv + "=" + partCopying, targetEnv + "=" + root}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before := len(copiesBelow(t, root))
	waitFor(t, func() bool { return len(copiesBelow(t, root)) > before })
	time.Sleep(time.Duration(3+5*round) * time.Millisecond)
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatal("it ended by itself:", err)
	}
}
