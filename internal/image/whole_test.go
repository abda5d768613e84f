package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/snapshot/unpack"
	"fief/internal/store"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"golang.org/x/sys/unix"
)

// dirLayers is Layers on a real directory with the real extractor.
type dirLayers struct{ dir string }

func (d dirLayers) path(diffID string) string  { return filepath.Join(d.dir, diffID[len("sha256:"):]) }
func (d dirLayers) Remove(diffID string) error { return os.RemoveAll(d.path(diffID)) }
func (d dirLayers) Has(diffID string) bool     { _, err := os.Stat(d.path(diffID)); return err == nil }

func (d dirLayers) Unpack(ctx context.Context, diffID string, r io.Reader) (record.Layer, error) {
	building := d.path(diffID) + ".building"
	defer os.RemoveAll(building)
	if err := os.Mkdir(building, 0o755); err != nil {
		return record.Layer{}, err
	}
	fd, err := unix.Open(building, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return record.Layer{}, err
	}
	f := os.NewFile(uintptr(fd), building)
	defer f.Close()
	facts, err := unpack.Tar(ctx, f, r, unpack.Limits{})
	if err != nil {
		return record.Layer{}, err
	}
	return record.Layer{Size: facts.Bytes, MaxUID: facts.MaxUID}, os.Rename(building, d.path(diffID))
}

// From a registry to files on disk and back to nothing, with the real state
// file and extractor; a hostile image in between changes nothing.
func TestWholeWay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: unpacks layers")
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "../../../.."}, {Name: "a/escaped", Typeflag: tar.TypeReg}} {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	w.WriteHeader(&tar.Header{Name: "../escaped", Typeflag: tar.TypeReg})
	w.Close()
	g := &registrytest.Registry{}
	host := serve(t, g)
	g.Push("good", "latest", registrytest.Gzipped(registrytest.Layer("bin/sh", "one"), registrytest.Layer("bin/sh", "two")))
	g.Push("bad", "latest", registrytest.Gzipped(registrytest.Layer("bin/sh", "one"), b.Bytes()))

	top := t.TempDir()
	root, layers := filepath.Join(top, "root"), dirLayers{filepath.Join(top, "root", "layers")}
	if err := os.MkdirAll(layers.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	open := func() (*store.DB, *Store) {
		db, err := store.Open(filepath.Join(root, "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(root, db.Bucket("images"), layers, Options{Platform: "linux/amd64"})
		if err != nil {
			t.Fatal(err)
		}
		return db, s
	}
	db, s := open()
	if _, err := s.Pull(context.Background(), ask.PullImage{Name: host + "/bad"}, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	img, err := s.Pull(context.Background(), ask.PullImage{Name: host + "/good"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as it is, and after a restart
		raw, err := os.ReadFile(filepath.Join(layers.path(img.Layers[1].DiffID), "bin/sh"))
		if err != nil || string(raw) != "two" {
			t.Errorf("%q %v", raw, err)
		}
		s.Close()
		db.Close()
		db, s = open()
	}
	defer db.Close()
	defer s.Close()
	if names, _ := filepath.Glob(filepath.Join(top, "*")); len(names) != 1 {
		t.Errorf("outside: %v", names)
	}
	if names, _ := os.ReadDir(layers.dir); len(names) != 2 {
		t.Errorf("layers: %v", names)
	}
	if _, err := s.Remove(host+"/good", false, nobody); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{layers.dir, filepath.Join(root, "blobs/sha256"), filepath.Join(root, "ingest")} {
		if names, _ := os.ReadDir(dir); len(names) != 0 {
			t.Errorf("left in %s: %v", dir, names)
		}
	}
}
