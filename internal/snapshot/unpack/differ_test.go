package unpack

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/idmap"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(mnttest.Main(m)) }

// What GNU tar packs, it and fief unpack to the same tree, on each file system
// and in each format.
func TestAgainstGNUTar(t *testing.T) {
	needRoot(t)
	mnttest.Tool(t, "tar", "--version")
	source := t.TempDir()
	plant(t, source)
	archives := map[string][]byte{}
	for name, flags := range map[string][]string{
		"pax":        {"--format=posix", "--acls", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=1.0"},
		"pax text":   {"--format=posix", "--acls", "--numeric-owner", "--sparse", "--sparse-version=0.0"},
		"pax sparse": {"--format=posix", "--sparse", "--sparse-version=0.1", "--sort=name"},
		"gnu":        {"--format=gnu", "--sparse"},
		"ustar":      {"--format=ustar", "--exclude=*/long*", "--exclude=*/xxx*", "--exclude=*/rich/owner", "--exclude=*/holes/*"},
	} {
		archives[name] = gnutar(t, nil, append(flags, "-C", source, "-cf", "-", ".")...)
	}
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			top := mnttest.FileSystem(t, kind)
			for name, raw := range archives {
				theirs, ours := filepath.Join(top, name+" tar"), filepath.Join(top, name+" fief")
				for _, dir := range []string{theirs, ours} {
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				gnutar(t, raw, "--acls", "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability", "--numeric-owner", "-p", "-C", theirs, "-xf", "-")
				facts, err := Tar(context.Background(), openDir(t, ours), bytes.NewReader(raw), Limits{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				compareTrees(t, name, tree(t, theirs), tree(t, ours))
				if facts.MaxUID < 70000 || name != "ustar" && facts.MaxUID != idmap.Inside(farOwner) {
					t.Errorf("%s: %+v", name, facts)
				}
			}
		})
	}
}

func gnutar(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("tar", args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tar %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

const farOwner = 3_000_000_000

// plant makes a tree of everything a layer may have.
func plant(t *testing.T, top string) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := func(elem ...string) string { return filepath.Join(append([]string{top}, elem...)...) }
	write := func(name, body string, mode uint32) {
		t.Helper()
		ok(os.WriteFile(p(name), []byte(body), 0o600))
		ok(unix.Chmod(p(name), mode))
	}
	for _, d := range []string{"plain", "links", "holes", "rich", "shared"} {
		ok(os.Mkdir(p(d), 0o755))
	}
	write("plain/file", "content", 0o644)
	write("plain/empty", "", 0o000)
	write("plain/big", strings.Repeat("0123456789abcde\n", 100_000), 0o4711)
	ok(unix.Chown(p("plain/big"), 70000, 70001))
	ok(unix.Chmod(p("plain/big"), 0o6711)) // chown cleared it
	ok(unix.Mkfifo(p("plain/fifo"), 0o620))
	ok(unix.Chmod(p("shared"), 0o3777))
	ok(unix.Chown(p("shared"), 0, 50))
	write("shared/inside", "not of the directory's group", 0o600)
	ok(os.Chown(p("shared/inside"), 5, 6))

	for i, name := range oddNames() {
		write("plain/"+name, fmt.Sprint(i), 0o644)
	}
	long := "long"
	for range 12 { // names of some 1200 bytes
		long = filepath.Join(long, strings.Repeat("long-", 20))
	}
	ok(os.MkdirAll(p(long), 0o755))
	write(filepath.Join(long, "file"), "deep", 0o644)
	ok(os.Symlink(strings.Repeat("t/", 450)+"t", p(long, "longlink")))

	write("links/a", "linked", 0o644)
	ok(os.Link(p("links/a"), p("links/b")))
	ok(os.Link(p("links/a"), p("plain/c")))
	ok(os.Symlink("/links/a", p("links/sym")))
	ok(os.Link(p("links/sym"), p("links/sym2")))
	ok(os.Symlink("nowhere", p("links/dangling")))
	ok(os.Lchown(p("links/dangling"), 8, 9))

	ok(os.WriteFile(p("holes/end"), []byte("begin"), 0o600))
	ok(os.Truncate(p("holes/end"), 3<<20))
	holed(t, p("holes/many"))
	ok(os.WriteFile(p("holes/only"), nil, 0o600))
	ok(os.Truncate(p("holes/only"), 5<<20+17))

	write("rich/caps", "#!", 0o755)
	caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	ok(unix.Lsetxattr(p("rich/caps"), capability, []byte(caps), 0))
	write("rich/user", "x", 0o644)
	ok(unix.Lsetxattr(p("rich/user"), "user.text", []byte("value"), 0))
	ok(unix.Lsetxattr(p("rich/user"), "user.binary", []byte("a\x00b\n=\xff"), 0))
	ok(unix.Lsetxattr(p("rich/user"), "user.empty", nil, 0))
	ok(unix.Lsetxattr(p("rich"), "user.dir", []byte("on a directory"), 0))
	write("rich/acl", "x", 0o640)
	ok(unix.Lsetxattr(p("rich/acl"), aclAccess, []byte(aclOf([3]uint32{1, 6, noID}, [3]uint32{2, 4, 54321}, [3]uint32{4, 4, noID}, [3]uint32{8, 6, 54322}, [3]uint32{16, 6, noID}, [3]uint32{32, 0, noID})), 0))
	ok(os.Mkdir(p("rich/heirs"), 0o750))
	write("rich/heirs/none", "made before the default ACL", 0o640)
	ok(unix.Lsetxattr(p("rich/heirs"), aclDefault, []byte(aclOf([3]uint32{1, 7, noID}, [3]uint32{2, 7, 54321}, [3]uint32{4, 5, noID}, [3]uint32{16, 7, noID}, [3]uint32{32, 0, noID})), 0))
	write("rich/owner", "x", 0o644)
	ok(os.Lchown(p("rich/owner"), farOwner, farOwner-1))
	age(t, top)
}

// oddNames are names that archives, shells and terminals stumble over.
func oddNames() []string {
	return []string{"-rf", " lead and trail ", "new\nline", "back\\slash", "quote'\"", "bell\a", "latin1-\xe9\xff", "ünïcödé", "日本", "tab\there",
		"*?[x]", "#", "~", "$(id)", "a=b", "...", ".hidden", strings.Repeat("x", 255)}
}

// holed makes a file with data at its end and here and there before.
func holed(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 30 { // more than one header of the old format holds
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)<<18); err != nil {
			t.Fatal(err)
		}
	}
}

// age gives everything below top its own time, with nanoseconds, some of them
// before 1970.
func age(t *testing.T, top string) {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(paths)
	for i, path := range paths {
		ts := []unix.Timespec{{Sec: 1_500_000_000}, {Sec: int64(1_000_000_000 + i*100_000), Nsec: int64(123_456_789 + i)}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
}

// tree is what matters of everything below top, by name.
func tree(t *testing.T, top string) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(top, path)
		st := stat(t, path)
		seen := ""
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if seen = first[st.Ino]; seen == "" {
				first[st.Ino], seen = name, name
			}
		} else {
			st.Size, st.Nlink = 0, 0
		}
		to, _ := os.Readlink(path)
		out[name] = fmt.Sprintf("mode %o owner %d:%d size %d links %d of %q time %d.%09d to %q content %x holes %v xattrs %s",
			st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, seen, st.Mtim.Sec, st.Mtim.Nsec, to, content(t, path, st), holes(path, st), xattrsOn(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func content(t *testing.T, path string, st unix.Stat_t) []byte {
	t.Helper()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 64 {
		sum := 0
		for i, c := range raw {
			sum = sum*31 + int(c) + i
		}
		return fmt.Appendf(nil, "sum %d", sum)
	}
	return raw
}

// holes says whether a file takes much less space than its size.
func holes(path string, st unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT == unix.S_IFREG && strings.Contains(path, "holes/") {
		unix.Sync() // until then, xfs has reserved more than it needs
		unix.Lstat(path, &st)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 < st.Size/2
}

func xattrsOn(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var out []string
	for _, name := range names {
		if name != "" && name != "security.selinux" {
			out = append(out, fmt.Sprintf("%s=%q", name, attr(path, name)))
		}
	}
	return strings.Join(out, " ")
}

func compareTrees(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	for name, w := range want {
		if g := got[name]; g != w {
			t.Errorf("%s: %.60q\n tar  %.400s\n fief %.400s", what, name, w, g)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d names, tar has %d", what, len(got), len(want))
	}
}
