package spec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

const passwdFile = "root:x:0:0:root:/root:/bin/sh\n# comment\nwww:x:33:34:web:/var/www:/bin/false\nnohome:x:7:7::\n1234:x:99:99::/n:/n\nhigh:x:4294967295:1::/h:/h\nneg:x:-1:1::/h:/h\nover:x:99999999999999999999:1::/h:/h\n"

const groupFile = "root:x:0:\nwww:x:34:\nvideo:x:44:www,root\nsudo:x:27:www\n5:x:55:\nbad:x:-5:\n"

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		name   string
		groups []string
		uid    uint32
		gid    uint32
		extra  []uint32
		home   string
	}{
		{"", nil, 0, 0, []uint32{44}, "/root"},
		{"root", []string{"sudo", "9", "video"}, 0, 0, []uint32{44, 27, 9}, "/root"},
		{"www", nil, 33, 34, []uint32{44, 27}, "/var/www"},
		{"33", nil, 33, 34, []uint32{44, 27}, "/var/www"},
		{"www:sudo", nil, 33, 27, nil, "/var/www"},
		{"www:www", []string{"www"}, 33, 34, nil, "/var/www"},
		{"0:1000", nil, 0, 1000, nil, "/root"},
		{"5000", nil, 5000, 0, nil, "/"},
		{"5000:5001", nil, 5000, 5001, nil, "/"},
		{"nohome", nil, 7, 7, nil, "/"},
		{"1234", nil, 1234, 0, nil, "/"}, // an id, though a user is named so
		{"www:5", nil, 33, 5, nil, "/var/www"},
	} {
		uid, gid, extra, home, err := lookup([]byte(passwdFile), []byte(groupFile), c.name, c.groups)
		if err != nil || uid != c.uid || gid != c.gid || !slices.Equal(extra, c.extra) || home != c.home {
			t.Errorf("%q %v: %d %d %v %s %v", c.name, c.groups, uid, gid, extra, home, err)
		}
	}
}

func TestLookupRefusals(t *testing.T) {
	for _, c := range []struct{ name, group, text string }{
		{"nobody", "", "unable to find user nobody: no matching entries in passwd file"},
		{"www:staff", "", "unable to find group staff: no matching entries in group file"},
		{"", "staff", "unable to find group staff: no matching entries in group file"},
		{"4294967295", "", "uids and gids must be in range 0-2147483647"},
		{"high", "", "uids and gids must be in range 0-2147483647"},
		{"neg", "", "uids and gids must be in range 0-2147483647"},
		{"over", "", "uids and gids must be in range 0-2147483647"},
		{"-1", "", "uids and gids must be in range 0-2147483647"},
		{"www:bad", "", "uids and gids must be in range 0-2147483647"},
	} {
		groups := []string{c.group}
		if c.group == "" {
			groups = nil
		}
		_, _, _, _, err := lookup([]byte(passwdFile), []byte(groupFile), c.name, groups)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q %q: %v", c.name, c.group, err)
		}
	}
}

func TestLookupEmptyGroup(t *testing.T) {
	_, _, _, _, err := lookup([]byte(passwdFile), []byte(groupFile), "", []string{""})
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func rootDir(t *testing.T) (string, *os.File) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestLookupUserFiles(t *testing.T) {
	dir, root := rootDir(t)
	if uid, gid, extra, home, err := LookupUser(root, "", nil); err != nil || uid != 0 || gid != 0 || extra != nil || home != "/" {
		t.Errorf("without files: %d %d %v %s %v", uid, gid, extra, home, err)
	}
	if _, _, _, _, err := LookupUser(root, "www", nil); err == nil || err.Error() != "unable to find user www: no matching entries in passwd file" {
		t.Errorf("without files: %v", err)
	}
	// A link out of the image stays in it.
	if err := os.WriteFile(filepath.Join(dir, "users"), []byte("inner:x:5:6::/h:/h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/../../../users", filepath.Join(dir, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if uid, gid, _, _, err := LookupUser(root, "inner", nil); err != nil || uid != 5 || gid != 6 {
		t.Errorf("through a link: %d %d %v", uid, gid, err)
	}
}

func TestLookupUserHostileFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o666) },
		"loop":      func(path string) error { return os.Symlink("passwd", path) },
		"large": func(path string) error {
			if err := os.WriteFile(path, nil, 0o666); err != nil {
				return err
			}
			return os.Truncate(path, maxIDFile+1)
		},
		"proc link": func(path string) error { return os.Symlink("/proc/self/fd/0", path) },
	} {
		dir, root := rootDir(t)
		if err := make(filepath.Join(dir, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, _, _, _, err := LookupUser(root, "www", nil)
		if !fault.Is(err, fault.Invalid) || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(start))
		}
	}
}

// TestLookupUserDetached is what happens at every start: the root is a mount
// that is attached nowhere.
func TestLookupUserDetached(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: mounts are cloned by root")
	}
	dir, root := rootDir(t)
	if err := os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte(passwdFile), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.OpenTree(int(root.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	clone := os.NewFile(uintptr(fd), "clone")
	defer clone.Close()
	if uid, _, _, home, err := LookupUser(clone, "www", nil); err != nil || uid != 33 || home != "/var/www" {
		t.Errorf("%d %s %v", uid, home, err)
	}
}

func FuzzLookup(f *testing.F) {
	f.Add([]byte(passwdFile), []byte(groupFile), "www:sudo", "video")
	f.Add([]byte("a:x:1"), []byte(":::"), "a", "0")
	f.Add([]byte("0"), []byte("0"), "0", "")
	f.Add([]byte(nil), []byte(nil), "4294967295:1", "")
	f.Fuzz(func(t *testing.T, passwd, group []byte, name, extra string) {
		uid, gid, groups, home, err := lookup(passwd, group, name, []string{extra})
		if err != nil {
			return
		}
		for _, id := range append(groups, uid, gid) {
			if id > 1<<31-1 {
				t.Errorf("id %d", id)
			}
		}
		if home == "" || slices.Contains(groups, gid) {
			t.Errorf("home %q, groups %v, gid %d", home, groups, gid)
		}
	})
}
