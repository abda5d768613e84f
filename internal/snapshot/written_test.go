package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/snapshot/unpack"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

var newID = "sha256:" + strings.Repeat("3", 64)

// layersOfTest are those of the conformance test without the device node, which
// no unpacked layer has, and the holes, which no tar has.
func layersOfTest(t *testing.T, s *Store) {
	t.Helper()
	makeLayers(t, s)
	dir, err := s.LayerDir(lowID)
	if err != nil {
		t.Fatal(err)
	}
	must(t, os.Remove(filepath.Join(dir, "null")), os.Remove(filepath.Join(dir, "sparse")))
}

// unpacked makes a tar a layer of the store.
func unpacked(t *testing.T, s *Store, id string, raw []byte) unpack.Facts {
	t.Helper()
	b, err := s.Build(id)
	if err != nil {
		t.Fatal(err)
	}
	facts, err := unpack.Tar(context.Background(), b.Dir, bytes.NewReader(raw), unpack.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	return facts
}

func written(t *testing.T, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func layerOf(t *testing.T, s *Store, w Written) []byte {
	t.Helper()
	return written(t, func(to io.Writer) error {
		_, err := s.WriteLayer(context.Background(), to, w)
		return err
	})
}

func exportOf(t *testing.T, s *Store, w Written) []byte {
	t.Helper()
	return written(t, func(to io.Writer) error { return s.Export(context.Background(), to, w) })
}

// TestWritten: what a mapped container did is the same in an image of it, under
// another map, under none, and in its export; whatever the way.
func TestWritten(t *testing.T) {
	dir := mnttest.FileSystem(t, "xfs")
	for _, c := range []struct{ store, asked shift.Way }{
		{shift.Idmapped, ""}, {shift.Attached, ""}, {shift.Metacopy, ""}, {shift.Reflink, ""}, {shift.Copy, ""},
		{shift.Idmapped, shift.Metacopy}, {shift.Idmapped, shift.Reflink}, {shift.Attached, shift.Copy}, {shift.Copy, shift.Idmapped},
	} {
		t.Run(string(c.store)+"/"+string(c.asked), func(t *testing.T) {
			root := filepath.Join(dir, string(c.store+c.asked))
			t.Cleanup(func() { os.RemoveAll(root) }) // they do not fit together
			writtenByWay(t, openStore(t, root, Options{Force: c.store}), c.asked)
		})
	}
}

// writtenByWay is for a container of the store's way, or of one that it asks for.
func writtenByWay(t *testing.T, s *Store, asked shift.Way) {
	layersOfTest(t, s)
	pair := pairOf(t, 1<<20)
	w := Written{Upper: newUpper(t, s), Layers: []string{lowID, topID}, Pair: pair, Way: string(asked)}
	var did, want map[string]string
	m, err := s.Maps(pair, string(asked))
	if fault.Is(err, fault.Unsupported) {
		t.Skip("kernel: " + err.Error())
	}
	must(t, err)
	defer m.Close()
	request := Request{Mapped: m, Layers: w.Layers, Upper: w.Upper}
	withRoot(t, s, request, func(r *Root) { inside(t, pair, r, "work", &did) })
	withRoot(t, s, request, func(r *Root) {
		inside(t, pair, r, "list", &want)
		checkChanges(t, s, w) // while it is mounted
	})
	raw := layerOf(t, s, w)
	facts := unpacked(t, s, newID, raw)
	if facts.MaxUID != 1000 || facts.MaxGID != 1000 {
		t.Errorf("highest owners %d:%d", facts.MaxUID, facts.MaxGID)
	}
	if again := layerOf(t, s, w); !bytes.Equal(raw, again) {
		t.Error("two tars of one upper differ")
	}
	whole := "sha256:" + strings.Repeat("4", 64)
	unpacked(t, s, whole, exportOf(t, s, w))
	for _, p := range []idmap.Pair{{}, pairOf(t, 3<<20)} {
		for id, layers := range map[string][]string{"commit": {lowID, topID, newID}, "export": {whole}} {
			var got map[string]string
			withRoot(t, s, Request{Mapped: mapsOf(t, s, p), Layers: layers, Upper: newUpper(t, s)}, func(r *Root) { inside(t, p, r, "list", &got) })
			same(t, id, unlinked(got), unlinked(want))
		}
	}
	for _, id := range []string{newID, whole} {
		dir, _ := s.LayerDir(id)
		if got := attr(filepath.Join(dir, "capped"), "security.capability"); got != string(rawCap()) {
			t.Errorf("capabilities %q", got)
		}
		if got := aclOf(filepath.Join(dir, "newdir")); got != "u1000:7" {
			t.Errorf("ACL %q", got)
		}
	}
}

// unlinked takes the numbers of links out: they change where a layer has but
// some names of a file.
func unlinked(list map[string]string) map[string]string {
	out := map[string]string{}
	for path, e := range list {
		f := strings.Fields(e)
		if len(f) > 3 && f[2] == "links" {
			f = slices.Delete(f, 2, 4)
		}
		out[path] = strings.Join(f, " ")
	}
	return out
}

func checkChanges(t *testing.T, s *Store, w Written) {
	t.Helper()
	list, err := s.Changes(context.Background(), w)
	if err != nil {
		t.Fatal(err)
	}
	const want = "C /acl,C /bin,C /bin/caps,C /bin/caps/who,C /bin/setuid,C /bin/setuid/who,A /capped,C /defacl,A /defacl/new,C /dir,C /hard1,C /hard2,A /hard3,D /lowlink,A /moved2,A /moved2/file,A /new,A /newcaps,A /newcaps/who,A /newdir,A /newsetuid,A /newsetuid/who,D /opaque,D /other,C /owned,C /plain,A /renamed,C /tree,D /tree/deep"
	if got := printed(list); got != want {
		t.Errorf("changes %s\nwant    %s", got, want)
	}
}

func printed(list []record.Change) string {
	var out []string
	for _, c := range list {
		out = append(out, c.Kind.String()+" "+c.Path)
	}
	return strings.Join(out, ",")
}

// TestUnwritten: a container that was never started, or wrote nothing.
func TestUnwritten(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	layersOfTest(t, s)
	w := Written{Upper: newUpper(t, s), Layers: []string{lowID, topID}, Pair: pairOf(t, 1<<20)}
	for _, started := range []bool{false, true} {
		if started {
			withRoot(t, s, Request{Mapped: mapsOf(t, s, w.Pair), Layers: w.Layers, Upper: w.Upper}, func(r *Root) {
				must(t, unix.Mkdirat(int(r.FD.Fd()), "proc", 0o755), unix.Mkdirat(int(r.FD.Fd()), "etc", 0o755),
					unix.Mknodat(int(r.FD.Fd()), "etc/hosts", unix.S_IFREG|0o644, 0))
			})
		}
		list, err := s.Changes(context.Background(), w)
		if err != nil || len(list) != 0 && printed(list) != "A /etc" {
			t.Error(printed(list), err)
		}
		if n := len(entries(t, layerOf(t, s, w))); n > 0 && !started {
			t.Errorf("%d entries", n)
		}
		if got := entries(t, exportOf(t, s, w)); got["plain"] == nil || got["opaque/hidden"] != nil || got["gone"] != nil {
			t.Error("export", slices.Sorted(maps.Keys(got)))
		}
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, raw []byte) map[string]*tar.Header {
	t.Helper()
	out := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h
	}
}

// mounted attaches a root file system without a map and gives its path to do.
func mounted(t *testing.T, s *Store, w Written, do func(dir string)) {
	t.Helper()
	withRoot(t, s, Request{Mapped: mapsOf(t, s, w.Pair), Layers: w.Layers, Upper: w.Upper}, func(r *Root) {
		dir := t.TempDir()
		must(t, mnt.AttachPath(r.FD, dir))
		do(dir)
		must(t, mnt.Detach(dir))
	})
}

// TestUnspeakable: what a layer cannot say is refused by name, not left out.
func TestUnspeakable(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(path string) error
		path string
	}{
		"whiteout": {func(p string) error { return os.WriteFile(p, nil, 0o600) }, ".wh.passwd"},
		"node":     {func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))) }, "disk"},
		"attribute": {func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), unix.Setxattr(p, "user.a=b", []byte("x"), 0))
		}, "f"},
		"nested root": {func(p string) error {
			raw := append(rawCap(), 0xe8, 3, 0, 0)
			raw[3] = 3
			return errors.Join(os.WriteFile(p, nil, 0o600), unix.Setxattr(p, "security.capability", raw, 0))
		}, "capped"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			w := Written{Upper: newUpper(t, s)}
			mounted(t, s, w, func(dir string) { must(t, c.do(filepath.Join(dir, c.path))) })
			_, err := s.WriteLayer(context.Background(), io.Discard, w)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.path) || fault.HintOf(err) == "" {
				t.Error(err)
			}
			if _, err := s.Changes(context.Background(), w); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLeftOut: sockets, nodes in /dev, and what overlayfs and the host note.
func TestLeftOut(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	w := Written{Upper: newUpper(t, s)}
	mounted(t, s, w, func(dir string) {
		must(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0), os.Mkdir(filepath.Join(dir, "dev"), 0o755),
			unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
			os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), unix.Setxattr(filepath.Join(dir, "f"), "trusted.x", []byte("x"), 0),
			unix.Setxattr(filepath.Join(dir, "f"), "user.overlay.whiteout", []byte("y"), 0))
	})
	got := entries(t, layerOf(t, s, w))
	if len(got) != 2 || got["f"] == nil || got["dev/"] == nil || len(got["f"].PAXRecords) > 1 {
		t.Error(got)
	}
}

// TestRootChanged: / itself is a part of what a container can change.
func TestRootChanged(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	w := Written{Upper: newUpper(t, s)}
	mounted(t, s, w, func(dir string) { must(t, os.Chown(dir, 7, 8), os.Chmod(dir, 0o711)) })
	for what, raw := range map[string][]byte{"layer": layerOf(t, s, w), "export": exportOf(t, s, w)} {
		if h := entries(t, raw)["./"]; h == nil || h.Uid != 7 || h.Gid != 8 || h.Mode != 0o711 {
			t.Error(what, h)
		}
	}
}

// TestOwnersOutside: host ids that no map has, where uppers have host ids.
func TestOwnersOutside(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{Force: shift.Copy})
	w := Written{Upper: newUpper(t, s)}
	mounted(t, s, w, func(dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600), os.Chown(filepath.Join(dir, "f"), 5, 1<<20))
	})
	w.Pair = pairOf(t, 1<<20)
	for _, write := range []func() error{
		func() error { _, err := s.WriteLayer(context.Background(), io.Discard, w); return err },
		func() error { return s.Export(context.Background(), io.Discard, w) },
	} {
		if err := write(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "host id 5") {
			t.Error(err)
		}
	}
}

// TestMounterIsRoot: what the host's root made in a mapped root file system is
// the container root's, not the stand-in's that is on disk.
func TestMounterIsRoot(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	w := Written{Upper: newUpper(t, s), Pair: pairOf(t, 1<<20)}
	mounted(t, s, w, func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600)) })
	if h := entries(t, layerOf(t, s, w))["f"]; h == nil || h.Uid != 0 || h.Gid != 0 {
		t.Error(h)
	}
	w.Pair = idmap.Pair{}
	if h := entries(t, layerOf(t, s, w))["f"]; s.way != shift.Copy && (h == nil || h.Uid != idmap.Max) {
		t.Error(h)
	}
}

func TestWriteEnds(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	w := Written{Upper: newUpper(t, s)}
	mounted(t, s, w, func(dir string) { must(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<20), 0o600)) })
	ctx, cancel := context.WithCancel(context.Background())
	full := fault.New(fault.Exhausted, "write", "blob", "no space", "")
	for _, write := range []func(context.Context, io.Writer) error{
		func(ctx context.Context, to io.Writer) error { _, err := s.WriteLayer(ctx, to, w); return err },
		func(ctx context.Context, to io.Writer) error { return s.Export(ctx, to, w) },
	} {
		if err := write(ctx, failingWriter{full}); !errors.Is(err, full) {
			t.Error(err)
		}
		if err := write(ctx, failingWriter{unix.EPIPE}); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	}
	cancel()
	if _, err := s.WriteLayer(ctx, io.Discard, w); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
	if _, err := s.Changes(ctx, w); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
	if err := s.Export(context.Background(), io.Discard, Written{Upper: w.Upper, Host: true}); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
	if err := s.Export(context.Background(), io.Discard, Written{Upper: "../../etc"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestRandomTrees: whatever is done to a root file system, an image of it and
// its export are the same tree again, and the changes are what is found by
// comparing before and after.
func TestRandomTrees(t *testing.T) {
	for seed := range int64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{})
			r := rand.New(rand.NewSource(seed))
			buildLayer(t, s, lowID, func(dir string) { scribble(r, dir, 60) })
			w := Written{Upper: newUpper(t, s), Layers: []string{lowID}}
			mounted(t, s, w, func(dir string) { scribble(r, dir, 40) })
			unpacked(t, s, topID, layerOf(t, s, w))
			w = Written{Upper: newUpper(t, s), Layers: []string{lowID, topID}}
			var before, after map[string]string
			mounted(t, s, w, func(dir string) {
				before = tree(t, dir)
				scribble(r, dir, 80)
				after = tree(t, dir)
			})
			list, err := s.Changes(context.Background(), w)
			if want := compared(before, after); err != nil || printed(list) != want {
				t.Errorf("changes %s %v\nwant    %s", printed(list), err, want)
			}
			unpacked(t, s, newID, layerOf(t, s, w))
			whole := "sha256:" + strings.Repeat("4", 64)
			unpacked(t, s, whole, exportOf(t, s, w))
			for _, layers := range [][]string{{lowID, topID, newID}, {whole}} {
				mounted(t, s, Written{Upper: newUpper(t, s), Layers: layers}, func(dir string) {
					same(t, fmt.Sprint(len(layers)), tree(t, dir), after)
				})
			}
		})
	}
}

// scribble does n random things below dir. Names are hostile and few, so that
// they meet.
func scribble(r *rand.Rand, dir string, n int) {
	names := []string{"a", "b", "c\n", "d \xff", "-e", "f\\", "g..", strings.Repeat("h", 255)}
	pick := func() string {
		path := dir
		for range 1 + r.Intn(4) {
			path += "/" + names[r.Intn(len(names))]
		}
		return path
	}
	for range n {
		p, q := pick(), pick()
		switch r.Intn(16) {
		case 0, 1, 2, 3:
			os.MkdirAll(filepath.Dir(p), 0o755)
			os.WriteFile(p, make([]byte, r.Intn(9000)), 0o644)
		case 4, 5:
			os.MkdirAll(p, 0o755)
		case 6:
			os.RemoveAll(p)
		case 7:
			os.Remove(p)
		case 8:
			os.Symlink(q, p)
		case 9, 10:
			os.Link(p, q)
		case 11:
			os.Lchown(p, r.Intn(70000), r.Intn(70000))
		case 12:
			os.Rename(p, q)
		case 13:
			unix.Fchmodat(unix.AT_FDCWD, p, uint32(r.Intn(0o10000)), unix.AT_SYMLINK_NOFOLLOW)
		case 14:
			unix.Lsetxattr(p, "user.\xffx", []byte{0, byte(r.Intn(3))}, 0)
		case 15:
			stamp := unix.Timespec{Sec: r.Int63n(1 << 31), Nsec: r.Int63n(1e9)}
			unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
		}
	}
}

// tree describes everything below dir. Times of directories are left out, which
// layers keep only for those that are in them.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		e := fmt.Sprintf("%o %d:%d %q", st.Mode, st.Uid, st.Gid, attr(path, "user.\xffx"))
		if !d.IsDir() {
			target, _ := os.Readlink(path)
			e += fmt.Sprint(" ", st.Size, time.Unix(st.Mtim.Unix()).UnixNano(), target)
		}
		out["/"+strings.TrimPrefix(path, dir+"/")] = e
		return nil
	}))
	return out
}

// compared is what `docker diff` finds by comparing two trees.
func compared(before, after map[string]string) string {
	kinds := map[string]record.ChangeKind{}
	isDir := func(e string) bool { return strings.HasPrefix(e, "4") && len(strings.Fields(e)[0]) == 5 }
	attrless := func(e string) string {
		f := strings.Fields(e)
		return strings.Join(append(slices.Clone(f[:2]), f[3:]...), " ")
	}
	for path, e := range after {
		old, was := before[path]
		switch {
		case !was || !isDir(before[filepath.Dir(path)]) && filepath.Dir(path) != "/":
			kinds[path] = record.Added
		case attrless(e) != attrless(old):
			kinds[path] = record.Modified
		}
	}
	for path := range before {
		parent := filepath.Dir(path)
		if _, is := after[path]; !is && (parent == "/" || isDir(after[parent])) {
			kinds[path] = record.Deleted
		}
	}
	for path := range maps.Clone(kinds) {
		for p := filepath.Dir(path); p != "/"; p = filepath.Dir(p) {
			if _, known := kinds[p]; !known {
				kinds[p] = record.Modified
			}
		}
	}
	var list []record.Change
	for path, k := range kinds {
		list = append(list, record.Change{Kind: k, Path: path})
	}
	slices.SortFunc(list, func(a, b record.Change) int {
		return strings.Compare(strings.ReplaceAll(a.Path, "/", "\x00"), strings.ReplaceAll(b.Path, "/", "\x00"))
	})
	return printed(list)
}
