package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (w *world) load(t *testing.T, raw []byte) []record.Image {
	t.Helper()
	imgs, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(raw), w.tell)
	if err != nil {
		t.Fatal(err)
	}
	return imgs
}

func TestLoad(t *testing.T) {
	plain := registrytest.Plain(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	gzipped := registrytest.Gzipped(plain.Tars...)
	config, manifest, _ := gzipped.Files()
	cases := map[string]struct {
		archive []byte
		names   string
		id      string
	}{
		"docker":           {plain.DockerArchive("busybox:latest", "other:1"), "docker.io/library/busybox:latest docker.io/library/other:1", ""},
		"docker gzip":      {registrytest.Gzip(plain.DockerArchive("busybox:latest")), "docker.io/library/busybox:latest", ""},
		"docker zstd":      {registrytest.Zstd(plain.DockerArchive("busybox:latest")), "docker.io/library/busybox:latest", ""},
		"docker none":      {plain.DockerArchive("<none>:<none>"), "", ""},
		"docker untagged":  {plain.DockerArchive(), "", ""},
		"docker of gzips":  {gzipped.DockerArchive("x:1"), "docker.io/library/x:1", ""},
		"oci":              {gzipped.OCIArchive("quay.io/a/b:c"), "quay.io/a/b:c", digest.FromBytes(manifest).String()},
		"oci gzip":         {registrytest.Gzip(gzipped.OCIArchive("quay.io/a/b:c")), "quay.io/a/b:c", digest.FromBytes(manifest).String()},
		"oci tag only":     {gzipped.OCIArchive("latest"), "", digest.FromBytes(manifest).String()},
		"oci no name":      {gzipped.OCIArchive(""), "", digest.FromBytes(manifest).String()},
		"oci and trailing": {append(gzipped.OCIArchive("a:b"), make([]byte, 4096)...), "docker.io/library/a:b", digest.FromBytes(manifest).String()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			imgs := w.load(t, c.archive)
			if len(imgs) != 1 || strings.Join(imgs[0].Names, " ") != c.names || imgs[0].ID != digest.FromBytes(config).String() {
				t.Fatalf("%+v", imgs)
			}
			if c.id != "" && imgs[0].Manifest != c.id {
				t.Errorf("manifest %s", imgs[0].Manifest)
			}
			for i, l := range imgs[0].Layers {
				if !bytes.Equal(w.layers.tars[l.DiffID], plain.Tars[i]) {
					t.Errorf("layer %d", i)
				}
			}
			w.unchanged(t, func() { w.load(t, c.archive) })
		})
	}
}

// Layers of old archives are links to each other; several images share layers;
// index.json may list every platform.
func TestLoadShapes(t *testing.T) {
	one := registrytest.Plain(registrytest.Layer("a", "1"))
	two := registrytest.Plain(registrytest.Layer("a", "1"), registrytest.Layer("b", "2"))
	c1, _, _ := one.Files()
	c2, _, _ := two.Files()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, body []byte) {
		h.Size, h.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		w.Write(body)
	}
	items, _ := json.Marshal([]dockerItem{
		{Config: "one.json", RepoTags: []string{"one:1"}, Layers: []string{"x/layer.tar"}},
		{Config: "./two.json", RepoTags: []string{"two:2"}, Layers: []string{"y/layer.tar", "z.tar"}},
	})
	put(tar.Header{Name: "manifest.json"}, items)
	put(tar.Header{Name: "x", Typeflag: tar.TypeDir}, nil)
	put(tar.Header{Name: "x/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../y/layer.tar"}, nil)
	put(tar.Header{Name: "y/layer.tar"}, one.Tars[0])
	put(tar.Header{Name: "w.tar"}, two.Tars[1])
	put(tar.Header{Name: "z.tar", Typeflag: tar.TypeLink, Linkname: "w.tar"}, nil)
	put(tar.Header{Name: "one.json"}, c1)
	put(tar.Header{Name: "two.json"}, c2)
	w.Close()
	s := newWorld(t)
	if imgs := s.load(t, b.Bytes()); len(imgs) != 2 || imgs[1].Names[0] != "docker.io/library/two:2" || len(s.layers.unpacked) != 2 {
		t.Errorf("%+v", imgs)
	}

	arm := registrytest.Gzipped(registrytest.Layer("arm", ""))
	arm.Architecture = "arm64"
	amd := registrytest.Gzipped(registrytest.Layer("amd", ""))
	files := []any{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`}
	var list []ocispec.Descriptor
	for _, img := range []registrytest.Image{arm, amd} {
		config, manifest, desc := img.Files()
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: "all:1"}
		list = append(list, desc)
		for _, blob := range [][]byte{config, manifest, img.Blobs[0]} {
			files = append(files, "blobs/sha256/"+digest.FromBytes(blob).Encoded(), blob)
		}
	}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": list})
	files = append(files, "index.json", index)
	s = newWorld(t)
	if imgs := s.load(t, registrytest.Tar(files...)); len(imgs) != 1 || imgs[0].Arch != "amd64" {
		t.Errorf("%+v", imgs)
	}
}

func TestLoadDamaged(t *testing.T) {
	img := registrytest.Plain(registrytest.Layer("a", random(5000)))
	docker, oci := img.DockerArchive("x:1"), img.OCIArchive("x:1")
	flip := func(raw []byte, in string) []byte {
		out := bytes.Clone(raw)
		out[bytes.Index(out, []byte(in))+2000] ^= 1
		return out
	}
	blob := digest.FromBytes(img.Blobs[0]).Encoded()
	lying := img
	lying.Tars = [][]byte{registrytest.Layer("other", "x")}
	gz := registrytest.Gzip(docker)
	item := func(config, layer string) []byte {
		raw, _ := json.Marshal([]dockerItem{{Config: config, Layers: []string{layer}}})
		return raw
	}
	rotten := bytes.Clone(gz)
	rotten[len(rotten)-6] ^= 1 // in the checksum
	cases := map[string][]byte{
		"empty":               {},
		"no tar":              []byte(strings.Repeat("no tar ", 200)),
		"nothing in it":       registrytest.Tar("a", "b"),
		"docker cut":          docker[:len(docker)/2],
		"docker cut early":    docker[:100],
		"oci cut":             oci[:len(oci)-3000],
		"gzip cut":            gz[:len(gz)/2],
		"gzip rotten":         rotten,
		"docker flipped":      flip(docker, "layer.tar"),
		"oci flipped":         flip(oci, blob),
		"docker lying":        lying.DockerArchive("x:1"),
		"oci lying":           lying.OCIArchive("x:1"),
		"no config":           registrytest.Tar("manifest.json", item("c", "l"), "l", "x"),
		"no layer":            registrytest.Tar("manifest.json", item("c", "l"), "c", "{}"),
		"config no json":      registrytest.Tar("manifest.json", item("c", "l"), "c", "{", "l", "x"),
		"config out of it":    registrytest.Tar("manifest.json", item("../../../../etc/passwd", "l"), "l", "x"),
		"manifest no json":    registrytest.Tar("manifest.json", "[}"),
		"manifest empty":      registrytest.Tar("manifest.json", "[]"),
		"manifest huge":       registrytest.Tar("manifest.json", strings.Repeat(" ", maxJSON+1)),
		"index no json":       registrytest.Tar("oci-layout", "{}", "index.json", "{"),
		"index empty":         registrytest.Tar("oci-layout", "{}", "index.json", `{"schemaVersion":2,"manifests":[]}`),
		"index to nothing":    registrytest.Tar("oci-layout", "{}", "index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":"sha256:%064d","size":5}]}`, 1)),
		"index digest a path": registrytest.Tar("oci-layout", "{}", "index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":5}]}`),
		"links in a circle":   linkLoop(t),
	}
	for name, raw := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(t, registrytest.Plain(registrytest.Layer("there", "before")).DockerArchive("before:1"))
			w.unchanged(t, func() {
				imgs, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(raw), nil)
				wantClass(t, err, fault.Corrupt, "")
				if len(imgs) != 0 {
					t.Errorf("loaded %+v", imgs)
				}
			})
		})
	}
	w := newWorld(t)
	_, err := w.Load(context.Background(), ask.LoadImages{}, io.MultiReader(bytes.NewReader(docker[:3000]), brokenPipe{}), nil)
	wantClass(t, err, fault.Unavailable, "pipe")
}

type brokenPipe struct{}

func (brokenPipe) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func linkLoop(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for from, to := range map[string]string{"manifest.json": "b", "b": "manifest.json"} {
		if err := w.WriteHeader(&tar.Header{Name: from, Typeflag: tar.TypeSymlink, Linkname: to}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// The data root is an OCI layout: another store, and skopeo, can read it.
func TestLayout(t *testing.T) {
	w := newWorld(t)
	a := w.load(t, registrytest.Plain(registrytest.Layer("a", "1")).DockerArchive("one:1", "uno:1"))[0]
	b := w.load(t, registrytest.Gzipped(registrytest.Layer("b", "2")).OCIArchive("quay.io/x/two:2"))[0]
	other := newWorld(t)
	imgs, err := other.LoadLayout(context.Background(), ask.LoadImages{}, w.dir, nil)
	if err != nil || len(imgs) != 2 {
		t.Fatalf("%+v %v", imgs, err)
	}
	for _, want := range []record.Image{a, b} {
		got, err := other.Resolve(want.ID)
		if err != nil || !slices.Equal(got.Names, want.Names) || got.Manifest != want.Manifest {
			t.Errorf("%+v %v", got, err)
		}
	}
	if err := os.Remove(filepath.Join(w.dir, blobPath(b.Layers[0].Digest))); err != nil {
		t.Fatal(err)
	}
	third := newWorld(t)
	_, err = third.LoadLayout(context.Background(), ask.LoadImages{}, w.dir, nil)
	wantClass(t, err, fault.Corrupt, "missing")
	_, err = third.LoadLayout(context.Background(), ask.LoadImages{}, w.dir+"/no", nil)
	wantClass(t, err, fault.NotFound, "")

	if err := syscall.Mkfifo(filepath.Join(w.dir, blobPath(b.Layers[0].Digest)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = third.LoadLayout(context.Background(), ask.LoadImages{}, w.dir, nil)
	wantClass(t, err, fault.Corrupt, "not a regular file")

	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("tool: skopeo")
	}
	out, err := exec.Command(skopeo, "inspect", "--raw", "oci:"+w.dir+":docker.io/library/one:1").CombinedOutput()
	if err != nil || digest.FromBytes(out).String() != a.Manifest {
		t.Errorf("%v\n%s", err, out)
	}
	archive := filepath.Join(t.TempDir(), "x.tar")
	if out, err := exec.Command(skopeo, "--insecure-policy", "copy", "oci:"+w.dir+":docker.io/library/one:1", "docker-archive:"+archive+":copied:1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if got := third.load(t, raw); got[0].ID == "" || got[0].Names[0] != "docker.io/library/copied:1" || got[0].Layers[0].DiffID != a.Layers[0].DiffID {
		t.Errorf("%+v", got)
	}
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	raw := registrytest.Layer("bin/sh", "x")
	for name, in := range map[string][]byte{"plain": raw, "gzip": registrytest.Gzip(raw), "zstd": registrytest.Zstd(raw)} {
		img, err := w.Import(context.Background(), ask.ImportImage{Name: name + ":1", Message: "m", Changes: []string{
			`CMD ["/bin/sh", "-l"]`, `ENTRYPOINT run me`, `ENV A=1 B="two words" A=3`, `ENV OLD form of it`, `EXPOSE 80 53/udp`, `label a='b c' d=e`,
			`USER 1:2`, `VOLUME /a /b`, `VOLUME ["/c d"]`, `WORKDIR /w`, `STOPSIGNAL SIGINT`}}, bytes.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		c := img.Config
		want := record.ImageConfig{User: "1:2", Env: []string{"A=3", "B=two words", "OLD=form of it"}, Entrypoint: []string{"/bin/sh", "-c", "run me"},
			Cmd: []string{"/bin/sh", "-l"}, WorkDir: "/w", Labels: map[string]string{"a": "b c", "d": "e"}, StopSignal: "SIGINT",
			Volumes: []string{"/a", "/b", "/c d"}, ExposedPorts: []string{"53/udp", "80/tcp"}}
		if fmt.Sprint(c) != fmt.Sprint(want) {
			t.Errorf("%+v", c)
		}
		if img.Layers[0].DiffID != digest.FromBytes(raw).String() || img.Names[0] != "docker.io/library/"+name+":1" || img.Comment != "m" || img.Created.IsZero() {
			t.Errorf("%+v", img)
		}
	}
	w.unchanged(t, func() {
		for _, change := range []string{"FROM x", "CMD", "ENV A", `ENV A="`, "ENV =x", "ONBUILD FROM x", "SHELL sh", `VOLUME [""]`} {
			_, err := w.Import(context.Background(), ask.ImportImage{Changes: []string{change}}, bytes.NewReader(raw))
			wantClass(t, err, fault.Invalid, "")
		}
		_, err := w.Import(context.Background(), ask.ImportImage{Name: "a@sha256:" + strings.Repeat("0", 64)}, bytes.NewReader(raw))
		wantClass(t, err, fault.Invalid, "digest")
		_, err = w.Import(context.Background(), ask.ImportImage{Platform: "a/b/c/d"}, bytes.NewReader(raw))
		wantClass(t, err, fault.Invalid, "")
		gz := registrytest.Gzip(raw)
		_, err = w.Import(context.Background(), ask.ImportImage{}, bytes.NewReader(gz[:len(gz)-5]))
		wantClass(t, err, fault.Corrupt, "cut off")
	})
	img, err := w.Import(context.Background(), ask.ImportImage{Platform: "linux/arm64"}, bytes.NewReader(raw))
	if err != nil || img.Arch != "arm64" || len(img.Names) != 0 {
		t.Errorf("%+v %v", img, err)
	}
}

// endless is a stream that a few bytes unpack to.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestBomb(t *testing.T) {
	u := &unpacked{r: endless{}, in: &counter{n: 1 << 20}, end: func() {}}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, u, make([]byte, 1<<20))
	wantClass(t, err, fault.Exhausted, "more than 1000 times")
	if n > bombFree+1<<20 {
		t.Errorf("noticed after %d bytes", n)
	}
	u = &unpacked{r: io.LimitReader(endless{}, bombFree+1<<20), in: &counter{n: bombFree / 500}, end: func() {}}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, u, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
}
