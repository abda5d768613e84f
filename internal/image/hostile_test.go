package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutOf is the archive of an OCI layout with that index.json and blobs.
func layoutOf(t *testing.T, index any, blobs ...[]byte) []byte {
	t.Helper()
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	files := []any{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", raw}
	for _, b := range blobs {
		files = append(files, "blobs/sha256/"+digest.FromBytes(b).Encoded(), b)
	}
	return registrytest.Tar(files...)
}

func indexOf(t *testing.T, mediaType string, list ...ocispec.Descriptor) ([]byte, ocispec.Descriptor) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "manifests": list})
	if err != nil {
		t.Fatal(err)
	}
	return raw, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// One damaged image in an archive of several, wherever it is, and nothing is
// loaded.
func TestLoadAllOrNothing(t *testing.T) {
	good := registrytest.Plain(registrytest.Layer("a", random(3000)))
	bad := registrytest.Plain(registrytest.Layer("b", random(3000)))
	config, _, _ := good.Files()
	badConfig, _, _ := bad.Files()
	items, _ := json.Marshal([]dockerItem{
		{Config: "good.json", RepoTags: []string{"good:1"}, Layers: []string{"good.tar"}},
		{Config: "bad.json", RepoTags: []string{"bad:1"}, Layers: []string{"bad.tar"}},
	})
	docker := func(content []byte) []byte {
		return registrytest.Tar("manifest.json", items, "good.json", config, "good.tar", good.Tars[0], "bad.json", badConfig, "bad.tar", content)
	}
	saver := newWorld(t)
	if got := saver.load(t, docker(bad.Tars[0])); len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	other := registrytest.Layer("other", "1")
	damaged := bytes.Clone(bad.Tars[0])
	damaged[700] ^= 1
	w := newWorld(t)
	for name, raw := range map[string][]byte{"damaged": docker(damaged), "another": docker(other), "missing": docker(nil)} {
		w.unchanged(t, func() {
			imgs, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(raw), nil)
			wantClass(t, err, fault.Corrupt, "")
			if len(imgs) != 0 {
				t.Errorf("%s: loaded %+v", name, imgs)
			}
		})
	}
	// A disk that fails at the record of all loses all, too.
	w.index.fail = func(changes map[string]any) error {
		for key := range changes {
			if strings.HasPrefix(key, imageKey) {
				return fault.New(fault.Exhausted, "write", "state", "no space", "")
			}
		}
		return nil
	}
	_, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(docker(bad.Tars[0])), nil)
	wantClass(t, err, fault.Exhausted, "no space")
	w.index.fail = nil
	if left := w.List(); len(left) != 0 {
		t.Errorf("%+v", left)
	}
}

// Every name that was given is told, in docker's words, and only those.
func TestLoadTells(t *testing.T) {
	w := newWorld(t)
	img := registrytest.Plain(registrytest.Layer("a", "1"))
	w.load(t, img.DockerArchive("before:1"))
	if p := w.told[0]; p.ID != barOf(digest.FromBytes(img.Blobs[0])) || p.Status != "Loading layer" || p.Current == 0 {
		t.Errorf("%+v", p)
	}
	for want, archive := range map[string][]byte{
		"Loaded image: x:1,Loaded image: quay.io/y:2": img.DockerArchive("x:1", "quay.io/y:2"),
		"Loaded image ID: " + w.List()[0].ID:          img.DockerArchive(),
	} {
		w.told = nil
		w.load(t, archive)
		var got []string
		for _, p := range w.told {
			if p.ID != "" {
				t.Errorf("told of a layer that was there: %+v", p)
			} else {
				got = append(got, p.Status)
			}
		}
		if strings.Join(got, ",") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

// Indexes in indexes, Docker's manifest lists, layers that are foreign or
// empty, and bzip2.
func TestLoadForms(t *testing.T) {
	arm, amd := registrytest.Gzipped(registrytest.Layer("arm", "")), registrytest.Gzipped(registrytest.Layer("amd", ""), registrytest.Tar())
	arm.Architecture, amd.Docker = "arm64", true
	var blobs [][]byte
	var list []ocispec.Descriptor
	for _, img := range []registrytest.Image{arm, amd} {
		config, manifest, desc := img.Files()
		if img.Docker { // Docker's hub had such: their blobs are in the archive all the same
			manifest = bytes.ReplaceAll(manifest, []byte("rootfs.diff"), []byte("rootfs.foreign.diff"))
			desc.Digest, desc.Size = digest.FromBytes(manifest), int64(len(manifest))
		}
		blobs, list = append(append(blobs, config, manifest), img.Blobs...), append(list, desc)
	}
	inner, innerDesc := indexOf(t, remote.DockerList, list...)
	outer, outerDesc := indexOf(t, ocispec.MediaTypeImageIndex, innerDesc)
	outerDesc.Annotations = map[string]string{containerdName: "docker.io/library/nested:1"}
	raw := layoutOf(t, map[string]any{"schemaVersion": 2, "manifests": []any{outerDesc}}, append(blobs, inner, outer)...)
	w := newWorld(t)
	imgs := w.load(t, raw)
	if len(imgs) != 1 || imgs[0].Arch != "amd64" || imgs[0].Names[0] != "docker.io/library/nested:1" || len(imgs[0].Layers) != 2 {
		t.Errorf("%+v", imgs)
	}
	if bzip2, err := exec.LookPath("bzip2"); err == nil {
		cmd := exec.Command(bzip2, "-c")
		cmd.Stdin = bytes.NewReader(raw)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := newWorld(t).load(t, packed); len(got) != 1 || got[0].ID != imgs[0].ID {
			t.Errorf("%+v", got)
		}
		_, err = newWorld(t).Load(context.Background(), ask.LoadImages{}, bytes.NewReader(packed[:len(packed)-20]), nil)
		wantClass(t, err, fault.Corrupt, "")
	}
}

// Archives made to confuse or exhaust change nothing and leave nothing.
func TestLoadHostile(t *testing.T) {
	img := registrytest.Plain(registrytest.Layer("a", "1"))
	config, manifest, desc := img.Files()
	index := func(list ...ocispec.Descriptor) map[string]any {
		return map[string]any{"schemaVersion": 2, "manifests": list}
	}
	deep, deepDesc := manifest, desc
	var chain [][]byte
	for range maxDepth {
		deep, deepDesc = indexOf(t, ocispec.MediaTypeImageIndex, deepDesc)
		chain = append(chain, deep)
	}
	wrongSize, longer := desc, desc
	wrongSize.Size--
	longer.Size++
	both := fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"config":%s,"layers":[]}`, `{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1}`)
	bothDesc := ocispec.Descriptor{Digest: digest.FromString(both), Size: int64(len(both))}
	all := [][]byte{config, manifest, img.Blobs[0]}
	item := func(layers ...string) []byte {
		raw, _ := json.Marshal([]dockerItem{{Config: "c", Layers: layers}})
		return raw
	}
	cases := map[string][]byte{
		"indexes too deep":       layoutOf(t, index(deepDesc), append(chain, all...)...),
		"manifest too long":      layoutOf(t, index(wrongSize), all...),
		"size of another":        layoutOf(t, index(longer), all...),
		"index and manifest":     layoutOf(t, index(bothDesc), append(all, []byte(both))...),
		"no layer":               layoutOf(t, index(desc), config, manifest),
		"no config":              layoutOf(t, index(desc), manifest, img.Blobs[0]),
		"blob is another":        registrytest.Tar("oci-layout", "{}", "index.json", marshalled(t, index(desc)), layoutPath(desc.Digest), config),
		"huge index":             registrytest.Tar("oci-layout", "{}", "index.json", strings.Repeat(" ", 5<<20)),
		"config out of it":       registrytest.Tar("manifest.json", item("/etc/passwd"), "c", config),
		"layer out of it":        registrytest.Tar("manifest.json", item("../../../../etc/passwd"), "c", config),
		"second manifest counts": registrytest.Tar("manifest.json", item("l"), "c", config, "l", img.Tars[0], "manifest.json", "[]"),
		"link out of it":         linked(t, "/etc/passwd", item("l"), config),
		"link up and out":        linked(t, "../../../../../etc/passwd", item("l"), config),
		"a layer too many":       registrytest.Tar("manifest.json", item("l", "l"), "c", config, "l", img.Tars[0]),
		"names no names":         registrytest.Tar("manifest.json", `[{"Config":"c","RepoTags":["../../x:1"],"Layers":["l"]}]`, "c", config, "l", img.Tars[0]),
	}
	for name, raw := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
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
	_, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(registrytest.Tar("repositories", `{"x":{"1":"y"}}`, "y/json", "{}")), nil)
	wantClass(t, err, fault.Unsupported, "before 1.10")
	// Names that climb are keys and nothing else: they are found where they say.
	climbing := registrytest.Tar("../../manifest.json", item("/x/../l"), "./c", config, "../l", img.Tars[0])
	if got := w.load(t, climbing); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func marshalled(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// linked is a Docker archive whose layer is a symlink to that target.
func linked(t *testing.T, target string, items, config []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range map[string][]byte{"manifest.json": items, "c": config} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	if err := w.WriteHeader(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: target}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}
