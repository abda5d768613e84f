package snapshot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
)

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
