package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/words/fault"
)

func TestSize(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	b, err := s.Build(lowID)
	if err != nil {
		t.Fatal(err)
	}
	write := func(dir, name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	layer, err := s.LayerDir(lowID)
	if err != nil {
		t.Fatal(err)
	}
	write(layer, "big", 1000)
	upper, err := s.NewUpper()
	if err != nil {
		t.Fatal(err)
	}
	fs := filepath.Join(root, "uppers", upper, "fs")
	if err := os.MkdirAll(filepath.Join(fs, "a/b/c"), 0); err != nil {
		t.Fatal(err)
	}
	write(fs, "a/b/c/one", 5)
	write(fs, "a/two", 7)
	for _, err := range []error{
		os.Link(filepath.Join(fs, "a/two"), filepath.Join(fs, "a/b/twice")),
		os.Symlink("../../../../etc", filepath.Join(fs, "out")), // 15 bytes
		unix.Mknod(filepath.Join(fs, "gone"), unix.S_IFCHR, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		written, shown, err := s.Size(context.Background(), upper, []string{lowID})
		if written != 27 || shown != 1027 || err != nil {
			t.Errorf("%d %d %v, want 27 and 1027", written, shown, err)
		}
	}
	for _, bad := range []string{"..", "0123456789abcdef"} {
		if _, _, err := s.Size(context.Background(), bad, nil); err == nil {
			t.Errorf("measured %q", bad)
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := s.Size(over, upper, nil); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
}

// TestSizeDeep: deeper than there are descriptors, and than PATH_MAX.
func TestSizeDeep(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root, Options{})
	upper, err := s.NewUpper()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := at.Dir(filepath.Join(root, "uppers", upper, "fs"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		if err := unix.Mkdirat(int(dir.Fd()), "sub", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Symlinkat("four", int(dir.Fd()), "link"); err != nil {
			t.Fatal(err)
		}
		next, err := at.SubDir(dir, "sub")
		if err != nil {
			t.Fatal(err)
		}
		dir.Close()
		dir = next
	}
	dir.Close()
	if written, _, err := s.Size(context.Background(), upper, nil); written != 12000 || err != nil {
		t.Errorf("%d %v, want 12000", written, err)
	}
	if err := at.RemoveTree(s.uppers, upper); err != nil { // os.RemoveAll needs a descriptor for each level
		t.Error(err)
	}
}
