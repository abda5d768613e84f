package shift

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/idmap"
)

// TestWalkers: whatever walker makes a name first, files with several names
// stay one file, and every directory has its times.
func TestWalkers(t *testing.T) {
	mnttest.NeedRoot(t)
	const dirs, each = 40, 10
	src := t.TempDir()
	stamp := []unix.Timespec{{Sec: 1_000_000_000}, {Sec: 1_000_000_000}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for d := range dirs {
		dir := fmt.Sprintf("%s/d%d/deep", src, d)
		must(os.MkdirAll(dir, 0o755))
		for f := range each {
			path := fmt.Sprintf("%s/f%d", dir, f)
			if d == 0 {
				must(os.WriteFile(path, []byte("x"), 0o644))
			} else {
				must(os.Link(fmt.Sprintf("%s/d0/deep/f%d", src, f), path))
			}
		}
	}
	for d := range dirs {
		for _, sub := range []string{"deep", ""} {
			must(unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("%s/d%d/%s", src, d, sub), stamp, 0))
		}
	}
	for _, way := range []Way{Copy, Metacopy} {
		dst := t.TempDir()
		must(copyTree(src, dst, way))
		for d := range dirs {
			for f := range each {
				var st unix.Stat_t
				must(unix.Lstat(fmt.Sprintf("%s/d%d/deep/f%d", dst, d, f), &st))
				if st.Nlink != dirs || st.Uid != 1<<20 || st.Size != 1 {
					t.Fatalf("%s: d%d/deep/f%d: %+v", way, d, f, st)
				}
			}
			var st unix.Stat_t
			must(unix.Lstat(fmt.Sprintf("%s/d%d", dst, d), &st))
			if st.Mtim.Sec != 1_000_000_000 {
				t.Errorf("%s: d%d has time %d", way, d, st.Mtim.Sec)
			}
		}
	}
}

// TestFailedWalker: one failure ends the others.
func TestFailedWalker(t *testing.T) {
	mnttest.NeedRoot(t)
	src, dst := t.TempDir(), t.TempDir()
	for d := range 20 {
		if err := os.Mkdir(fmt.Sprintf("%s/d%d", src, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dst, "d7"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(src, dst, Copy); !errors.Is(err, unix.EEXIST) {
		t.Error(err)
	}
}

func copyTree(src, dst string, way Way) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Open(dst)
	if err != nil {
		return err
	}
	defer out.Close()
	pair, err := idmap.Range(1<<20, 1<<16)
	if err != nil {
		return err
	}
	return CopyTree(context.Background(), Job{Src: in, Dst: out, Pair: pair, Way: way})
}
