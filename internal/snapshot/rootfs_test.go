package snapshot

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/mnt/mnttest"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// TestFallback: ext3 is served by the ext4 driver, but cannot be idmapped: the
// store must find that out by itself, and say so.
func TestFallback(t *testing.T) {
	s := openStore(t, filepath.Join(mnttest.FileSystem(t, "ext3"), "store"), Options{})
	if way, why := s.Way(); (way != "metacopy" && way != "copy") || !strings.Contains(why, "idmapped overlay layers by descriptor (Linux 6.15)") {
		t.Fatalf("way %q because %q", way, why)
	}
	for _, way := range []shift.Way{shift.Metacopy, shift.Copy} {
		t.Run(string(way), func(t *testing.T) { conform(t, filepath.Join(filepath.Dir(s.path), string(way)), way) })
	}
}

func TestBestWay(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	way, why := s.Way()
	if way == "attached" && strings.Contains(why, "(Linux 6.15)") {
		t.Skip("kernel: " + why)
	}
	if way != "idmapped" || why != "" {
		t.Fatalf("way %q because %q", way, why)
	}
}

// TestNoOverlay: a store on an overlay cannot work.
func TestNoOverlay(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	m := mapsOf(t, s, idmap.Pair{})
	withRoot(t, s, Request{Mapped: m, Upper: newUpper(t, s)}, func(r *Root) {
		dir := t.TempDir()
		if err := mnt.AttachPath(r.FD, dir); err != nil {
			t.Fatal(err)
		}
		defer mnt.Detach(dir)
		_, err := Open(filepath.Join(dir, "store"), Options{})
		if !fault.Is(err, fault.Unsupported) || fault.HintOf(err) == "" {
			t.Errorf("open on overlay: %v", err)
		}
	})
}

func TestHostImage(t *testing.T) {
	for _, way := range waysOn(t, os.TempDir()) {
		t.Run(string(way), func(t *testing.T) {
			s := openStore(t, t.TempDir(), Options{Force: way})
			for _, pair := range []idmap.Pair{pairOf(t, 1<<20), {}} {
				var got map[string]string
				withRoot(t, s, Request{Mapped: mapsOf(t, s, pair), Host: true, Upper: newUpper(t, s)}, func(r *Root) {
					inside(t, pair, r, "host", &got)
				})
				same(t, "host image", got, map[string]string{
					"/tmp": "041777 0:0", "/root": "040700 0:0", "/usr": "040755 0:0", "/usr/bin/env": "100755 0:0",
					"/etc": "040755 0:0", "/home": "040755 0:0", "/var/lib": "040755 0:0",
					"write usr": "EROFS", "chmod usr": "EROFS", "write etc": "ok", "host's etc": "ENOENT", "sh": "hello root ok",
				})
			}
		})
	}
}

// TestMaps: several extents, host 0 in the map, and no map at all.
func TestMaps(t *testing.T) {
	extents := func(spans ...idmap.Span) idmap.Map {
		m, err := idmap.New(spans...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	several := extents(idmap.Span{In: 0, Out: 1 << 20, N: 1000}, idmap.Span{In: 1000, Out: 1000, N: 1}, idmap.Span{In: 1001, Out: 2 << 20, N: 64536})
	for name, pair := range map[string]idmap.Pair{
		"several extents": {UID: several, GID: pairOf(t, 5<<20).GID},
		"host 0 mapped":   {UID: extents(idmap.Span{In: 0, Out: 0, N: 65536}), GID: extents(idmap.Span{In: 0, Out: 1 << 20, N: 9}, idmap.Span{In: 9, Out: 0, N: 65527})},
		"none":            {},
	} {
		for _, way := range waysOn(t, os.TempDir()) {
			t.Run(name+"/"+string(way), func(t *testing.T) { lookAndWork(t, pair, way) })
		}
	}
}

func lookAndWork(t *testing.T, pair idmap.Pair, way shift.Way) {
	s := openStore(t, t.TempDir(), Options{Force: way})
	makeLayers(t, s)
	var look, done map[string]string
	r := Request{Mapped: mapsOf(t, s, pair), Layers: []string{lowID, topID}, Upper: newUpper(t, s)}
	withRoot(t, s, r, func(root *Root) { inside(t, pair, root, "look", &look) })
	same(t, "look", look, wantLook)
	if pair.IsZero() {
		return // host root may do more
	}
	withRoot(t, s, r, func(root *Root) { inside(t, pair, root, "work", &done) })
	same(t, "work", done, wantWork)
}

func TestBadMaps(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	noRoot, err := idmap.New(idmap.Span{In: 1, Out: 1 << 20, N: 10})
	if err != nil {
		t.Fatal(err)
	}
	var spans []idmap.Span
	for i := range uint32(idmap.MaxExtents) {
		spans = append(spans, idmap.Span{In: idmap.Inside(2 * i), Out: idmap.Host(1000 + i), N: 1}) // short, or their text is refused first
	}
	full, err := idmap.New(spans...)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []idmap.Map{noRoot, full} {
		if _, err := s.Maps(idmap.Pair{UID: m, GID: m}, ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("map of %d extents: %v", len(m.Spans()), err)
		}
	}
}

// TestManyLayers: more layers than the page of options that mount(2) takes
// has room for by their full names.
func TestManyLayers(t *testing.T) {
	const count = 200
	for _, way := range waysOn(t, mnttest.FileSystem(t, "tmpfs")) {
		t.Run(string(way), func(t *testing.T) {
			s := openStore(t, mnttest.FileSystem(t, "tmpfs"), Options{Force: way})
			var ids []string
			for i := range count {
				id := "sha256:" + fmt.Sprintf("%032x", i+1) + strings.Repeat("0", 32)
				buildLayer(t, s, id, func(dir string) {
					files{t, dir}.file("layer"+strconv.Itoa(i), i, i, 0o644, "")
					files{t, dir}.file("top", i, i, 0o644, "")
				})
				ids = append(ids, id)
			}
			pair := pairOf(t, 1<<20)
			var got map[string]string
			withRoot(t, s, Request{Mapped: mapsOf(t, s, pair), Layers: ids, Upper: newUpper(t, s)}, func(r *Root) {
				inside(t, pair, r, "list", &got)
			})
			if len(got) != count+2 || !strings.HasPrefix(got["top"], "100644 199:199") {
				t.Errorf("%d files, top %q", len(got), got["top"])
			}
		})
	}
}

// TestNothingWritable: without an upper the root can be read only.
func TestNothingWritable(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	makeLayers(t, s)
	m := mapsOf(t, s, idmap.Pair{})
	for _, layers := range [][]string{nil, {lowID}, {lowID, topID}} {
		withRoot(t, s, Request{Mapped: m, Layers: layers}, func(r *Root) {
			if err := unix.Mkdirat(int(r.FD.Fd()), "x", 0o700); err != unix.EROFS {
				t.Errorf("%d layers: mkdir: %v", len(layers), err)
			}
		})
	}
}

// TestRootMode: / of a container looks as the image says, once.
func TestRootMode(t *testing.T) {
	for _, way := range waysOn(t, os.TempDir()) {
		s := openStore(t, t.TempDir(), Options{Force: way})
		buildLayer(t, s, lowID, func(dir string) {
			files{t, dir}.must(os.Chown(dir, 0, 33))
			files{t, dir}.must(unix.Chmod(dir, 0o1555))
		})
		buildLayer(t, s, topID, func(string) {})
		pair := pairOf(t, 1<<20)
		r := Request{Mapped: mapsOf(t, s, pair), Layers: []string{lowID, topID}, Upper: newUpper(t, s)}
		var got map[string]string
		withRoot(t, s, r, func(root *Root) {
			inside(t, pair, root, "list", &got)
			if err := unix.Fchmodat(int(root.FD.Fd()), ".", 0o711, 0); err != nil {
				t.Error(err)
			}
		})
		same(t, string(way), got, map[string]string{".": "041555 0:33"})
		withRoot(t, s, r, func(root *Root) { inside(t, pair, root, "list", &got) })
		same(t, string(way)+" later", got, map[string]string{".": "040711 0:33"})
	}
}

func TestMissing(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	m := mapsOf(t, s, pairOf(t, 1<<20))
	upper := newUpper(t, s)
	if _, err := s.Rootfs(Request{Mapped: m, Layers: []string{lowID}, Upper: upper}); !fault.Is(err, fault.Corrupt) || fault.HintOf(err) == "" {
		t.Errorf("no layer: %v", err)
	}
	if _, err := s.Rootfs(Request{Mapped: m, Upper: strings.Repeat("0", 16)}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no upper: %v", err)
	}
	for _, r := range []Request{
		{Mapped: m, Layers: []string{"../../etc"}, Upper: upper}, {Mapped: m, Upper: "../layers"},
	} {
		if _, err := s.Rootfs(r); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestDescriptors: making and closing roots leaks none.
func TestDescriptors(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{})
	makeLayers(t, s)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	round := func() {
		pair := pairOf(t, 1<<20)
		m, err := s.Maps(pair, "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Rootfs(Request{Mapped: m, Host: true, Layers: []string{lowID}, Upper: newUpper(t, s)})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		m.Close()
	}
	round()
	s.drops.settle()
	before := count()
	for range 10 {
		round()
	}
	if after := count(); after > before+2 { // the stock's worker may be at it
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func BenchmarkRootfs(b *testing.B) {
	for _, fs := range []string{"", "ext4", "tmpfs"} { // "" may be an ext4 without a journal
		for _, layers := range []int{1, 10} {
			b.Run(fmt.Sprintf("fs=%s/layers=%d", fs, layers), func(b *testing.B) { benchRootfs(b, fs, layers) })
		}
	}
}

func BenchmarkMaps(b *testing.B) {
	s := openStore(b, b.TempDir(), Options{})
	pair := pairOf(b, 1<<20)
	for b.Loop() {
		m, err := s.Maps(pair, "")
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		m.Close()
		b.StartTimer()
	}
}

func benchRootfs(b *testing.B, fs string, layers int) {
	s := openStore(b, mnttest.FileSystem(b, fs), Options{Stock: 64})
	var ids []string
	for i := range layers {
		ids = append(ids, "sha256:"+fmt.Sprintf("%032x", i+1)+strings.Repeat("0", 32))
		buildLayer(b, s, ids[i], func(dir string) { files{b, dir}.file("f", 0, 0, 0o644, "x") })
	}
	m := mapsOf(b, s, pairOf(b, 1<<20))
	if err := s.SweepUppers(nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		upper, err := s.NewUpper()
		if err != nil {
			b.Fatal(err)
		}
		r, err := s.Rootfs(Request{Mapped: m, Layers: ids, Upper: upper, Volatile: true})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		r.Close()
		s.DropUpper(upper)
		s.drops.settle()
		for len(s.stock.ready) < cap(s.stock.ready)/2 {
			s.stock.fill()
		}
		b.StartTimer()
	}
}
