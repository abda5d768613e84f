package within

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/sysx"
	"fief/internal/testenv"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

const base = 524288

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func pairOf(t testing.TB) idmap.Pair {
	t.Helper()
	p, err := idmap.Range(base, 65536)
	must(t, err)
	return p
}

// jail is a root directory that belongs to the map's root, beside a file that it
// must not reach.
func jail(t testing.TB) (path string, root *os.File) {
	t.Helper()
	testenv.NeedRoot(t)
	path = filepath.Join(t.TempDir(), "jail")
	outside := filepath.Join(filepath.Dir(path), "outside")
	must(t, os.MkdirAll(filepath.Join(path, "a/b"), 0o755), os.Mkdir(outside, 0o777), os.WriteFile(filepath.Join(outside, "canary"), []byte("host"), 0o600),
		os.WriteFile(filepath.Join(path, "a/file"), []byte("text"), 0o640), os.Symlink("file", filepath.Join(path, "a/link")),
		os.Symlink("/a/link", filepath.Join(path, "far")), os.Symlink("../../../outside/canary", filepath.Join(path, "up")),
		os.Symlink(outside, filepath.Join(path, "abs")), os.Symlink("/none/x", filepath.Join(path, "broken")), os.Symlink("loop", filepath.Join(path, "loop")),
		os.Symlink("/proc/self/root", filepath.Join(path, "magic")), unix.Mkfifo(filepath.Join(path, "pipe"), 0o600), os.Symlink("/a", filepath.Join(path, "dirlink")))
	for _, name := range []string{"", "a", "a/b", "a/file", "a/link", "far", "pipe"} {
		must(t, os.Lchown(filepath.Join(path, name), base, base))
	}
	must(t, os.Lchown(filepath.Join(path, "a/file"), base+33, base+33))
	root, err := at.Dir(path)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	return path, root
}

func TestStat(t *testing.T) {
	_, root := jail(t)
	for _, c := range []struct{ path, want string }{
		{"/", "/ drwxr-xr-x  "}, {"", "/ drwxr-xr-x  "}, {"a/../..", "/ drwxr-xr-x  "}, {"/a/file", "file -rw-r----- 4 "},
		{"a/link", "link Lrwxrwxrwx  /a/file"}, {"/far", "far Lrwxrwxrwx  /a/file"}, {"/dirlink", "dirlink Lrwxrwxrwx  /a"},
		{"/dirlink/", "dirlink drwxr-xr-x  "}, {"/dirlink/.", ". drwxr-xr-x  "}, {"/dirlink/file", "file -rw-r----- 4 "},
		{"/up", "up Lrwxrwxrwx  /outside/canary"}, {"/broken", "broken Lrwxrwxrwx  /none/x"}, {"/pipe", "pipe prw-------  "},
		{"/none", "NotFound"}, {"/up/", "NotFound"}, {"/abs/canary", "NotFound"}, {"/a/file/", "Invalid"}, {"/magic/", "NotFound"}, {"/loop/x", "Invalid"},
	} {
		s, err := Open(root, pairOf(t), c.path)
		if err != nil {
			if got := fmt.Sprint(fault.ClassOf(err)); !strings.EqualFold(strings.ReplaceAll(got, " ", ""), c.want) {
				t.Errorf("%q: %v (%s), want %s", c.path, err, got, c.want)
			}
			continue
		}
		st := s.Stat()
		size := ""
		if st.Mode.IsRegular() {
			size = fmt.Sprint(st.Size)
		}
		if got := fmt.Sprintf("%s %s %s %s", st.Name, st.Mode, size, st.LinkTarget); got != c.want {
			t.Errorf("%q: %q, want %q", c.path, got, c.want)
		}
		s.Close()
	}
}

// read returns the archive of a path and a line for each entry.
func read(t testing.TB, root *os.File, pair idmap.Pair, path string) (archive []byte, lines string, err error) {
	t.Helper()
	s, err := Open(root, pair, path)
	must(t, err)
	defer s.Close()
	var b bytes.Buffer
	err = s.Tar(context.Background(), &b)
	archive = bytes.Clone(b.Bytes())
	for r := tar.NewReader(&b); ; {
		h, next := r.Next()
		if next != nil {
			return archive, lines, err
		}
		text, _ := io.ReadAll(r)
		lines += fmt.Sprintf("%s %c %o %d:%d %s%s\n", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text[:min(len(text), 10)])
	}
}

func TestTar(t *testing.T) {
	path, root := jail(t)
	must(t, os.Link(filepath.Join(path, "a/file"), filepath.Join(path, "a/same")), os.Chown(filepath.Join(path, "a/b"), 7, base+5))
	for _, c := range []struct{ path, want string }{
		{"/a", "a/ 5 755 0:0 \na/b/ 5 755 65534:5 \na/file 0 640 33:33 text\na/link 2 777 0:0 file\na/same 1 640 33:33 a/file\n"},
		{"/a/.", "./ 5 755 0:0 \n./b/ 5 755 65534:5 \n./file 0 640 33:33 text\n./link 2 777 0:0 file\n./same 1 640 33:33 ./file\n"},
		{"/a/file", "file 0 640 33:33 text\n"}, {"/far", "far 2 777 0:0 /a/link\n"}, {"/pipe", "pipe 6 600 0:0 \n"},
		{"/dirlink/b", "b/ 5 755 65534:5 \n"},
	} {
		if _, got, err := read(t, root, pairOf(t), c.path); got != c.want || err != nil {
			t.Errorf("%s:\n%swant\n%s%v", c.path, got, c.want, err)
		}
	}
	if _, got, err := read(t, root, idmap.Pair{}, "/a/b"); got != fmt.Sprintf("b/ 5 755 7:%d \n", base+5) || err != nil {
		t.Error(got, err)
	}
	if _, got, err := read(t, root, idmap.Pair{}, "/"); !strings.HasPrefix(got, "/ 5 755") || !strings.Contains(got, "\n/a/file 0") || err != nil {
		t.Error(got, err)
	}
}

type item struct {
	h    tar.Header
	text string
}

func archive(t testing.TB, items ...item) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		i.h.Size, i.h.ModTime = int64(len(i.text)), time.Unix(1_700_000_000, 0)
		if i.h.Mode == 0 {
			i.h.Mode = 0o644
		}
		must(t, w.WriteHeader(&i.h))
		_, err := io.WriteString(w, i.text)
		must(t, err)
	}
	must(t, w.Close())
	return &b
}

func dir(name string) item {
	return item{h: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func link(name, to string) item {
	return item{h: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}}
}

func text(name, content string) item { return item{h: tar.Header{Name: name}, text: content} }

func TestRoundTrip(t *testing.T) {
	path, root := jail(t)
	must(t, unix.Chmod(filepath.Join(path, "a/file"), 0o4755), os.Link(filepath.Join(path, "a/file"), filepath.Join(path, "a/same")),
		os.Mkdir(filepath.Join(path, "new"), 0o755), os.Chown(filepath.Join(path, "new"), base, base),
		unix.Mkfifo(filepath.Join(path, "a/fifo"), 0o620), os.Chown(filepath.Join(path, "a/fifo"), base+1, base+2))
	for _, pair := range []idmap.Pair{pairOf(t), {}} {
		b, want, err := read(t, root, pair, "/a/.")
		must(t, err, Extract(context.Background(), Target{Root: root, Pair: pair, Path: "/new"}, bytes.NewReader(b)))
		again, got, err := read(t, root, pair, "/new/.")
		if got = got[strings.Index(got, "\n"):]; got != want[strings.Index(want, "\n"):] || err != nil || len(again) != len(b) {
			t.Errorf("%s, want %s%v", got, want, err)
		}
	}
	var one, two unix.Stat_t
	must(t, unix.Stat(filepath.Join(path, "new/file"), &one), unix.Stat(filepath.Join(path, "new/same"), &two))
	if one.Ino != two.Ino || one.Uid != base+33 || one.Mode&0o7777 != 0o4755 {
		t.Errorf("%+v", one)
	}
}

func TestExtract(t *testing.T) {
	path, root := jail(t)
	must(t, os.Mkdir(filepath.Join(path, "hosts"), 0o755), os.Mkdir(filepath.Join(path, "open"), 0o700), os.Chmod(filepath.Join(path, "open"), 0o777), os.Mkdir(filepath.Join(path, "a/full"), 0o755), os.WriteFile(filepath.Join(path, "a/full/x"), nil, 0o600))
	must(t, os.Chown(filepath.Join(path, "a/full"), base, base))
	owned := func(uid int) item { return item{h: tar.Header{Name: "owned", Uid: uid, Gid: uid}} }
	special := func(kind byte) item {
		return item{h: tar.Header{Name: "dev", Typeflag: kind, Devmajor: 1, Devminor: 3}}
	}
	xattr := func(name string) item {
		return item{h: tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr." + name: "v"}}}
	}
	for _, c := range []struct {
		path  string
		keep  bool
		items []item
		class fault.Class // 0: it works
		make  string      // a file that is there then, with this text
	}{
		{"/a", true, []item{text("n", "1")}, 0, "a/n 1"},
		{"/dirlink", true, []item{text("n", "2")}, 0, "a/n 2"},
		{"/", true, []item{text("dirlink/n", "3")}, 0, "a/n 3"}, // through a link on the way
		{"/a", true, []item{text("/abs/n", "4")}, 0, "a/abs/n 4"},
		{"/a", true, []item{text("deep/er/n", "5")}, 0, "a/deep/er/n 5"},
		{"/a", true, []item{text("link", "6")}, 0, "a/link 6"}, // the link is replaced, not followed
		{"/a", true, []item{link("out", "../outside"), text("out/n", "7")}, fault.NotFound, ""},
		{"/", false, []item{text("up", "8")}, 0, "up 8"},
		{"/", true, []item{text("abs/n", "9")}, fault.NotFound, ""},
		{"/", true, []item{text("magic/etc/n", "9")}, fault.NotFound, ""},
		{"/a", true, []item{text("full", "9")}, fault.Invalid, ""},
		{"/a", false, []item{text("full", "9")}, 0, "a/full 9"},
		{"/a", true, []item{dir("file")}, fault.Invalid, ""},
		{"/a", false, []item{dir("file"), text("file/n", "10")}, 0, "a/file/n 10"},
		{"/a", true, []item{text("../n", "")}, fault.Invalid, ""},
		{"/a", true, []item{text("b/../../../n", "")}, fault.Invalid, ""},
		{"/a", true, []item{owned(65536)}, fault.Invalid, ""},
		{"/a", true, []item{special(tar.TypeChar)}, fault.Unsupported, ""},
		{"/a", true, []item{special(tar.TypeBlock)}, fault.Unsupported, ""},
		{"/a", true, []item{xattr("trusted.overlay.opaque")}, fault.Unsupported, ""},
		{"/a", true, []item{xattr("security.capability")}, fault.Invalid, ""},
		{"/hosts", true, []item{text("n", "")}, fault.Denied, ""},
		{"/", true, []item{dir("hosts")}, fault.Denied, ""},
		{"/", true, []item{dir("open")}, fault.Denied, ""},
		{"/open", true, []item{text("n", "11")}, 0, "open/n 11"},
		{"/a/n", true, []item{text("n", "")}, fault.Invalid, ""},
		{"/none", true, []item{text("n", "")}, fault.NotFound, ""},
		{"/broken/", true, []item{text("n", "")}, fault.NotFound, ""},
		{"/a", true, []item{{h: tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../../outside/canary"}}}, fault.Invalid, ""},
	} {
		err := Extract(context.Background(), Target{Root: root, Pair: pairOf(t), Path: c.path, KeepKinds: c.keep}, archive(t, c.items...))
		if c.class == 0 && err != nil || c.class != 0 && fault.ClassOf(err) != c.class {
			t.Errorf("%s %s: %v, want class %v", c.path, c.items[0].h.Name, err, c.class)
		}
		name, want, _ := strings.Cut(c.make, " ")
		if got, err := os.ReadFile(filepath.Join(path, name)); name != "" && (err != nil || string(got) != want) {
			t.Errorf("%s: %q, %v", c.make, got, err)
		}
	}
	checkOutside(t, path)
	for _, cut := range []string{"junk", strings.Repeat("junk", 300)} {
		if err := Extract(context.Background(), Target{Root: root, Path: "/"}, strings.NewReader(cut)); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	}
}

// checkOutside fails when anything beside the jail has changed.
func checkOutside(t testing.TB, jail string) {
	t.Helper()
	outside := filepath.Join(filepath.Dir(jail), "outside")
	entries, err := os.ReadDir(outside)
	canary, readErr := os.ReadFile(filepath.Join(outside, "canary"))
	var st, own unix.Stat_t
	must(t, err, readErr, unix.Stat(filepath.Join(outside, "canary"), &st), unix.Stat(outside, &own))
	if len(entries) != 1 || string(canary) != "host" || st.Uid != 0 || st.Mode&0o7777 != 0o600 || own.Uid != 0 || own.Mode&0o7777 != 0o755 {
		t.Errorf("outside was changed: %v %q %+v", entries, canary, st)
	}
}

// TestSwap is CVE-2018-15664: a directory and a link out of the root change places
// while files are copied both ways.
func TestSwap(t *testing.T) {
	path, root := jail(t)
	outside := filepath.Join(filepath.Dir(path), "outside")
	must(t, os.Mkdir(filepath.Join(path, "swap"), 0o755), os.WriteFile(filepath.Join(path, "swap/canary"), []byte("mine"), 0o644),
		os.Chown(filepath.Join(path, "swap"), base, base), os.Symlink(outside, filepath.Join(path, "other")))
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { stopped <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(int(root.Fd()), "swap", int(root.Fd()), "other", unix.RENAME_EXCHANGE)
			}
		}
	}()
	deadline, in, out := time.Now().Add(3*time.Second), 0, 0
	for time.Now().Before(deadline) {
		for _, p := range []string{"/swap/canary", "/swap/", "/swap/.", "/swap"} {
			s, err := Open(root, pairOf(t), p)
			if err != nil {
				continue
			}
			var b bytes.Buffer
			if s.Tar(context.Background(), &b) == nil {
				out++
			}
			s.Close()
			if bytes.Contains(b.Bytes(), []byte("host")) {
				t.Fatal("the canary was copied out")
			}
		}
		for _, to := range []string{"/swap", "/"} {
			err := Extract(context.Background(), Target{Root: root, Pair: pairOf(t), Path: to}, archive(t, text(strings.TrimPrefix(strings.Repeat("swap/", len("/swap")-len(to)), "/")+"canary", "mine")))
			if err == nil {
				in++
			}
		}
		err := Extract(context.Background(), Target{Root: root, Pair: pairOf(t), Path: "/", KeepKinds: true}, archive(t, dir("swap"), text("swap/n", "x")))
		if err == nil {
			in++
		}
	}
	close(stop)
	n := <-stopped
	checkOutside(t, path)
	if n < 1000 || in == 0 || out == 0 {
		t.Errorf("%d swaps, %d copies in, %d out: too few to say anything", n, in, out)
	}
	t.Logf("%d swaps, %d copies in, %d out", n, in, out)
}

func TestCancel(t *testing.T) {
	path, root := jail(t)
	huge := filepath.Join(path, "a/huge")
	must(t, os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 1<<40))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	s, err := Open(root, pairOf(t), "/a/huge")
	must(t, err)
	defer s.Close()
	if err := s.Tar(ctx, io.Discard); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
	if err := Extract(ctx, Target{Root: root, Pair: pairOf(t), Path: "/a"}, archive(t, text("n", ""))); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
}

func TestDeep(t *testing.T) {
	path, root := jail(t)
	must(t, os.MkdirAll(filepath.Join(path, strings.Repeat("d/", maxDepth+2)), 0o755))
	if _, _, err := read(t, root, idmap.Pair{}, "/d"); !fault.Is(err, fault.Exhausted) {
		t.Error(err)
	}
}

func TestCapabilities(t *testing.T) {
	path, root := jail(t)
	raw := string(withRoot([]byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0, false))
	i := text("ping", "x")
	i.h.PAXRecords = map[string]string{"SCHILY.xattr." + capXattr: raw}
	must(t, Extract(context.Background(), Target{Root: root, Pair: pairOf(t), Path: "/a"}, archive(t, i)))
	buf := make([]byte, 64)
	n, err := unix.Getxattr(filepath.Join(path, "a/ping"), capXattr, buf)
	must(t, err)
	if n != sysx.CapSize3 || !bytes.Equal(insideCaps(buf[:n], pairOf(t).UID), []byte(raw)) {
		t.Errorf("% x", buf[:n])
	}
	b, _, err := read(t, root, pairOf(t), "/a/ping")
	must(t, err)
	h, err := tar.NewReader(bytes.NewReader(b)).Next()
	if err != nil || h.PAXRecords["SCHILY.xattr."+capXattr] != raw {
		t.Errorf("%q, %v", h.PAXRecords, err)
	}
}

// FuzzExtract: whatever the archive, nothing outside the root changes.
func FuzzExtract(f *testing.F) {
	for _, items := range [][]item{{text("a", "x"), dir("d"), text("d/x", "y")}, {link("l", "/"), text("l/x", "")}, {link("l", "../outside"), dir("l"), text("l/canary", "bad")}} {
		b, err := io.ReadAll(archive(f, items...))
		must(f, err)
		f.Add(b)
	}
	path, root := jail(f)
	pair := pairOf(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = Extract(ctx, Target{Root: root, Pair: pair, Path: "/a"}, bytes.NewReader(b))
		checkOutside(t, path)
	})
}

// TestAttributes: what a container notes about its files comes out with its ids,
// and goes in again.
func TestAttributes(t *testing.T) {
	path, root := jail(t)
	named := func(tag byte, id uint32) string {
		raw := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, tag, 0, 4, 0, 0, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
			16, 0, 6, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
		binary.LittleEndian.PutUint32(raw[16:], id)
		if tag == aclGroup { // the kernel wants them in order of tags
			copy(raw[12:28], append(append([]byte(nil), raw[20:28]...), raw[12:20]...))
		}
		return string(raw)
	}
	set := func(name, attr, value string) {
		must(t, unix.Setxattr(filepath.Join(path, name), attr, []byte(value), 0))
	}
	set("a/file", "user.note", "n\x00\xff")
	set("a/file", aclAccess, named(aclUser, base+7))
	set("a", aclDefault, named(aclGroup, base+8))
	set("a", "user.dir", "d")
	set("a/b", aclAccess, named(aclUser, 5)) // nobody of the container's
	set("a", "trusted.host", "h")
	raw, _, err := read(t, root, pairOf(t), "/a")
	must(t, err)
	got := map[string]map[string]string{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		got[h.Name] = map[string]string{}
		for k, v := range h.PAXRecords {
			if attr, is := strings.CutPrefix(k, paxXattr); is {
				got[h.Name][attr] = v
			}
		}
	}
	for name, want := range map[string]map[string]string{
		"a/file": {"user.note": "n\x00\xff", aclAccess: named(aclUser, 7)}, "a/": {aclDefault: named(aclGroup, 8), "user.dir": "d"},
		"a/b/": {aclAccess: named(aclUser, overflowID)},
	} {
		if !maps.Equal(got[name], want) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	in := func(name string, records map[string]string) error {
		return Extract(context.Background(), Target{Root: root, Pair: pairOf(t), Path: "/a"}, archive(t, item{h: tar.Header{Name: name, Mode: 0o640, PAXRecords: records}}))
	}
	must(t, in("in", map[string]string{paxXattr + aclAccess: named(aclUser, 7), paxXattr + "user.note": "x"}),
		in("text", map[string]string{paxACL + "access": "user::rw-,user:x:r--:7,group::r--,mask::rw-,other::r--"}))
	for _, name := range []string{"in", "text"} {
		value := make([]byte, 256)
		n, err := unix.Getxattr(filepath.Join(path, "a", name), aclAccess, value)
		if err != nil || string(value[:n]) != named(aclUser, base+7) {
			t.Errorf("%s: %q %v", name, value[:max(n, 0)], err)
		}
	}
	for _, records := range []map[string]string{{paxXattr + aclAccess: named(aclUser, 1<<24)}, {paxXattr + aclAccess: "x"}, {paxACL + "access": "user:ann:rw-"}} {
		if err := in("bad", records); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", records, err)
		}
	}
}
