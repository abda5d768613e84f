package volume

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTrees(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "data/below")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(below, unix.MNT_DETACH)
	data := filepath.Join(dir, "data")
	for _, c := range []struct {
		source    string
		recursive bool
		want      []string
	}{
		{data, true, []string{data, below}},
		{filepath.Join(dir, "link"), true, []string{data, below}},
		{data, false, []string{data}},
		{filepath.Join(dir, "none"), true, []string{filepath.Join(dir, "none")}},
	} {
		if got := Trees(c.source, c.recursive); !slices.Equal(got, c.want) {
			t.Errorf("%s, recursive %v: %v, want %v", c.source, c.recursive, got, c.want)
		}
	}
}
