package snapshot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/idmap"
)

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

// TestKilledCopies: after a kill at any step of making a shifted tree, or in the
// middle of one, each tree that is there is complete and nothing else is left.
func TestKilledCopies(t *testing.T) {
	binary := withFailpoints(t)
	for _, fs := range []string{"ext4", "xfs", "btrfs", "tmpfs"} {
		dir := mnttest.FileSystem(t, fs)
		for _, way := range waysOn(t, dir) {
			if !way.HostIDs() {
				continue // nothing is made
			}
			t.Run(fs+"/"+string(way), func(t *testing.T) {
				root := filepath.Join(dir, string(way))
				s := openStore(t, root, Options{Force: way, Stock: 2})
				buildLayer(t, s, lowID, func(dir string) {
					for i := range copyFiles {
						files{t, dir}.file(fmt.Sprint("f", i), 7, 8, 0o644, "x")
					}
				})
				for _, point := range []string{"layer-building", "layer-filled", "layer-synced", "layer-named"} {
					for _, nth := range []string{":1", ":3"} {
						killCopying(t, binary, root, "FIEF_FAILPOINT="+point+nth, nil)
						swept(t, root, way)
					}
				}
				killCopying(t, binary, root, "", func() bool { return halfMade(t, root) })
				swept(t, root, way)
			})
		}
	}
}

// withFailpoints builds these tests with failpoints in them.
func withFailpoints(t *testing.T) string {
	t.Helper()
	mnttest.NeedRoot(t)
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("tool: no go")
	}
	binary := filepath.Join(t.TempDir(), "failing.test")
	cmd := exec.Command("go", "test", "-c", "-tags", "failpoint", "-o", binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// killCopying runs copying until a failpoint ends it, or kills it once now holds.
func killCopying(t *testing.T, binary, root, failpoint string, now func() bool) {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = []string{partEnv + "=" + partCopying, targetEnv + "=" + root, failpoint}
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	if now != nil {
		end := time.Now().Add(20 * time.Second)
		for !now() && time.Now().Before(end) {
		}
		cmd.Process.Kill()
		if time.Now().After(end) {
			t.Error("never in the middle of a tree")
		}
	}
	cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != unix.SIGKILL {
		t.Fatalf("%s: it ended by itself: %v", failpoint, cmd.ProcessState)
	}
}

// halfMade reports whether there is a tree with some of its files.
func halfMade(t *testing.T, root string) bool {
	t.Helper()
	trees, err := filepath.Glob(root + "/building/*-*/fs")
	must(t, err)
	return slices.ContainsFunc(trees, func(path string) bool {
		list, _ := os.ReadDir(path)
		return len(list) > 0 && len(list) < copyFiles
	})
}

// swept opens the store again and looks at what is left.
func swept(t *testing.T, root string, way shift.Way) {
	t.Helper()
	s, err := Open(root, Options{Force: way, Stock: 2})
	must(t, err)
	defer s.Close()
	must(t, errors.Join(s.SweepBuilding(), s.SweepUppers(nil)))
	s.drops.settle()
	empty(t, s, "building", "dropped")
	for _, c := range copiesBelow(t, root) {
		left, err := os.ReadDir(c)
		if err != nil || len(left) != copyFiles {
			t.Errorf("%s has %d files, %v", c, len(left), err)
		}
		var st unix.Stat_t
		var base uint32
		rel, _ := filepath.Rel(root, c)
		fmt.Sscanf(rel, "%d.", &base)
		if err := unix.Lstat(c+"/f299", &st); err != nil || st.Uid != base+7 || st.Gid != base+8 {
			t.Errorf("%s: owned by %d:%d, %v", c, st.Uid, st.Gid, err)
		}
	}
	must(t, s.SweepCopies(nil))
	s.drops.settle()
	if left := copiesBelow(t, root); len(left) > 0 {
		t.Errorf("left: %v", left)
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
