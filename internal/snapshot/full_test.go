package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
)

// ballast fills the file system of the store, but for a few MiB, and returns how
// to take it away.
func ballast(t *testing.T, s *Store) (drop func()) {
	t.Helper()
	path := filepath.Join(s.path, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for step := int64(64 << 20); step >= 1<<20; {
		err := unix.Fallocate(int(f.Fd()), 0, size, step)
		if errors.Is(err, unix.EOPNOTSUPP) { // ext3
			_, err = f.WriteAt(make([]byte, step), size)
		}
		if err == nil {
			size += step
		} else if errors.Is(err, unix.ENOSPC) {
			step /= 2
		} else {
			t.Fatal(err)
		}
	}
	must(t, f.Truncate(size-3<<20), f.Sync())
	return func() { os.Remove(path) }
}

// noSpace: a container without space is told so, and its files are as they were;
// of a tree that does not fit nothing is left, and it is made when it does.
func noSpace(t *testing.T, s *Store, used, fresh Request) {
	t.Helper()
	var big unix.Statfs_t
	must(t, unix.Statfs(s.path, &big))
	if big.Blocks*uint64(big.Bsize) > 1<<30 {
		return // the machine's own disk is not filled
	}
	drop := ballast(t, s)
	var got map[string]string
	withRoot(t, s, used, func(r *Root) { inside(t, used.Mapped.pair, r, "fill", &got) })
	same(t, "without space", got, map[string]string{"write": "ENOSPC", "kept": "other ok", "run setuid33": "33 0 ok"})
	before := len(copiesBelow(t, s.path))
	r, err := s.Rootfs(fresh)
	switch {
	case err == nil && (fresh.Mapped.way != shift.Copy || big.Type == unix.BTRFS_SUPER_MAGIC):
		r.Close() // what is shared takes no room, and btrfs shares whatever is copied
	case !fault.Is(err, fault.Exhausted):
		t.Errorf("a new tree without space: %v", err)
	case len(copiesBelow(t, s.path)) > before+1: // the layer without programs may fit
		t.Error("half of a tree was left")
	}
	drop()
	s.drops.settle()
	empty(t, s, "building", "dropped")
	upper, err := s.UpperDir(used.Upper)
	must(t, err, os.Remove(filepath.Join(upper, "fill")))
	withRoot(t, s, fresh, func(r *Root) {
		st, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/bin/plain/who", r.FD.Fd()))
		if err != nil || st.Size() == 0 {
			t.Errorf("%v %v", st, err)
		}
	})
}
