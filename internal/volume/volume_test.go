package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

func pair(t *testing.T) idmap.Pair {
	t.Helper()
	p, err := idmap.Range(100000, 65536)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// source is a directory with something mounted on its sub.
func source(t *testing.T) string {
	dir := mnttest.FileSystem(t, "tmpfs")
	sub := filepath.Join(dir, "sub")
	if err := errors.Join(os.Mkdir(sub, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(sub, 0) })
	if err := os.WriteFile(filepath.Join(sub, "below"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBind(t *testing.T) {
	dir := source(t)
	for _, c := range []struct {
		m                record.Mount
		below            bool
		write, writeDeep error
	}{
		{record.Mount{}, false, nil, nil},
		{record.Mount{Recursive: true}, true, nil, nil},
		{record.Mount{ReadOnly: true}, false, unix.EROFS, unix.EROFS},
		{record.Mount{Recursive: true, ReadOnly: true}, true, unix.EROFS, unix.EROFS},
		{record.Mount{Recursive: true, Propagation: "rslave"}, true, nil, nil},
	} {
		c.m.Kind, c.m.Source, c.m.Target = "bind", dir, "/t"
		f, err := Prepare(c.m, As{Pair: pair(t)})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(f.Fd()), "sub/below", &st, 0); (err == nil) != c.below {
			t.Errorf("%+v: what is mounted below: %v", c.m, err)
		}
		if err := unix.Fstatat(int(f.Fd()), "file", &st, 0); err != nil || st.Uid != 0 {
			t.Errorf("%+v: a bind must show the host's owners: %d, %v", c.m, st.Uid, err)
		}
		for name, want := range map[string]error{"new": c.write, "sub/new": c.writeDeep} {
			if err := unix.Mkdirat(int(f.Fd()), name, 0o700); !errors.Is(err, want) {
				t.Errorf("%+v: write %s: %v", c.m, name, err)
			}
			unix.Unlinkat(int(f.Fd()), name, unix.AT_REMOVEDIR)
		}
		f.Close()
	}
}

func TestBindFileThroughLink(t *testing.T) {
	dir := source(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	f, err := Prepare(record.Mount{Kind: "bind", Source: link, Recursive: true}, As{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("%o, %v", st.Mode, err)
	}
}

func TestRefused(t *testing.T) {
	dir := source(t)
	for _, c := range []struct {
		m     record.Mount
		pair  idmap.Pair
		class fault.Class
		text  string
	}{
		{record.Mount{Kind: "bind", Source: "/nowhere/at/all"}, pair(t), fault.Invalid, `invalid mount config for type "bind": bind source path does not exist: /nowhere/at/all`},
		{record.Mount{Kind: "bind", Source: dir + "/file/x"}, pair(t), fault.Invalid, `invalid mount config for type "bind": bind source path does not exist: ` + dir + "/file/x"},
		{record.Mount{Kind: "bind", Source: dir, Propagation: "rshared"}, pair(t), fault.Denied, ""},
		{record.Mount{Kind: "bind", Source: dir, Propagation: "sideways"}, pair(t), fault.Invalid, ""},
		{record.Mount{Kind: "tmpfs"}, pair(t), fault.Invalid, ""},
		{record.Mount{Kind: "bind", Source: "/proc/self", Map: &record.MountMap{Kind: "userns"}}, pair(t), fault.Unsupported, ""},
		{record.Mount{Kind: "bind", Source: "/etc", Map: &record.MountMap{Kind: "userns"}}, pair(t), fault.Denied, ""},
		{record.Mount{Kind: "bind", Source: "/usr/../home", Chown: true}, pair(t), fault.Denied, ""},
	} {
		f, err := Prepare(c.m, As{Pair: c.pair})
		if err == nil {
			f.Close()
		}
		if !fault.Is(err, c.class) || c.text != "" && err.Error() != c.text {
			t.Errorf("%+v: %v", c.m, err)
		}
	}
	f, err := Prepare(record.Mount{Kind: "bind", Source: dir, Propagation: "rshared", Recursive: true}, As{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestMakeSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a/b")
	if err := errors.Join(MakeSource(path), MakeSource(path)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeSource(filepath.Join(file, "x")); err == nil {
		t.Error("made a directory below a file")
	}
}
