package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func ofArch(arch, variant string) registrytest.Image {
	img := registrytest.Gzipped(registrytest.Layer("base", "shared"), registrytest.Layer("arch", arch+variant))
	img.Architecture, img.Variant = arch, variant
	return img
}

// multi is a layout of an image of three platforms with an attestation: in an
// index of its own, as buildx and docker write it, or listed in index.json itself.
func multi(name string, nested bool) []byte {
	var list []ocispec.Descriptor
	blobs := map[string][]byte{}
	for _, img := range []registrytest.Image{ofArch("arm64", "v8"), ofArch("amd64", ""), ofArch("s390x", "")} {
		config, manifest, desc := img.Files()
		list = append(list, desc)
		for _, b := range append([][]byte{config, manifest}, img.Blobs...) {
			blobs["blobs/sha256/"+digest.FromBytes(b).Encoded()] = b
		}
	}
	list = append(list, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("attestation"), Size: 11,
		Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"}})
	top := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	if nested {
		raw, _ := json.Marshal(top)
		blobs["blobs/sha256/"+digest.FromBytes(raw).Encoded()] = raw
		top.Manifests = []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}
	}
	for i := range top.Manifests {
		top.Manifests[i].Annotations = map[string]string{containerdName: name, ocispec.AnnotationRefName: "1"}
	}
	raw, _ := json.Marshal(top)
	files := []any{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", raw}
	for name, b := range blobs {
		files = append(files, name, b)
	}
	return registrytest.Tar(files...)
}

func (w *world) loadFor(raw []byte, platforms ...string) ([]record.Image, error) {
	return w.Load(context.Background(), ask.LoadImages{Platforms: platforms}, bytes.NewReader(raw), nil)
}

func arches(imgs []record.Image) string {
	var out []string
	for _, i := range imgs {
		out = append(out, fmt.Sprintf("%s%s:%d", i.Arch, i.Variant, len(i.Names)))
	}
	return strings.Join(out, " ")
}

// Only what was asked for is kept; the host's platform has the name.
func TestLoadPlatforms(t *testing.T) {
	for _, nested := range []bool{true, false} {
		raw := multi("docker.io/library/all:1", nested)
		for asked, want := range map[string]string{
			"":                                       "amd64:1",
			"linux/arm64":                            "arm64v8:1",
			"linux/arm64,linux/amd64":                "arm64v8:0 amd64:1",
			"linux/s390x,linux/arm64/v8":             "s390x:1 arm64v8:0",
			"linux/amd64,linux/amd64":                "amd64:1",
			"linux/s390x,linux/amd64,linux/arm64":    "s390x:0 amd64:1 arm64v8:0",
			"linux/amd64,linux/arm64,linux/arm64/v8": "amd64:1 arm64v8:0",
		} {
			w := newWorld(t)
			imgs, err := w.loadFor(raw, strings.FieldsFunc(asked, func(r rune) bool { return r == ',' })...)
			if err != nil || arches(imgs) != want {
				t.Errorf("%q: %s %v, want %s", asked, arches(imgs), err, want)
			}
			if n := len(w.List()); n != len(imgs) {
				t.Errorf("%q: %d images are stored", asked, n)
			}
		}
		w := newWorld(t)
		w.unchanged(t, func() {
			_, err := w.loadFor(raw, "linux/amd64", "linux/riscv64")
			wantClass(t, err, fault.NotFound, "image with reference all:1 was found but does not provide the specified platform (linux/riscv64)")
			_, err = w.loadFor(raw, "linux/amd64", "")
			wantClass(t, err, fault.Invalid, "empty")
			_, err = w.loadFor(raw, "a/b/c/d")
			wantClass(t, err, fault.Invalid, "a/b/c/d")
			_, err = w.loadFor(raw, slices.Repeat([]string{"linux/amd64"}, 65)...)
			wantClass(t, err, fault.Invalid, "too many")
		})
	}
	one := ofArch("arm64", "v8")
	for kind, raw := range map[string][]byte{"docker": one.DockerArchive("one:1"), "oci": one.OCIArchive("one:1")} {
		w := newWorld(t)
		w.unchanged(t, func() {
			for _, asked := range [][]string{{"linux/amd64"}, {"linux/arm64", "linux/amd64"}} {
				_, err := w.loadFor(raw, asked...)
				wantClass(t, err, fault.NotFound, "image with reference one:1 was found but does not match the specified platform: wanted linux/amd64, actual: linux/arm64")
			}
		})
		if imgs, err := w.loadFor(raw, "linux/arm64"); err != nil || arches(imgs) != "arm64v8:1" {
			t.Errorf("%s: %s %v", kind, arches(imgs), err)
		}
	}
}

// Two images without a name are two, also when an archive says their platform.
func TestUnnamedAreNoAlternatives(t *testing.T) {
	w := newWorld(t)
	a := w.load(t, ofArch("amd64", "").OCIArchive(""))[0]
	b := w.load(t, registrytest.Plain(registrytest.Layer("b", "")).OCIArchive(""))[0]
	got := newWorld(t).load(t, w.save(t, ask.SaveImages{Names: []string{a.ID, b.ID}}))
	if len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

// What has been stored of an image, whenever it came, is saved under its name,
// and comes back as it was.
func TestSavePlatforms(t *testing.T) {
	raw := multi("docker.io/library/all:1", true)
	w := newWorld(t)
	for _, p := range []string{"linux/arm64", "linux/amd64"} { // the name moves on
		if _, err := w.loadFor(raw, p); err != nil {
			t.Fatal(err)
		}
	}
	w.reopen(t)
	both := []string{"linux/amd64", "linux/arm64"}
	for _, format := range []ask.SaveFormat{ask.DockerArchive, ask.OCIArchive, ask.OCIDir} {
		want := ask.SaveImages{Names: []string{"all:1"}, Format: format, Platforms: both}
		saved := w.save(t, want)
		if !bytes.Equal(saved, w.save(t, want)) {
			t.Errorf("%s: two archives of the same differ", format)
		}
		files := members(t, saved)
		for _, e := range w.known.Load().images {
			for _, b := range e.Blobs {
				if _, there := files[blobPath(b)]; !there {
					t.Errorf("%s: %s is missing", format, b)
				}
			}
		}
		other := newWorld(t)
		imgs, err := other.loadFor(saved, both...)
		if err != nil || arches(imgs) != "amd64:1 arm64v8:0" {
			t.Errorf("%s: %s %v", format, arches(imgs), err)
		}
		for _, i := range w.List() {
			if got, err := other.Resolve(i.ID); err != nil || got.Manifest != i.Manifest {
				t.Errorf("%s: %+v %v", format, got, err)
			}
		}
		if got := other.save(t, want); !bytes.Equal(got, saved) {
			t.Errorf("%s: saved again it is another archive", format)
		}
	}
	// One of them is an archive of it alone; loading that breaks no tie.
	alone := w.save(t, ask.SaveImages{Names: []string{"all:1"}, Platforms: []string{"linux/arm64"}})
	if imgs, err := newWorld(t).loadFor(alone); err != nil || arches(imgs) != "arm64v8:1" {
		t.Errorf("%s %v", arches(imgs), err)
	}
	w.load(t, alone)
	w.save(t, ask.SaveImages{Names: []string{"all:1"}, Platforms: both})

	for p, arch := range map[string]string{"": "arm64", "linux/amd64": "amd64", "linux/arm64": "arm64", "linux": "amd64"} {
		if img, err := w.ResolveFor("all:1", p); err != nil || img.Arch != arch {
			t.Errorf("%q: %s %v", p, img.Arch, err)
		}
	}
	err := w.Save(context.Background(), ask.SaveImages{Names: []string{"all:1"}, Platforms: []string{"linux/amd64", "linux/s390x"}}, io.Discard)
	wantClass(t, err, fault.NotFound, "image with reference all:1 was found but does not provide the specified platform (linux/s390x); there is linux/amd64, linux/arm64")
	err = w.Save(context.Background(), ask.SaveImages{Names: []string{"all:1"}, Platforms: both, Format: ask.DockerDir}, io.Discard)
	wantClass(t, err, fault.Invalid, "one image")
	for _, name := range []string{"host", "nowhere:1"} {
		if _, err := w.ResolveFor(name, "linux/mips"); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// skopeo finds every platform in what is saved.
func TestSavePlatformsSkopeo(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	both := []string{"linux/amd64", "linux/arm64"}
	if _, err := w.loadFor(multi("docker.io/library/all:1", true), both...); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "both.tar")
	if err := os.WriteFile(file, w.save(t, ask.SaveImages{Names: []string{"all:1"}, Platforms: both, Format: ask.OCIArchive}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		to := filepath.Join(dir, arch+".tar")
		skopeo(t, "--override-arch", arch, "oci-archive:"+file+":docker.io/library/all:1", "docker-archive:"+to+":copied:1")
		raw, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if got := newWorld(t).load(t, raw); len(got) != 1 || got[0].Arch != arch {
			t.Errorf("%s: %+v", arch, got)
		}
	}
}
