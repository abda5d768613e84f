package snapshot

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

var fileSystems = []string{"", "ext4", "xfs", "xfs-noreflink", "btrfs", "tmpfs"}

// ways are all but plain; reflinks are not for every file system, see waysOn.
var ways = []shift.Way{shift.Idmapped, shift.Attached, shift.Metacopy, shift.Reflink, shift.Copy}

var (
	lowID = "sha256:" + strings.Repeat("1", 64)
	topID = "sha256:" + strings.Repeat("2", 64)
)

// TestConformance runs every way on every file system: what a container sees
// and may do must be the same.
func TestConformance(t *testing.T) {
	for _, fs := range fileSystems {
		t.Run("fs="+fs, func(t *testing.T) {
			dir := mnttest.FileSystem(t, fs)
			for _, way := range waysOn(t, dir) {
				t.Run(string(way), func(t *testing.T) { conform(t, filepath.Join(dir, string(way)), way) })
			}
		})
	}
}

// waysOn leaves out reflinks where the file system refuses them.
func waysOn(t testing.TB, dir string) []shift.Way {
	t.Helper()
	mnttest.NeedRoot(t)
	probe, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(probe)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = shift.TryReflink(d)
	os.RemoveAll(probe)
	switch {
	case fault.Is(err, fault.Unsupported):
		return slices.DeleteFunc(slices.Clone(ways), func(w shift.Way) bool { return w == shift.Reflink })
	case err != nil:
		t.Fatal(err)
	}
	return ways
}

func conform(t *testing.T, dataRoot string, way shift.Way) {
	if unix.Setxattr(filepath.Dir(dataRoot), "user.note", nil, 0) == unix.ENOTSUP {
		t.Skip("kernel: tmpfs has user attributes since Linux 6.6")
	}
	s := openStore(t, dataRoot, Options{Force: way, Stock: 2})
	makeLayers(t, s)
	base, other := pairOf(t, 1<<20), pairOf(t, 3<<20)
	m := mapsOf(t, s, base)
	upper := newUpper(t, s)
	var look, done, before, after map[string]string
	request := Request{Mapped: m, Layers: []string{lowID, topID}, Upper: upper}
	bare := Request{Mapped: m, Layers: []string{lowID, topID}}
	withRoot(t, s, bare, func(r *Root) {
		inside(t, base, r, "look", &look)
		same(t, "look without upper", look, wantLook)
	})
	look = nil
	withRoot(t, s, request, func(r *Root) {
		if r.Way != string(way) {
			t.Errorf("way %s", r.Way)
		}
		inside(t, base, r, "look", &look)
		same(t, "look", look, wantLook)
	})
	withRoot(t, s, request, func(r *Root) {
		inside(t, base, r, "work", &done)
		same(t, "work", done, wantWork)
	})
	again := Request{Mapped: m, Layers: []string{lowID, topID}, Upper: upper, Volatile: true}
	withRoot(t, s, again, func(r *Root) { inside(t, base, r, "list", &before) })
	withRoot(t, s, again, func(r *Root) { inside(t, base, r, "list", &after) }) // volatile twice
	same(t, "second volatile mount", after, before)
	for path, want := range wantAfter {
		if got := before[path]; !strings.HasPrefix(got, want) || got == "" != (want == "") {
			t.Errorf("%s: %q after work, want %q", path, got, want)
		}
	}
	onDisk(t, s, upper, way)
	m2 := mapsOf(t, s, other)
	noSpace(t, s, again, Request{Mapped: m2, Layers: []string{topID, lowID}, Upper: newUpper(t, s)})
	if way.HostIDs() {
		return // an upper with host ids belongs to its map
	}
	again.Mapped, again.Volatile = m2, true
	withRoot(t, s, again, func(r *Root) { inside(t, other, r, "list", &after) })
	same(t, "another map", after, before)
}

// onDisk checks who owns what container root wrote.
func onDisk(t *testing.T, s *Store, upper string, way shift.Way) {
	t.Helper()
	dir, err := s.UpperDir(upper)
	if err != nil {
		t.Fatal(err)
	}
	base := uint32(0)
	if way.HostIDs() {
		base = 1 << 20
	}
	for path, want := range map[string][2]uint32{"owned": {33, 44}, "newdir": {0, 0}, "plain": {5, 6}, "": {0, 0}} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != base+want[0] || st.Gid != base+want[1] {
			t.Errorf("%q is owned by %d:%d on disk", path, st.Uid, st.Gid)
		}
	}
}

const layerTime = 1_000_000_000

// makeLayers builds two layers: the upper one has a whiteout and an opaque
// directory.
func makeLayers(t testing.TB, s *Store) {
	t.Helper()
	buildLayer(t, s, lowID, func(dir string) {
		f := files{t, dir}
		f.file("plain", 0, 0, 0o644, "plain")
		f.file("owned", 33, 44, 0o640, "owned")
		f.file("high", 65535, 65535, 0o600, "high")
		f.file("other", 1000, 1000, 0o644, "other")
		f.file("gone", 0, 0, 0o644, "gone")
		f.file("lowlink", 0, 0, 0o644, "x")
		f.dir("dir", 10, 20, 0o750)
		f.file("dir/file", 10, 20, 0o600, "in dir")
		f.dir("tree", 0, 0, 0o755)
		f.dir("tree/deep", 0, 0, 0o755)
		f.file("tree/deep/file", 0, 0, 0o644, "deep")
		f.dir("opaque", 0, 0, 0o755)
		f.file("opaque/hidden", 0, 0, 0o644, "hidden")
		f.dir("tmp", 0, 0, 0o1777)
		f.file("hard1", 7, 7, 0o644, "hard")
		f.must(os.Link(f.path("hard1"), f.path("hard2")))
		f.must(os.Symlink("/etc/passwd", f.path("sym")))
		f.must(os.Lchown(f.path("sym"), 11, 12))
		f.must(unix.Mknod(f.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		f.must(unix.Chmod(f.path("null"), 0o666))
		f.must(unix.Mkfifo(f.path("fifo"), 0o600))
		f.file("acl", 0, 0, 0o755, "acl")
		f.must(unix.Setxattr(f.path("acl"), "system.posix_acl_access", acl(1000, 6), 0))
		f.must(unix.Setxattr(f.path("acl"), "user.note", []byte("hello"), 0))
		f.dir("defacl", 0, 0, 0o755)
		f.must(unix.Setxattr(f.path("defacl"), "system.posix_acl_default", acl(1000, 6), 0))
		f.sparse("sparse")
		f.programs()
		f.times()
	})
	buildLayer(t, s, topID, func(dir string) {
		f := files{t, dir}
		f.must(unix.Mknod(f.path("gone"), unix.S_IFCHR, 0))
		f.dir("opaque", 0, 0, 0o755)
		f.must(unix.Setxattr(f.path("opaque"), "trusted.overlay.opaque", []byte("y"), 0))
		f.file("opaque/shown", 0, 0, 0o644, "shown")
		f.times()
	})
}

// wantLook is what a container sees, whatever its ids.
var wantLook = map[string]string{
	".": "040755 0:0", "plain": "100644 0:0 links 1 size 5 at 1000000000",
	"owned": "100640 33:44 links 1 size 5 at 1000000000", "high": "100600 65535:65535 links 1 size 4 at 1000000000",
	"other": "100644 1000:1000 links 1 size 5 at 1000000000", "lowlink": "100644 0:0 links 1 size 1 at 1000000000",
	"dir": "040750 10:20", "dir/file": "100600 10:20 links 1 size 6 at 1000000000",
	"tree": "040755 0:0", "tree/deep": "040755 0:0", "tree/deep/file": "100644 0:0 links 1 size 4 at 1000000000",
	"opaque": "040755 0:0", "opaque/shown": "100644 0:0 links 1 size 5 at 1000000000",
	"tmp": "041777 0:0", "hard1": "100644 7:7 links 2 size 4 at 1000000000", "hard2": "100644 7:7 links 2 size 4 at 1000000000",
	"sym": "120777 11:12 -> /etc/passwd at 1000000000", "null": "020666 0:0 node 1:3 at 1000000000", "fifo": "010600 0:0 at 1000000000",
	"defacl": "040755 0:0", "acl": "u1000:6", "user.note": "hello", "sparse": "100644 0:0 links 1 size 67108868 at 1000000000",
	"data of sparse": "tail ok", "bin": "040755 0:0", "bin/plain": "040755 0:0", "bin/setuid": "040755 0:0",
	"bin/setuid33": "040755 0:0", "bin/caps": "040755 0:0",
	"open null": "EACCES", "run plain": "1000 0 ok", "run setuid": "0 1 ok", "run setuid33": "33 0 ok", "run caps": "1000 1 ok",
}

// wantWork is what becomes of a container root's changes.
var wantWork = map[string]string{
	"write": "ok", "mkdir": "ok", "chown new": "ok", "chown lower": "ok", "chown lower dir": "ok",
	"chown unmapped": "EINVAL", "chmod setuid": "ok", "link lower": "ok", "append lower": "ok", "rename lower": "ok",
	"unlink lower": "ok", "rm -r lower": "ok", "mkdir again": "ok", "rm -r and leave": "ok", "exchange": "ok",
	"mknod whiteout": "EPERM", "mknod null": "EPERM", "set caps": "ok", "set trusted": "EPERM", "file caps": "ok",
	"set acl": "ok", "acl newdir": "u1000:7", "rename lower dir": "EXDEV", "left in tree": "0 ok",
	"copy up hard link": "ok", "other name": "4 ok", "rename new dir": "ok", "file in renamed dir": "moved ok",
	"copy up acl": "ok", "acl after": "u1000:6", "user.note after": "hello", "inherit acl": "ok", "acl inherited": "u1000:6",
	"copy up caps": "ok", "run caps after copy-up": "1000 1 ok", "run setuid after copy-up": "0 1 ok",
	"install caps": "ok", "run new caps": "1000 1 ok", "install setuid": "ok", "run new setuid": "33 0 ok", "chown drops caps": "ENODATA",
}

// wantAfter is how some files look after the work; "" is not at all.
var wantAfter = map[string]string{
	"owned": "104755 33:44", "new": "100640 33:44", "plain": "100644 5:6", "dir": "040750 7:8", "tree": "040700 0:0",
	"tree/deep": "", "opaque": "", "lowlink": "", "other": "", "renamed": "100644 1000:1000", "hard3": "100644 7:7", "newdir": "040775 0:0",
	"hard1": "100644 7:7 links 2 size 8", "hard2": "100600 7:7 links 1 size 4", "moved2": "040700 0:0", "moved": "",
}

// files makes the files of a layer.
type files struct {
	t    testing.TB
	root string
}

func (f files) path(name string) string { return filepath.Join(f.root, name) }

func (f files) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f files) own(name string, uid, gid int, mode uint32) {
	f.t.Helper()
	f.must(os.Chown(f.path(name), uid, gid))
	f.must(unix.Chmod(f.path(name), mode))
}

func (f files) file(name string, uid, gid int, mode uint32, text string) {
	f.t.Helper()
	f.must(os.WriteFile(f.path(name), []byte(text), 0o600))
	f.own(name, uid, gid, mode)
}

func (f files) dir(name string, uid, gid int, mode uint32) {
	f.t.Helper()
	f.must(os.MkdirAll(f.path(name), 0o755))
	f.own(name, uid, gid, mode)
}

func (f files) sparse(name string) {
	f.file(name, 0, 0, 0o644, "head")
	w, err := os.OpenFile(f.path(name), os.O_WRONLY, 0)
	f.must(err)
	defer w.Close()
	_, err = w.WriteAt([]byte("tail"), 64<<20)
	f.must(err)
}

// programs puts the test program into the layer, in directories named after
// how it is installed.
func (f files) programs() {
	for _, p := range []struct {
		name string
		uid  int
		mode uint32
		caps bool
	}{{"plain", 0, 0o755, false}, {"setuid", 0, 0o4755, false}, {"setuid33", 33, 0o4755, false}, {"caps", 0, 0o755, true}} {
		path := "bin/" + p.name + "/who"
		f.dir("bin", 0, 0, 0o755)
		f.dir("bin/"+p.name, 0, 0, 0o755)
		in, err := os.Open("/proc/self/exe")
		f.must(err)
		out, err := os.Create(f.path(path))
		f.must(err)
		_, err = io.Copy(out, in)
		f.must(err)
		in.Close()
		f.must(out.Close())
		f.own(path, p.uid, p.uid, p.mode)
		if p.caps {
			f.must(unix.Setxattr(f.path(path), "security.capability", rawCap(), 0))
		}
	}
}

func (f files) times() {
	stamp := unix.Timespec{Sec: layerTime}
	f.must(filepath.WalkDir(f.root+"/.", func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func openStore(t testing.TB, dataRoot string, opt Options) *Store {
	t.Helper()
	mnttest.NeedRoot(t)
	s, err := Open(dataRoot, opt)
	if opt.Force != "" && fault.Is(err, fault.Unsupported) {
		t.Skip("kernel: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func buildLayer(t testing.TB, s *Store, id string, fill func(dir string)) {
	t.Helper()
	b, err := s.Build(id)
	if err != nil {
		t.Fatal(err)
	}
	fill(fmt.Sprintf("/proc/self/fd/%d", b.Dir.Fd()))
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}

func pairOf(t testing.TB, base idmap.Host) idmap.Pair {
	t.Helper()
	pair, err := idmap.Range(base, 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func mapsOf(t testing.TB, s *Store, pair idmap.Pair) *Mapped {
	t.Helper()
	m, err := s.Maps(pair, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func newUpper(t testing.TB, s *Store) string {
	t.Helper()
	name, err := s.NewUpper()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func withRoot(t testing.TB, s *Store, r Request, do func(*Root)) {
	t.Helper()
	root, err := s.Rootfs(r)
	if err != nil {
		t.Fatal(err)
	}
	do(&root)
	root.Close()
	// The mount goes when its last user does; processes just reaped may hold
	// it for a moment longer, and an upper must not be mounted twice.
	time.Sleep(10 * time.Millisecond)
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for k, w := range want {
		if dynamic && strings.HasPrefix(k, "run ") {
			continue
		}
		if g, ok := got[k]; !ok || g != w {
			t.Errorf("%s: %s is %q, want %q", what, k, g, w)
		}
	}
	for k, g := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: unexpected %s: %q", what, k, g)
		}
	}
}
