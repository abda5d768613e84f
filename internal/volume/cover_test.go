package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// What is bound is found below the detached root, and nowhere else; links in the
// root lead nowhere outside.
func TestCover(t *testing.T) {
	dir, tree := source(t), mnttest.FileSystem(t, "tmpfs")
	err := errors.Join(os.MkdirAll(filepath.Join(tree, "a/data"), 0o755), os.Symlink("/a", filepath.Join(tree, "link")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := mnt.ClonePath(nil, tree, false)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m := record.Mount{Kind: "bind", Source: dir, Target: "/link/data", Recursive: true}
	f, err := Prepare(m, As{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Cover(root, f, m)
	if fault.Is(err, fault.Unsupported) {
		t.Skip("kernel: nothing can be mounted on a detached mount")
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"a/data/file": nil, "a/data/sub/below": nil, "file": unix.ENOENT} {
		n, err := unix.Openat(int(root.Fd()), name, unix.O_PATH, 0)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", name, err, want)
		}
		unix.Close(n)
	}
	if _, err := os.Stat(filepath.Join(tree, "a/data/file")); err == nil {
		t.Error("it shows outside the detached mount as well")
	}
	err = Cover(root, f, record.Mount{Kind: "bind", Source: dir, Target: "/nowhere"})
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("a target that is not there: %v", err)
	}
}
