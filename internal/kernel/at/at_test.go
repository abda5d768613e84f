package at

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := Dir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// jail is a directory with links that lead out of it.
func jail(t testing.TB) (root string, dir *os.File) {
	root = filepath.Join(t.TempDir(), "jail")
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755),
		os.WriteFile(filepath.Join(root, "a/file"), nil, 0o644),
		os.Symlink("/", filepath.Join(root, "abs")), os.Symlink("../../..", filepath.Join(root, "a/up")),
		os.Symlink("b", filepath.Join(root, "a/in")), os.Symlink("/proc/self/root", filepath.Join(root, "magic")))
	return root, open(t, root)
}

func TestBeneath(t *testing.T) {
	_, dir := jail(t)
	for _, ok := range []string{".", "a", "a/b", "a/b/..", "a/file"} {
		f, err := Beneath(dir, ok, unix.O_PATH)
		must(t, err)
		f.Close()
	}
	for _, bad := range []string{"..", "/", "/etc", "abs", "a/up", "a/in", "a/../..", "magic/etc", ""} {
		if f, err := Beneath(dir, bad, unix.O_PATH); err == nil {
			t.Errorf("%q opened %s", bad, f.Name())
		}
	}
	if _, err := Beneath(dir, "none", unix.O_PATH); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// FuzzInRoot: whatever the name, what is opened lies in the root.
func FuzzInRoot(f *testing.F) {
	for _, s := range []string{"..", "/", "abs/etc/passwd", "a/up/../a/file", "magic", "a/in", "../../../../proc/self/root", "abs/abs/a/./b"} {
		f.Add(s)
	}
	root, dir := jail(f)
	f.Fuzz(func(t *testing.T, unsafeName string) {
		for _, open := range []func(*os.File, string, int) (*os.File, error){InRoot, Beneath} {
			got, err := open(dir, unsafeName, unix.O_PATH)
			if err != nil {
				continue
			}
			path, err := os.Readlink(fd.Path(got))
			got.Close()
			if err != nil || path != root && !strings.HasPrefix(path, root+"/") {
				t.Errorf("%q opened %s, %v", unsafeName, path, err)
			}
		}
	})
}

func TestEnsureDir(t *testing.T) {
	mnttest.NeedRoot(t)
	root := t.TempDir()
	dir := open(t, root)
	must(t, os.Mkdir(filepath.Join(root, "wide"), 0o777), os.Chown(filepath.Join(root, "wide"), 5, 5),
		os.Symlink("/tmp", filepath.Join(root, "link")))
	for _, name := range []string{"new", "wide", "wide"} {
		f, err := EnsureDir(dir, name)
		must(t, err)
		f.Close()
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(root, name), &st))
		if st.Mode != unix.S_IFDIR|0o700 || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s: %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		}
	}
	if _, err := EnsureDir(dir, "link"); err == nil {
		t.Error("a link was followed")
	}
}

func TestNamesExistsRename(t *testing.T) {
	root := t.TempDir()
	dir := open(t, root)
	must(t, MakeDir(dir, "one", 0o711), MakeDir(dir, "two", 0o700))
	if names, err := Names(dir); err != nil || len(names) != 2 {
		t.Error(names, err)
	}
	if err := Rename(dir, "one", dir, "two"); !fault.Is(err, fault.Exists) {
		t.Error("replaced:", err)
	}
	must(t, Rename(dir, "one", dir, "three"), SyncDir(dir), SyncFS(dir))
	for name, want := range map[string]bool{"one": false, "three": true} {
		if got, err := Exists(dir, name); got != want || err != nil {
			t.Error(name, got, err)
		}
	}
	if err := MakeDir(dir, "two", 0o700); !fault.Is(err, fault.Exists) {
		t.Error(err)
	}
}

// TestRemoveDeep: deeper than there are descriptors, and than PATH_MAX.
func TestRemoveDeep(t *testing.T) {
	root := t.TempDir()
	dir := open(t, root)
	must(t, MakeDir(dir, "tree", 0o700))
	at := open(t, filepath.Join(root, "tree"))
	for i := range 1200 {
		must(t, unix.Mkdirat(int(at.Fd()), "sub", 0o700), unix.Mkdirat(int(at.Fd()), hoisted+"1", 0o700))
		if i%100 == 0 {
			must(t, unix.Mknodat(int(at.Fd()), "file", unix.S_IFREG|0o600, 0))
		}
		next, err := SubDir(at, "sub")
		must(t, err)
		at.Close()
		at = next
	}
	at.Close()
	must(t, RemoveTree(dir, "tree"), RemoveTree(dir, "tree"))
	if names, err := Names(dir); err != nil || len(names) > 0 {
		t.Error(names, err)
	}
}

func TestRemoveTree(t *testing.T) {
	mnttest.NeedRoot(t)
	root := t.TempDir()
	dir := open(t, root)
	must(t, os.MkdirAll(filepath.Join(root, "tree/mnt"), 0o755), os.WriteFile(filepath.Join(root, "outside"), nil, 0o600),
		os.Mkdir(filepath.Join(root, "other"), 0o700), os.WriteFile(filepath.Join(root, "other/kept"), nil, 0o600),
		os.Symlink("../outside", filepath.Join(root, "tree/link")), os.Symlink(filepath.Join(root, "other"), filepath.Join(root, "tree/dirlink")),
		os.Mkdir(filepath.Join(root, "tree/closed"), 0), os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	must(t, unix.Mount(filepath.Join(root, "other"), filepath.Join(root, "tree/mnt"), "", unix.MS_BIND, ""))
	if err := RemoveTree(dir, "tree"); err == nil {
		t.Error("a mount was removed through")
	}
	must(t, unix.Unmount(filepath.Join(root, "tree/mnt"), 0), RemoveTree(dir, "tree"), RemoveTree(dir, "file"))
	for name, want := range map[string]bool{"tree": false, "file": false, "outside": true, "other/kept": true} {
		if _, err := os.Lstat(filepath.Join(root, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
