// Package copy copies files into and out of containers with fief and with the
// unmodified docker client.
package copy

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// clients are the commands there are.
func clients() []string {
	if _, err := exec.LookPath("docker"); err != nil {
		return []string{"fief"}
	}
	return []string{"fief", "docker"}
}

type file struct {
	name, text string // text: content; "→x": a link; "/": a directory
	uid        int
}

// sources is what is copied, below s; places is where it goes, below d.
var (
	sources = []file{{"s", "/", 0}, {"s/file", "text", 33}, {"s/dir", "/", 33}, {"s/dir/one", "1", 33}, {"s/dir/sub", "/", 0}, {"s/dir/sub/two", "2", 1000},
		{"s/link", "→file", 33}, {"s/dlink", "→dir", 0}}
	places = []file{{"d", "/", 0}, {"d/old", "old", 0}, {"d/into", "/", 0}, {"d/lnk", "→into", 0}, {"d/flnk", "→old", 0}}
)

func pack(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Uid: f.uid, Gid: f.uid, Size: int64(len(f.text))}
		if f.text == "/" {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		if to, is := strings.CutPrefix(f.text, "→"); is {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			io.WriteString(w, f.text)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// list says what is in an archive, without its first entry.
func list(t *testing.T, archive []byte) string {
	t.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(strings.TrimPrefix(h.Name, "."), "/")
		if name == "" {
			continue
		}
		text, _ := io.ReadAll(r)
		switch h.Typeflag {
		case tar.TypeDir:
			name += "/"
		case tar.TypeSymlink:
			name += "→" + h.Linkname
		default:
			name += "=" + string(text)
		}
		out = append(out, name)
	}
}

func (h *house) feed(t *testing.T, archive []byte, container, path string) {
	t.Helper()
	cmd := h.d.Command(t, "fief", "cp", "-", container+":"+path)
	cmd.Stdin = bytes.NewReader(archive)
	if out, errs, code := testenv.Output(t, cmd); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
}

// house is a daemon with a directory of the test's.
type house struct {
	d      *testenv.Daemon
	dir    string
	places int
}

func open(t *testing.T) *house {
	t.Helper()
	d := testenv.Start(t)
	d.Busybox(t)
	return &house{d: d, dir: t.TempDir()}
}

func (h *house) local(t *testing.T, archive []byte) {
	t.Helper()
	cmd := exec.Command("tar", "-C", h.dir, "-xf", "-")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

const was = "flnk→old into/ lnk→into old=old"

// cases are those of docker-cp(1)'s table, and links. want is what there is
// below d besides what was there, or with "!" a part of what is said.
var cases = []struct{ flags, src, dst, want string }{
	{"", "s/file", "d/new", "flnk→old into/ lnk→into new=text old=old"},
	{"", "s/file", "d/new/", "!no such directory"},
	{"", "s/file", "d/old", "flnk→old into/ lnk→into old=text"},
	{"", "s/file", "d/old/", "!director"},
	{"", "s/file", "d/into", "flnk→old into/ into/file=text lnk→into old=old"},
	{"", "s/file", "d/into/", "flnk→old into/ into/file=text lnk→into old=old"},
	{"", "s/file", "d/into/.", "flnk→old into/ into/file=text lnk→into old=old"},
	{"", "s/file", "d/lnk", "flnk→old into/ into/file=text lnk→into old=old"},
	{"", "s/file", "d/flnk", "flnk→old into/ lnk→into old=text"},
	{"", "s/file", "d/no/new", "!Could not find the file /d/no|does not exist"},
	{"", "s/none", "d/new", "!Could not find the file /s/none|no such file"},
	{"", "s/file/", "d/new", "!not a directory"},
	{"", "s/dir", "d/new", "flnk→old into/ lnk→into new/ new/one=1 new/sub/ new/sub/two=2 old=old"},
	{"", "s/dir", "d/new/", "flnk→old into/ lnk→into new/ new/one=1 new/sub/ new/sub/two=2 old=old"},
	{"", "s/dir/.", "d/new", "flnk→old into/ lnk→into new/ new/one=1 new/sub/ new/sub/two=2 old=old"},
	{"", "s/dir", "d/into", "flnk→old into/ into/dir/ into/dir/one=1 into/dir/sub/ into/dir/sub/two=2 lnk→into old=old"},
	{"", "s/dir/", "d/into", "flnk→old into/ into/dir/ into/dir/one=1 into/dir/sub/ into/dir/sub/two=2 lnk→into old=old"},
	{"", "s/dir/.", "d/into", "flnk→old into/ into/one=1 into/sub/ into/sub/two=2 lnk→into old=old"},
	{"", "s/dir", "d/old", "!cannot copy directory"},
	{"", "s/dir/.", "d/old", "!cannot copy directory"},
	{"", "s/link", "d/into", "flnk→old into/ into/link→file lnk→into old=old"},
	{"-L", "s/link", "d/into", "flnk→old into/ into/link=text lnk→into old=old"},
	{"-L", "s/link", "d/new", "flnk→old into/ lnk→into new=text old=old"},
	{"", "s/dlink", "d/into", "flnk→old into/ into/dlink→dir lnk→into old=old"},
	{"-L", "s/dlink", "d/into", "flnk→old into/ into/dlink/ into/dlink/one=1 into/dlink/sub/ into/dlink/sub/two=2 lnk→into old=old"},
	{"", "s/dlink/.", "d/into", "flnk→old into/ into/one=1 into/sub/ into/sub/two=2 lnk→into old=old"},
}

func TestTable(t *testing.T) {
	h := open(t)
	h.local(t, pack(t, sources))
	for _, container := range []struct{ name, verb, userns string }{
		{"mapped", "run", "auto"}, {"mapped-still", "create", "auto"}, {"host", "run", "host"}, {"host-still", "create", "host"},
	} {
		args := []string{container.verb, "--name", container.name, "--userns", container.userns, "busybox", "sleep", "1000"}
		if container.verb == "run" {
			args = slices.Insert(args, 1, "-d")
		}
		h.d.Must(t, args...)
		h.feed(t, pack(t, sources), container.name, "/")
		for _, client := range clients() {
			if container.userns == "host" && (client == "docker") != (container.name == "host-still") {
				continue // one of the two is enough to see that owners are the host's
			}
			t.Run(container.name+"/"+client, func(t *testing.T) { h.table(t, container.name, client) })
		}
	}
}

func (h *house) table(t *testing.T, container, client string) {
	for _, c := range cases {
		if err := os.RemoveAll(h.dir + "/d"); err != nil {
			t.Fatal(err)
		}
		h.local(t, pack(t, places))
		h.one(t, client, c.flags, container+":/"+c.src, h.dir+"/"+c.dst, c.want, func() []byte {
			out, _, _ := testenv.Output(t, exec.Command("tar", "-C", h.dir+"/d", "-cf", "-", "."))
			return []byte(out)
		})
		// A place of its own, as nothing can be removed from one that does not run.
		h.places++
		place := fmt.Sprintf("/p%d", h.places)
		h.feed(t, pack(t, append([]file{{place, "/", 0}}, below(place, places)...)), container, "/")
		want := strings.ReplaceAll(c.want, "/d/no", place+"/d/no")
		h.one(t, client, c.flags, h.dir+"/"+c.src, container+":"+place+"/"+c.dst, want, func() []byte {
			return []byte(h.d.Must(t, "cp", container+":"+place+"/d/.", "-"))
		})
	}
}

func below(dir string, files []file) (out []file) {
	for _, f := range files {
		out = append(out, file{dir + "/" + f.name, f.text, f.uid})
	}
	return out
}

// one copies, and looks at what came of it.
func (h *house) one(t *testing.T, client, flags, src, dst, want string, look func() []byte) {
	t.Helper()
	args := append(append([]string{"cp"}, strings.Fields(flags)...), src, dst)
	_, errs, code := testenv.Output(t, h.d.Command(t, client, args...))
	parts, fails := strings.CutPrefix(want, "!")
	if !fails {
		if got := list(t, look()); code != 0 || got != want {
			t.Errorf("%s %s: exit %d %s\n%s\nwant %s", client, strings.Join(args, " "), code, errs, got, want)
		}
		return
	}
	said := slices.ContainsFunc(strings.Split(parts, "|"), func(part string) bool { return strings.Contains(errs, part) })
	if got := list(t, look()); code != 1 || !said || got != was {
		t.Errorf("%s %s: exit %d %s\n%s\nwant %s", client, strings.Join(args, " "), code, errs, got, want)
	}
}
