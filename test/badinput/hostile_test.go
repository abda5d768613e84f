package badinput

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/image"
	"fief/internal/image/registrytest"
	"fief/internal/snapshot"
	"fief/internal/snapshot/unpack"
	"fief/internal/store"
	"fief/internal/testenv"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"golang.org/x/sys/unix"
)

// hostile is one input made to do harm. It is refused with an error that holds
// want, or, with harmless set, taken, and inside checks what became of it.
type hostile struct {
	name     string
	want     string
	harmless bool
	layer    []byte                // a layer's tar; an image is put around it
	archive  []byte                // or a whole archive
	stream   io.Reader             // or one without an end
	pull     func(*registry)       // or what a registry does
	inside   func(fs string) error // looks at the layer's directory
}

// victim is the real store, in this process, beside a tree that nobody may touch.
type victim struct {
	top    string
	images *image.Store
	snaps  *snapshot.Store
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	testenv.NeedRoot(t)
	v := &victim{top: t.TempDir()}
	canary := v.top + "/canary"
	for _, err := range []error{
		os.MkdirAll(canary+"/dir/deep", 0o755), os.MkdirAll(v.top+"/data", 0o700),
		os.WriteFile(canary+"/secret", []byte("untouched"), 0o600), os.WriteFile(canary+"/dir/suid", []byte("#!"), 0o755),
		os.Chmod(canary+"/dir/suid", 0o4755), os.Symlink("secret", canary+"/link"), os.Link(canary+"/secret", canary+"/hard"),
		unix.Mkfifo(canary+"/fifo", 0o600), unix.Lsetxattr(canary+"/dir", "trusted.canary", []byte("sings"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := store.Open(v.top + "/data/state.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if v.snaps, err = snapshot.Open(v.top+"/data", snapshot.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.snaps.Close)
	v.images, err = image.Open(v.top+"/data", db.Bucket("images"), trees{v.snaps}, image.Options{Platform: "linux/amd64", Insecure: []string{"127.0.0.0/8"}, Stall: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.images.Close() })
	return v
}

// trees joins the two rooms as the daemon does.
type trees struct{ s *snapshot.Store }

func (l trees) Has(diffID string) bool     { return l.s.HasLayer(diffID) }
func (l trees) Remove(diffID string) error { return l.s.RemoveLayer(diffID) }
func (l trees) Unpack(ctx context.Context, diffID string, r io.Reader) (record.Layer, error) {
	b, err := l.s.Build(diffID)
	if err != nil {
		return record.Layer{}, err
	}
	defer b.Abort()
	facts, err := unpack.Tar(ctx, b.Dir, r, unpack.Limits{})
	if err == nil {
		err = b.Commit()
	}
	return record.Layer{DiffID: diffID, Size: facts.Bytes, Files: facts.Files}, err
}

// outside is everything about the canary and all else that is not the store's.
func (v *victim) outside(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(v.top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == v.top+"/data" {
			return firstOf(err, fs.SkipDir)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		var attr [16]byte
		n, _ := unix.Lgetxattr(path, "trusted.canary", attr[:])
		fmt.Fprintln(&b, path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim, st.Ctim, max(n, 0))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// stored is what the store holds; everything under way has ended.
func (v *victim) stored(t *testing.T) string {
	t.Helper()
	out := fmt.Sprint(len(v.images.List()), " images")
	for _, dir := range []string{"layers", "blobs/sha256", "ingest"} {
		names, err := os.ReadDir(filepath.Join(v.top, "data", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			out += " " + dir + "/" + n.Name()
		}
	}
	return out
}

func (v *victim) take(c hostile) ([]record.Image, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	switch {
	case c.pull != nil:
		r := newRegistry()
		c.pull(r)
		s := httptest.NewServer(r)
		defer s.Close()
		defer s.CloseClientConnections()
		img, err := v.images.Pull(ctx, ask.PullImage{Name: strings.TrimPrefix(s.URL, "http://") + "/app"}, nil)
		return []record.Image{img}, err
	case c.layer != nil:
		return v.images.Load(ctx, ask.LoadImages{}, bytes.NewReader(registrytest.Plain(c.layer).DockerArchive("evil:1")), nil)
	case c.stream != nil:
		return v.images.Load(ctx, ask.LoadImages{}, c.stream, nil)
	}
	return v.images.Load(ctx, ask.LoadImages{}, bytes.NewReader(c.archive), nil)
}

func TestHostileImages(t *testing.T) {
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm") // what is written durably is thrown away at once
	}
	v := newVictim(t)
	cases := hostileCases(v.top + "/canary")
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.name] {
			t.Errorf("two cases are called %q", c.name)
		}
		seen[c.name] = true
		t.Run(c.name, func(t *testing.T) { v.meet(t, c) })
	}
	t.Logf("%d cases", len(seen))
	if len(seen) < 150 {
		t.Errorf("only %d cases", len(seen))
	}
}

// meet gives the store one input, and undoes what it made of it.
func (v *victim) meet(t *testing.T, c hostile) {
	outside, before := v.outside(t), v.stored(t)
	began := time.Now()
	list, err := v.take(c)
	switch {
	case c.harmless && err != nil:
		t.Errorf("refused: %v", err)
	case !c.harmless && err == nil:
		t.Errorf("taken")
	case !c.harmless && (!strings.Contains(err.Error(), c.want) || len(err.Error()) < 10):
		t.Errorf("%v; want an error with %q", err, c.want)
	case !c.harmless && (fault.ClassOf(err) == fault.Internal || fault.ClassOf(err) == fault.Canceled):
		t.Errorf("an error of class %v: %v", fault.ClassOf(err), err)
	}
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	}
	if err == nil {
		for _, img := range list {
			v.look(t, c, img)
			if _, err := v.images.Remove(img.ID, true, func(string) []image.Use { return nil }); err != nil {
				t.Error(err)
			}
		}
	}
	if now := v.outside(t); now != outside {
		t.Errorf("outside was\n%s\nis\n%s", outside, now)
	}
	if now := v.stored(t); now != before {
		t.Errorf("the store had\n%s\nhas\n%s", before, now)
	}
}

func (v *victim) look(t *testing.T, c hostile, img record.Image) {
	if c.inside == nil || len(img.Layers) == 0 {
		return
	}
	dir, err := v.snaps.LayerDir(img.Layers[len(img.Layers)-1].DiffID)
	if err == nil {
		err = c.inside(dir)
	}
	if err != nil {
		t.Error(err)
	}
}

// The ways to write a layer down.

type h = tar.Header

func tarOf(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.h.Size = int64(len(e.body))
		if e.h.Mode == 0 {
			e.h.Mode = 0o644
		}
		if err := w.WriteHeader(&e.h); err != nil {
			panic(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func folder(name string) entry { return entry{h{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""} }

func sym(name, to string) entry { return link(tar.TypeSymlink, name, to) }

func hard(name, to string) entry { return link(tar.TypeLink, name, to) }

func special(kind byte, name string, major, minor int64) entry {
	return entry{h{Name: name, Typeflag: kind, Devmajor: major, Devminor: minor}, ""}
}

func attrs(e entry, kv ...string) entry {
	e.h.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		e.h.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
	}
	return e
}

// changed rewrites the first header of a tar by hand and mends its checksum.
func changed(raw []byte, change func(block []byte)) []byte {
	out := bytes.Clone(raw)
	change(out[:512])
	return summed(out)
}

func summed(out []byte) []byte {
	copy(out[148:156], "        ")
	sum := 0
	for _, c := range out[:512] {
		sum += int(c)
	}
	copy(out[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return out
}

// put writes a field of a header.
func put(at int, field string) func([]byte) { return func(b []byte) { copy(b[at:], field) } }

// pax is an extended header with these records before entries.
func pax(records string, entries ...entry) []byte {
	head := tarOf(entry{h{Name: "PaxHeaders/x", Typeflag: tar.TypeReg}, records})
	head = changed(head, func(b []byte) { b[156] = 'x' })
	return append(head[:len(head)-1024], tarOf(entries...)...)
}

func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for len(fmt.Sprint(n))+len(key)+len(value)+3 != n {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

// What must be true of a layer that was taken.

func has(name string) func(string) error {
	return func(fs string) error { _, err := os.Lstat(filepath.Join(fs, name)); return err }
}

func hasNot(name string) func(string) error {
	return func(fs string) error {
		if _, err := os.Lstat(filepath.Join(fs, name)); !os.IsNotExist(err) {
			return fmt.Errorf("%s is there: %v", name, err)
		}
		return nil
	}
}

func holds(name, content string) func(string) error {
	return func(fs string) error {
		b, err := os.ReadFile(filepath.Join(fs, name))
		if err == nil && string(b) != content {
			err = fmt.Errorf("%s holds %.40q", name, b)
		}
		return err
	}
}

func noAttr(name, attr string) func(string) error {
	return func(fs string) error {
		var b [256]byte
		if n, err := unix.Lgetxattr(filepath.Join(fs, name), attr, b[:]); err == nil {
			return fmt.Errorf("%s has %s=%q", name, attr, b[:n])
		}
		return nil
	}
}
