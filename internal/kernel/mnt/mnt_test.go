package mnt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/kernel/userns"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

func ns(t testing.TB) *os.File {
	t.Helper()
	mnttest.NeedRoot(t)
	pair, err := idmap.Range(100000, 65536)
	if err != nil {
		t.Fatal(err)
	}
	f, err := userns.New(pair)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestIdmap(t *testing.T) {
	for _, kind := range []string{"", "xfs", "btrfs", "tmpfs"} {
		t.Run("fs="+kind, func(t *testing.T) {
			dir, users := mnttest.FileSystem(t, kind), ns(t)
			if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := ClonePath(nil, dir, false)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			err = Idmap(f, users, false)
			if kind == "tmpfs" && fault.Is(err, fault.Unsupported) {
				t.Skip("kernel: tmpfs can be idmapped since Linux 6.3")
			}
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Fstatat(int(f.Fd()), "f", &st, 0); err != nil || st.Uid != 100000 || st.Gid != 100000 {
				t.Errorf("%d:%d, %v", st.Uid, st.Gid, err)
			}
		})
	}
}

// TestIdmapUnsupported: file systems without idmapped mounts say so in a way
// that can be told from a failure.
func TestIdmapUnsupported(t *testing.T) {
	users := ns(t)
	for _, dir := range []string{"/proc", "/sys"} {
		f, err := ClonePath(nil, dir, false)
		if err != nil {
			t.Fatal(err)
		}
		err = Idmap(f, users, false)
		if !fault.Is(err, fault.Unsupported) || !errors.Is(err, unix.EINVAL) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", dir, err)
		}
		f.Close()
	}
}

func TestSetAttrIsRecursive(t *testing.T) {
	dir := mnttest.FileSystem(t, "tmpfs")
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(dir, "sub"), 0)
	for _, deep := range []bool{false, true} {
		f, err := ClonePath(nil, dir, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := SetAttr(f, Attr{Set: ReadOnly}, deep); err != nil {
			t.Fatal(err)
		}
		want := map[string]error{"x": unix.EROFS, "sub/x": nil}
		if deep {
			want["sub/x"] = unix.EROFS
		}
		for path, w := range want {
			if err := unix.Mkdirat(int(f.Fd()), path, 0o700); !errors.Is(err, w) {
				t.Errorf("deep %v, %s: %v", deep, path, err)
			}
			os.Remove(filepath.Join(dir, path))
		}
		f.Close()
	}
}

func TestNewFS(t *testing.T) {
	mnttest.NeedRoot(t)
	f, err := NewFS("tmpfs").Set("mode", "711").Mount(NoDev | ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode != unix.S_IFDIR|0o711 {
		t.Errorf("%o, %v", st.Mode, err)
	}
	dir := t.TempDir()
	if err := AttachPath(f, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); !errors.Is(err, unix.EROFS) {
		t.Error(err)
	}
	if err := Detach(dir); err != nil {
		t.Fatal(err)
	}
	if err := Detach(dir); err == nil {
		t.Error("detached twice")
	}
}

func TestNewFSRefused(t *testing.T) {
	mnttest.NeedRoot(t)
	if _, err := NewFS("nosuchfs").Set("a", "b").Mount(0); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
	// The first failure sticks, and the kernel's own words are told.
	_, err := NewFS("tmpfs").Set("nosuch", "option").Set("mode", "700").Mount(0)
	if err == nil || !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	if want := "nosuch=option"; !contains(err, want) || !contains(err, "Unknown parameter") {
		t.Error(err)
	}
}

func contains(err error, s string) bool {
	ok, _ := filepath.Match("*"+s+"*", fmt.Sprint(err))
	return ok
}

func TestClone(t *testing.T) {
	dir := mnttest.FileSystem(t, "tmpfs")
	f, err := OpenTree(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Clone(f, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	target := t.TempDir()
	at, err := OpenTree(nil, target)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := Attach(c, at); err != nil {
		t.Fatal(err)
	}
	defer Detach(target)
	if err := os.WriteFile(filepath.Join(target, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
		t.Error(err)
	}
	if _, err := ClonePath(nil, filepath.Join(dir, "none"), false); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}
