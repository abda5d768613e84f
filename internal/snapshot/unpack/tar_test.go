package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/words/fault"

	"golang.org/x/sys/unix"
)

// entry is a header with content; the shortest way to write a layer down.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}, ""}
}

func hardlink(name, to string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, Mode: 0o644}, ""}
}

func layer(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.body))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%q: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: sets owners, devices and trusted attributes")
	}
}

// open returns dir with O_PATH, as the snapshot room gives it.
func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

// unpackTo unpacks into a new directory beside a canary tree, and fails the
// test if anything of the canary, or beside it, was touched.
func unpackTo(t testing.TB, lim Limits, entries ...entry) (string, Facts, error) {
	t.Helper()
	needRoot(t)
	top := t.TempDir()
	root := filepath.Join(top, "store", "layer", "fs")
	canary := filepath.Join(top, "canary")
	for _, d := range []string{root, canary} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(canary, "secret"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := picture(t, top, root)
	facts, err := Tar(context.Background(), openDir(t, root), bytes.NewReader(layer(t, entries...)), lim)
	if after := picture(t, top, root); after != before {
		t.Errorf("outside the layer:\n%s\nbecame\n%s", before, after)
	}
	return root, facts, err
}

// picture is everything about the tree at top, the directory except left out.
func picture(t testing.TB, top, except string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == except {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintln(&b, path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func stat(t testing.TB, elem ...string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(elem...), &st); err != nil {
		t.Fatal(filepath.Join(elem...), err)
	}
	return st
}

func attr(path, name string) string {
	buf := make([]byte, 1<<16)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

func isWhiteout(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

func TestEveryKind(t *testing.T) {
	at := time.Unix(1600000001, 123456789)
	big := strings.Repeat("0123456789abcdef", 70000)
	suid := file("usr/bin/su", "#!")
	suid.Mode, suid.Uid, suid.Gid, suid.ModTime = 0o6755, 1000, 70000, at
	suid.Format, suid.AccessTime = tar.FormatPAX, time.Unix(1600000002, 5)
	locked := dir("locked/")
	locked.Mode, locked.ModTime, locked.Format = 0o1000, at, tar.FormatPAX
	root := dir("./")
	root.Mode, root.ModTime = 0o750, at
	link := symlink("lib", "/usr/lib")
	link.Uid = 5
	null := entry{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	disk := entry{tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 8, Devminor: 300}, ""}
	fifo := entry{tar.Header{Name: "run/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, ""}
	fs, facts, err := unpackTo(t, Limits{}, root, locked, file("locked/in", "x"), suid, link, null, disk, fifo,
		file("big", big), hardlink("big2", "/big"), hardlink("lib2", "lib"), file("/abs/./file", "a"), file("empty", ""))
	if err != nil {
		t.Fatal(err)
	}
	st := stat(t, fs, "usr/bin/su")
	if st.Mode != unix.S_IFREG|0o6755 || st.Uid != 1000 || st.Gid != 70000 || st.Mtim.Nsec != 123456789 || st.Atim.Nsec != 5 {
		t.Errorf("su: %+v", st)
	}
	if st := stat(t, fs, "locked"); st.Mode != unix.S_IFDIR|0o1000 || st.Mtim.Nsec != 123456789 {
		t.Errorf("locked: %+v", st)
	}
	if st := stat(t, fs); st.Mode != unix.S_IFDIR|0o750 || st.Mtim.Sec != at.Unix() {
		t.Errorf("root: %+v", st)
	}
	if to, _ := os.Readlink(filepath.Join(fs, "lib")); to != "/usr/lib" || stat(t, fs, "lib").Uid != 5 {
		t.Errorf("lib → %q", to)
	}
	for _, name := range []string{"dev/null", "dev/sda"} {
		if _, err := os.Lstat(filepath.Join(fs, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v; a device node must not be made", name, err)
		}
	}
	if st := stat(t, fs, "usr"); st.Mode != unix.S_IFDIR|0o755 || st.Uid != 0 {
		t.Errorf("implied directory: %+v", st)
	}
	if body, _ := os.ReadFile(filepath.Join(fs, "big2")); string(body) != big || stat(t, fs, "big").Nlink != 2 {
		t.Error("hard link")
	}
	if stat(t, fs, "lib2").Ino != stat(t, fs, "lib").Ino {
		t.Error("a hard link to a symlink followed it")
	}
	if body, _ := os.ReadFile(filepath.Join(fs, "abs/file")); string(body) != "a" {
		t.Error("absolute name")
	}
	want := Facts{MaxUID: 1000, MaxGID: 70000, Files: 18, Bytes: int64(len(big)) + 4}
	if facts != want {
		t.Errorf("facts %+v, want %+v", facts, want)
	}
}

func TestUmaskDoesNotMatter(t *testing.T) {
	defer unix.Umask(unix.Umask(0o777))
	fs, _, err := unpackTo(t, Limits{}, file("a/b", ""), dir("c"))
	if err != nil {
		t.Fatal(err)
	}
	if stat(t, fs, "a").Mode&0o777 != 0o755 || stat(t, fs, "a/b").Mode&0o777 != 0o644 || stat(t, fs, "c").Mode&0o777 != 0o755 {
		t.Error("modes follow the umask")
	}
}

func TestWhiteouts(t *testing.T) {
	fs, facts, err := unpackTo(t, Limits{},
		file("etc/.wh.gone", ""), dir("opq"), file("opq/.wh..wh..opq", ""), file("opq/new", ""),
		file("kept", ""), file(".wh.kept", ""), // stays: a whiteout only hides what is below
		dir("keptdir"), file("keptdir/f", ""), file(".wh.keptdir", ""),
		file(".wh.later", ""), dir("later"), file(".wh.laterfile", ""), file("laterfile", "x"),
		file(".wh..wh.plnk/1.2", ""), file(".wh..wh.aufs", ""), file("implied/.wh..wh..opq", ""),
	)
	if err != nil {
		t.Fatal(err)
	}
	if !isWhiteout(stat(t, fs, "etc/gone")) {
		t.Error("no whiteout")
	}
	for _, d := range []string{"opq", "keptdir", "later", "implied"} {
		if got := attr(filepath.Join(fs, d), "trusted.overlay.opaque"); got != "y" {
			t.Errorf("%s is not opaque: %s", d, got)
		}
	}
	if stat(t, fs, "kept").Mode&unix.S_IFMT != unix.S_IFREG || stat(t, fs, "laterfile").Size != 1 {
		t.Error("files")
	}
	stat(t, fs, "keptdir/f")
	names, _ := filepath.Glob(filepath.Join(fs, ".wh*"))
	if len(names) != 0 || facts.Opaque {
		t.Errorf("left: %v %+v", names, facts)
	}
	_, facts, err = unpackTo(t, Limits{}, file(".wh..wh..opq", ""))
	if err != nil || !facts.Opaque {
		t.Errorf("opaque root: %+v %v", facts, err)
	}
}

func TestLaterReplacesEarlier(t *testing.T) {
	fs, _, err := unpackTo(t, Limits{},
		dir("d"), file("d/sub/f", "old"), file("d", "now a file"),
		file("f", ""), dir("f"), file("f/x", ""),
		symlink("s", "f"), dir("s"), file("s/y", ""),
		file("g", "one"), file("g", "two"), dir("same"), file("same/keep", ""), dir("same"),
		file("h", "h"), hardlink("g2", "g"), hardlink("g2", "h"), dir("t/u"), hardlink("t", "h"),
		entry{tar.Header{Name: "h", Typeflag: tar.TypeFifo}, ""},
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]uint32{"d": unix.S_IFREG, "f": unix.S_IFDIR, "s": unix.S_IFDIR, "h": unix.S_IFIFO, "t": unix.S_IFREG, "same/keep": unix.S_IFREG} {
		if st := stat(t, fs, name); st.Mode&unix.S_IFMT != kind {
			t.Errorf("%s has mode %o", name, st.Mode)
		}
	}
	stat(t, fs, "s/y")
	if _, err := os.Lstat(filepath.Join(fs, "f/y")); err == nil {
		t.Error("followed a symlink that a directory had replaced")
	}
	if body, _ := os.ReadFile(filepath.Join(fs, "g")); string(body) != "two" {
		t.Errorf("g is %q", body)
	}
}

func TestXattrs(t *testing.T) {
	v2 := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	v3 := "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xa0\x86\x01\x00"
	with := func(e entry, kv ...string) entry {
		e.PAXRecords = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			e.PAXRecords[paxXattr+kv[i]] = kv[i+1]
		}
		return e
	}
	forged := []string{"trusted.overlay.opaque", "y", "trusted.overlay.redirect", "/etc", "trusted.overlay.metacopy", "",
		"user.overlay.opaque", "y", "trusted.x", "y", "security.selinux", "u:r:t:s0", "security.ima", "x", "user.kept", "yes"}
	fs, _, err := unpackTo(t, Limits{}, with(file("ping", ""), "security.capability", v2), with(file("ping3", ""), "security.capability", v3),
		with(file("f", ""), forged...), with(dir("d"), forged...), with(symlink("l", "f"), forged...))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ping", "ping3"} {
		if got := attr(filepath.Join(fs, name), "security.capability"); got != v2 {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, name := range []string{"f", "d", "l"} {
		path := filepath.Join(fs, name)
		for i := 0; i < len(forged)-2; i += 2 {
			if got := attr(path, forged[i]); got != unix.ENODATA.Error() && got != unix.EOPNOTSUPP.Error() {
				t.Errorf("%s has %s = %q", name, forged[i], got)
			}
		}
		if got := attr(path, "user.kept"); name != "l" && got != "yes" {
			t.Errorf("%s: user.kept = %q", name, got)
		}
	}
	for _, value := range []string{"x", v3[:22], "\x00\x00\x00\x09" + v2[4:]} {
		if _, _, err := unpackTo(t, Limits{}, with(file("p", ""), "security.capability", value)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// Each of these tries to reach the canary, or anything else outside. Either it
// is refused, or everything stays inside; unpackTo checks the outside.
func TestEscapes(t *testing.T) {
	const deep = "../../../canary"
	cases := map[string]struct {
		entries []entry
		inside  string // made inside when it is not refused
	}{
		"dotdot":                  {entries: []entry{file("../evil", "")}},
		"dotdot inside":           {entries: []entry{dir("a"), file("a/../../evil", "")}},
		"dotdot harmless":         {entries: []entry{dir("a"), file("a/../b", "")}},
		"dotdot at end":           {entries: []entry{dir("a/..")}},
		"absolute":                {[]entry{file("/canary/secret", "x")}, "canary/secret"},
		"symlink absolute":        {entries: []entry{symlink("a", "/canary"), file("a/secret", "x")}},
		"symlink absolute exists": {[]entry{dir("canary"), symlink("a", "/canary"), file("a/secret", "x")}, "canary/secret"},
		"symlink relative":        {entries: []entry{symlink("a", deep), file("a/secret", "x")}},
		"symlink relative exists": {[]entry{dir("canary"), symlink("a", deep), file("a/secret", "x")}, "canary/secret"},
		"symlink dotdot":          {[]entry{symlink("a", ".."), file("a/evil", "x")}, "evil"},
		"symlink chain":           {entries: []entry{symlink("a", "b"), symlink("b", "c"), symlink("c", deep), file("a/secret", "x")}},
		"symlink loop":            {entries: []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "")}},
		"symlink to proc":         {entries: []entry{symlink("a", "/proc/self/cwd"), file("a/evil", "")}},
		"symlink dir entry":       {[]entry{symlink("a", deep), dir("a"), file("a/secret", "x")}, "a/secret"},
		"symlink file over":       {[]entry{symlink("a", deep+"/secret"), file("a", "x")}, "a"},
		"symlink chmod":           {[]entry{symlink("a", deep+"/secret")}, "a"},
		"symlink swapped":         {entries: []entry{dir("a"), file("a/f", ""), symlink("a", deep), file("a/secret", "x")}},
		"hardlink dotdot":         {entries: []entry{hardlink("a", deep+"/secret"), file("a", "x")}},
		"hardlink absolute":       {entries: []entry{hardlink("a", "/canary/secret")}},
		"hardlink by symlink":     {entries: []entry{symlink("s", deep), hardlink("a", "s/secret"), file("a", "x")}},
		"hardlink to symlink":     {[]entry{symlink("s", deep+"/secret"), hardlink("a", "s"), file("a", "x")}, "a"},
		"hardlink under symlink":  {entries: []entry{file("f", ""), symlink("s", deep), hardlink("s/secret", "f")}},
		"hardlink to root":        {entries: []entry{hardlink("a", ".")}},
		"hardlink to itself":      {entries: []entry{file("a", ""), hardlink("a", "a")}},
		"hardlink to directory":   {entries: []entry{dir("d"), hardlink("a", "d")}},
		"hardlink onto itself":    {entries: []entry{dir("d"), symlink("s", "d"), file("d/f", ""), hardlink("s/f", "d/f")}},
		"whiteout dotdot":         {entries: []entry{file(".wh...", "")}},
		"whiteout dot":            {entries: []entry{file(".wh..", "")}},
		"whiteout nothing":        {entries: []entry{file(".wh.", "")}},
		"whiteout in dir dotdot":  {entries: []entry{file("d/.wh...", "")}},
		"whiteout directory":      {entries: []entry{file(".wh.x/y", "")}},
		"whiteout by symlink":     {entries: []entry{symlink("s", deep), file("s/.wh.secret", "")}},
		"opaque by symlink":       {entries: []entry{symlink("s", deep), file("s/.wh..wh..opq", "")}},
		"node by symlink":         {entries: []entry{symlink("s", deep), {tar.Header{Name: "s/n", Typeflag: tar.TypeChar}, ""}}},
		"dir by symlink":          {entries: []entry{symlink("s", deep), dir("s/d/e")}},
		"times by symlink":        {[]entry{dir("a"), dir("a/b"), symlink("a", deep)}, "a"},
		"parent is a file":        {entries: []entry{file("f", ""), file("f/x", "")}},
		"root is a file":          {entries: []entry{file(".", "")}},
		"root is a symlink":       {entries: []entry{symlink(".", deep)}},
		"long component":          {entries: []entry{file(strings.Repeat("n", 256), "")}},
		"long name":               {entries: []entry{file(strings.Repeat("n/", 2100)+"f", "")}},
		"owner too large":         {entries: []entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}, ""}}},
		"owner negative":          {entries: []entry{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Gid: -1, Format: tar.FormatGNU}, ""}}},
		"device node":             {entries: []entry{{tar.Header{Name: "srv/disk", Typeflag: tar.TypeBlock, Devmajor: 8}, ""}}},
		"device node like /dev":   {entries: []entry{{tar.Header{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}}},
		"whiteout as a node":      {entries: []entry{{tar.Header{Name: "etc/passwd", Typeflag: tar.TypeChar}, ""}}},
		"device number":           {entries: []entry{{tar.Header{Name: "f", Typeflag: tar.TypeBlock, Devmajor: 1 << 20, Format: tar.FormatGNU}, ""}}},
		"unknown type":            {entries: []entry{{tar.Header{Name: "f", Typeflag: 'Z', Format: tar.FormatUSTAR}, ""}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			fs, _, err := unpackTo(t, Limits{}, c.entries...)
			if c.inside == "" {
				if err == nil || fault.Is(err, fault.Internal) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			stat(t, fs, c.inside)
		})
	}
}

func TestLimits(t *testing.T) {
	many := []entry{}
	for i := range 50 {
		many = append(many, dir(fmt.Sprint("d", i)))
	}
	long := file("f", "")
	long.PAXRecords = map[string]string{paxXattr + "user.x": strings.Repeat("x", 200)}
	lots := file("f", "")
	lots.PAXRecords = map[string]string{}
	for i := range 20 {
		lots.PAXRecords[fmt.Sprint(paxXattr, "user.", i)] = "x"
	}
	cases := map[string]struct {
		lim     Limits
		entries []entry
	}{
		"entries":    {Limits{Entries: 40}, many},
		"parents":    {Limits{Entries: 40}, []entry{file(strings.Repeat("d/", 50)+"f", "")}},
		"bytes":      {Limits{Bytes: 10}, []entry{file("a", "123456"), file("b", "12345")}},
		"stream":     {Limits{Stream: 1000}, many},
		"name":       {Limits{Name: 10}, []entry{file("a-long-name", "")}},
		"link":       {Limits{Name: 10}, []entry{hardlink("a", "a-long-name")}},
		"names":      {Limits{NameBytes: 1000}, many},
		"xattr size": {Limits{Xattr: 100}, []entry{long}},
		"xattrs":     {Limits{Xattrs: 10}, []entry{lots}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if _, _, err := unpackTo(t, c.lim, c.entries...); !fault.Is(err, fault.Exhausted) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDamagedStreams(t *testing.T) {
	needRoot(t)
	whole := layer(t, file("a", strings.Repeat("a", 5000)), file("b", "b"))
	rotten := bytes.Clone(whole)
	rotten[512+5120+3] ^= 0xff // in the name of b: the checksum no longer holds
	told := fault.New(fault.Corrupt, "verify", "layer", "digest differs", "")
	cases := map[string]struct {
		r     io.Reader
		class fault.Class
	}{
		"cut in content": {bytes.NewReader(whole[:3000]), fault.Corrupt},
		"cut in header":  {bytes.NewReader(whole[:700+5120]), fault.Corrupt},
		"rotten header":  {bytes.NewReader(rotten), fault.Corrupt},
		"no tar":         {strings.NewReader(strings.Repeat("this is no tar ", 100)), fault.Corrupt},
		"told at end":    {io.MultiReader(bytes.NewReader(whole), failing{told}), fault.Corrupt},
		"io error":       {io.MultiReader(bytes.NewReader(whole[:3000]), failing{unix.EIO}), fault.Internal},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Tar(context.Background(), openDir(t, t.TempDir()), c.r, Limits{})
			if err == nil || fault.ClassOf(err) != c.class {
				t.Errorf("got %v", err)
			}
		})
	}
	trailing := append(bytes.Clone(whole), "anything"...)
	r := bytes.NewReader(trailing)
	if _, err := Tar(context.Background(), openDir(t, t.TempDir()), r, Limits{}); err != nil || r.Len() != 0 {
		t.Errorf("trailing data: %v, %d left unread", err, r.Len())
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCanceled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Tar(ctx, openDir(t, t.TempDir()), bytes.NewReader(layer(t, file("a", ""))), Limits{})
	if !fault.Is(err, fault.Canceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A sparse file of a gigabyte costs no space, and one over the
// limit is refused before anything is written.
func TestSparse(t *testing.T) {
	needRoot(t)
	const size = 1 << 30
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := "1\n0\n512\n"
	body += strings.Repeat("\x00", 512-len(body)) + strings.Repeat("x", 512)
	h := tar.Header{Name: "GNUSparseFile.0/big", Typeflag: tar.TypeReg, Size: int64(len(body)), Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"FIEF.x": "1"}}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, body)
	w.Close()
	raw := b.Bytes()
	records := paxRecord("GNU.sparse.major", "1") + paxRecord("GNU.sparse.minor", "0") + paxRecord("GNU.sparse.name", "big") +
		paxRecord("GNU.sparse.realsize", fmt.Sprint(int64(size)))
	raw = withPax(t, raw, records)
	top := t.TempDir()
	facts, err := Tar(context.Background(), openDir(t, top), bytes.NewReader(raw), Limits{})
	if err != nil || facts.Bytes != size {
		t.Fatalf("%+v %v", facts, err)
	}
	if st := stat(t, top, "big"); st.Size != size || st.Blocks > 64 {
		t.Errorf("size %d, %d blocks", st.Size, st.Blocks)
	}
	_, err = Tar(context.Background(), openDir(t, t.TempDir()), bytes.NewReader(raw), Limits{Bytes: size - 1})
	if !fault.Is(err, fault.Exhausted) {
		t.Errorf("got %v", err)
	}
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for len(fmt.Sprint(n))+len(key)+len(value)+3 != n {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// withPax replaces the content of the archive's first extended header, which
// archive/tar does not let anyone write sparse records into.
func withPax(t *testing.T, raw []byte, records string) []byte {
	t.Helper()
	out := bytes.Clone(raw)
	if out[156] != 'x' || len(records) > 512 {
		t.Fatal("not the layout this test knows")
	}
	copy(out[124:136], fmt.Sprintf("%011o\x00", len(records)))
	clear(out[512:1024])
	copy(out[512:], records)
	copy(out[148:156], "        ")
	sum := 0
	for _, c := range out[:512] {
		sum += int(c)
	}
	copy(out[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return out
}

// A full file system is an Exhausted fault, not a half-made layer that counts.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	root, err := os.OpenFile(mnttest.SmallFS(t, "512k"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = Tar(context.Background(), root, bytes.NewReader(layer(t, file("a", strings.Repeat("a", 1<<20)))), Limits{})
	if !fault.Is(err, fault.Exhausted) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// More directories than are held open, visited in turns.
func TestManyDirectories(t *testing.T) {
	var entries []entry
	for round := range 3 {
		for i := range 3 * maxOpen {
			entries = append(entries, file(fmt.Sprintf("d%d/f%d", i, round), ""))
		}
	}
	entries = append(entries, hardlink("d1/link", "d300/f0"), hardlink("d300/f1", "d2/f2"))
	fds := countFDs(t)
	fs, facts, err := unpackTo(t, Limits{}, entries...)
	if err != nil {
		t.Fatal(err)
	}
	if facts.Files != int64(len(entries))+3*maxOpen || stat(t, fs, "d1/link").Ino != stat(t, fs, "d300/f0").Ino {
		t.Errorf("%+v", facts)
	}
	if now := countFDs(t); now > fds+1 { // the directory itself, until the test ends
		t.Errorf("%d descriptors, %d before", now, fds)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
