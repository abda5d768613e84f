package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

func (w *world) save(t *testing.T, want ask.SaveImages) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := w.Save(context.Background(), want, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func members(t *testing.T, raw []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(content)
	}
}

// savable is a store with images that share a layer, in every compression, one
// of them with two names, and one without layers.
func savable(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	base := registrytest.Layer("base", "shared")
	zstd := registrytest.Gzipped(base, registrytest.Layer("z", random(3000)))
	zstd.Blobs = [][]byte{registrytest.Gzip(base), registrytest.Zstd(zstd.Tars[1])}
	docker := registrytest.Gzipped(base, registrytest.Layer("g", "2"))
	docker.Docker = true
	w.load(t, docker.OCIArchive("app:1"))
	w.load(t, zstd.OCIArchive("quay.io/x/zstd:2"))
	w.load(t, registrytest.Plain(base, registrytest.Layer("p", "1")).DockerArchive("plain:1", "plain:other"))
	w.load(t, registrytest.Plain().DockerArchive("scratch:1"))
	return w
}

// What is saved is loaded with the same ids, manifests, names and layers.
func TestSaveLoad(t *testing.T) {
	w := savable(t)
	names := []string{"app:1", "quay.io/x/zstd:2", "plain", "scratch:1"}
	for _, format := range []ask.SaveFormat{"", ask.DockerArchive, ask.OCIArchive, ask.OCIDir} {
		raw := w.save(t, ask.SaveImages{Names: names, Format: format})
		if again := w.save(t, ask.SaveImages{Names: names, Format: format}); !bytes.Equal(raw, again) {
			t.Errorf("%s: two archives of the same differ", format)
		}
		members(t, raw)
		other := newWorld(t)
		for _, in := range [][]byte{raw, registrytest.Gzip(raw), registrytest.Zstd(raw)} {
			if got := other.load(t, in); len(got) != 4 {
				t.Errorf("%s: %+v", format, got)
			}
		}
		for _, want := range w.List() {
			got, err := other.Resolve(want.ID)
			manifest := want.Manifest
			if e := w.known.Load().images[want.ID]; e.Layout.Digest != "" && strings.HasPrefix(string(format), "oci") {
				manifest = e.Layout.Digest.String()
			}
			if err != nil || got.Manifest != manifest || !slices.Equal(got.Names, want.Names) || !slices.Equal(got.Layers, want.Layers) {
				t.Errorf("%s: got %+v %v\nwant %+v", format, got, err, want)
			}
		}
	}
	// The half that old readers see leads to the same images.
	files := members(t, w.save(t, ask.SaveImages{Names: names}))
	delete(files, "index.json")
	var flat []any
	for name, content := range files {
		if !strings.HasSuffix(name, "/") {
			flat = append(flat, name, content)
		}
	}
	if got := newWorld(t).load(t, registrytest.Tar(flat...)); len(got) != 4 {
		t.Errorf("%+v", got)
	}
	if want := `"plain":{"1":"`; !strings.Contains(files["repositories"], want) {
		t.Errorf("%s has no %s", files["repositories"], want)
	}
}

// A name is kept as asked: a tag brings itself, a repository all its tags, an
// id none.
func TestSaveNames(t *testing.T) {
	w := savable(t)
	plain, err := w.Resolve("plain:1")
	if err != nil {
		t.Fatal(err)
	}
	short := strings.TrimPrefix(plain.ID, "sha256:")[:12]
	for want, names := range map[string][]string{
		"docker.io/library/plain:1":                               {"plain:1"},
		"docker.io/library/plain:1 docker.io/library/plain:other": {"plain"},
		"":                              {short},
		"docker.io/library/plain:other": {short, "plain:other", plain.ID},
	} {
		raw := w.save(t, ask.SaveImages{Names: names})
		got := newWorld(t).load(t, raw)
		if len(got) != 1 || got[0].ID != plain.ID || strings.Join(got[0].Names, " ") != want {
			t.Errorf("%v: %+v", names, got)
		}
	}
}

func TestSaveRefused(t *testing.T) {
	w := savable(t)
	var out bytes.Buffer
	for _, c := range []struct {
		want  ask.SaveImages
		class fault.Class
		text  string
	}{
		{ask.SaveImages{}, fault.Invalid, "no image"},
		{ask.SaveImages{Names: []string{"app:1", "nowhere"}}, fault.NotFound, "No such image: nowhere:latest"},
		{ask.SaveImages{Names: []string{"UPPER"}}, fault.Invalid, ""},
		{ask.SaveImages{Names: []string{"host"}}, fault.Invalid, "built in"},
		{ask.SaveImages{Names: []string{"app:1"}, Format: "rar"}, fault.Invalid, "rar"},
		{ask.SaveImages{Names: []string{"app:1"}, Platforms: []string{"linux/arm64"}}, fault.NotFound, "does not match the specified platform: wanted linux/arm64, actual: linux/amd64"},
		{ask.SaveImages{Names: []string{"app:1", "plain:1"}, Format: ask.DockerDir}, fault.Invalid, "one image"},
		{ask.SaveImages{Names: []string{"quay.io/x/zstd:2"}, Format: ask.DockerDir}, fault.Unsupported, "zstd"},
	} {
		wantClass(t, w.Save(context.Background(), c.want, &out), c.class, c.text)
	}
	img, err := w.Resolve("app:1")
	if err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(w.dir, blobPath(img.Layers[1].Digest))
	if err := os.Rename(top, top+".away"); err != nil {
		t.Fatal(err)
	}
	wantClass(t, w.Save(context.Background(), ask.SaveImages{Names: []string{"app:1"}}, &out), fault.Corrupt, "missing")
	if out.Len() != 0 {
		t.Errorf("%d bytes were written", out.Len())
	}
	content, err := os.ReadFile(top + ".away")
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(top, content, 0o600); err != nil {
		t.Fatal(err)
	}
	wantClass(t, w.Save(context.Background(), ask.SaveImages{Names: []string{"app:1"}}, &out), fault.Corrupt, "its content has digest")
	if _, err := newWorld(t).Load(context.Background(), ask.LoadImages{}, &out, nil); err == nil {
		t.Error("an archive that failed was loaded")
	}
	wantClass(t, w.Save(context.Background(), ask.SaveImages{Names: []string{"plain"}}, deaf{}), fault.Unavailable, "no room")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantClass(t, w.Save(ctx, ask.SaveImages{Names: []string{"plain"}}, io.Discard), fault.Canceled, "")
}

type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, errors.New("no room") }

// remover removes an image at the first byte it is given.
type remover struct {
	bytes.Buffer
	remove func()
}

func (r *remover) Write(p []byte) (int, error) {
	if r.remove != nil {
		r.remove()
		r.remove = nil
	}
	return r.Buffer.Write(p)
}

// An image that is removed while it is saved is saved whole, and its blobs go
// afterwards.
func TestSaveWhileRemoved(t *testing.T) {
	w := savable(t)
	out := &remover{remove: func() {
		for _, name := range []string{"app:1", "quay.io/x/zstd:2"} {
			if _, err := w.Remove(name, false, nobody); err != nil {
				t.Error(err)
			}
		}
	}}
	if err := w.Save(context.Background(), ask.SaveImages{Names: []string{"app:1"}}, out); err != nil {
		t.Fatal(err)
	}
	if got := newWorld(t).load(t, out.Bytes()); len(got) != 1 {
		t.Errorf("%+v", got)
	}
	w.unchanged(t, func() {}) // nothing that a restart would have to sweep
}

func skopeo(t *testing.T, args ...string) {
	t.Helper()
	binary, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("tool: skopeo")
	}
	if out, err := exec.Command(binary, append([]string{"--insecure-policy", "copy", "--quiet"}, args...)...).CombinedOutput(); err != nil {
		t.Errorf("skopeo copy %v: %v\n%s", args, err, out)
	}
}

// unpackInto is what a client does with the formats that are directories.
func unpackInto(t *testing.T, dir string, raw []byte) {
	t.Helper()
	for name, content := range members(t, raw) {
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// skopeo reads every format and blobs/ itself, for every image.
func TestSaveSkopeo(t *testing.T) {
	w := savable(t)
	dir := t.TempDir()
	for i, name := range []string{"app:1", "quay.io/x/zstd:2", "plain:1"} {
		img, err := w.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		full := img.Names[0]
		file := func(format ask.SaveFormat, names ...string) string {
			path := filepath.Join(dir, name[:3]+string(format))
			if err := os.WriteFile(path, w.save(t, ask.SaveImages{Names: names, Format: format}), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		all := file(ask.DockerArchive, "app:1", "quay.io/x/zstd:2", "plain:1")
		oci := file(ask.OCIArchive, "app:1", "quay.io/x/zstd:2", "plain:1")
		layout := filepath.Join(dir, name[:3]+"layout")
		unpackInto(t, layout, w.save(t, ask.SaveImages{Names: []string{name}, Format: ask.OCIDir}))
		sources := []string{
			"docker-archive:" + all + ":" + full, "oci-archive:" + oci + ":" + full, "oci:" + layout + ":" + full, "oci:" + w.dir + ":" + full,
			"oci-archive:" + file("", name),
		}
		if i != 1 { // schema 2 knows no zstd
			plain := filepath.Join(dir, name[:3]+"dir")
			unpackInto(t, plain, w.save(t, ask.SaveImages{Names: []string{name}, Format: ask.DockerDir}))
			sources = append(sources, "dir:"+plain)
		}
		for n, source := range sources {
			to := filepath.Join(dir, name[:3]+"copy"+string(rune('a'+n))+".tar")
			skopeo(t, source, "docker-archive:"+to+":copied:1")
			raw, err := os.ReadFile(to)
			if err != nil {
				t.Fatalf("%s: %v", source, err)
			}
			got := newWorld(t).load(t, raw)
			if len(got) != 1 || len(got[0].Layers) != len(img.Layers) || got[0].Layers[1].DiffID != img.Layers[1].DiffID {
				t.Errorf("%s: %+v", source, got)
			}
		}
	}
}

// What skopeo writes is loaded: every transport, every compression.
func TestLoadSkopeo(t *testing.T) {
	w := savable(t)
	dir := t.TempDir()
	for _, args := range [][]string{
		{"docker-archive:" + dir + "/d.tar:copied:1"},
		{"oci-archive:" + dir + "/o.tar:copied:1"},
		{"--dest-compress-format", "zstd", "oci-archive:" + dir + "/z.tar:copied:1"},
		{"--dest-compress-format", "gzip", "oci-archive:" + dir + "/g.tar:copied:1"},
		{"oci:" + dir + "/layout:copied:1"},
		{"--dest-compress", "--dest-compress-format", "zstd", "oci:" + dir + "/zlayout:copied:1"},
		{"--dest-oci-accept-uncompressed-layers", "oci:" + dir + "/ulayout:copied:1"},
	} {
		skopeo(t, append(args[:len(args)-1:len(args)-1], "oci:"+w.dir+":docker.io/library/plain:1", args[len(args)-1])...)
		path := strings.Split(args[len(args)-1], ":")[1]
		other := newWorld(t)
		var err error
		if strings.HasSuffix(path, ".tar") {
			f, openErr := os.Open(path)
			if openErr != nil {
				t.Fatal(openErr)
			}
			_, err = other.Load(context.Background(), ask.LoadImages{}, f, nil)
			f.Close()
		} else {
			_, err = other.LoadLayout(context.Background(), ask.LoadImages{}, path, nil)
		}
		want, _ := w.Resolve("plain:1")
		got, resolveErr := other.Resolve("copied:1")
		if err != nil || resolveErr != nil || got.Layers[1].DiffID != want.Layers[1].DiffID {
			t.Errorf("%v: %+v %v", args, got, err)
		}
	}
}
