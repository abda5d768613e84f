package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"

	"github.com/distribution/reference"
)

// FuzzDocument: what is accepted is one thing, bounded, with digests that can
// be paths.
func FuzzDocument(f *testing.F) {
	config, manifest, _ := registrytest.Gzipped(registrytest.Layer("a", "1")).Files()
	f.Add(manifest, "application/vnd.oci.image.manifest.v1+json")
	f.Add(config, "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}`), "text/plain")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, served string) {
		d, err := parseDocument(raw, served)
		if err != nil {
			return
		}
		if d.isIndex && (d.Config != nil || d.Layers != nil) || !d.isIndex && (d.Manifests != nil || d.Config == nil) {
			t.Fatalf("two things at once: %s", raw)
		}
		for _, desc := range append(d.Manifests, d.Layers...) {
			if p := blobPath(desc.Digest.String()); len(p) != len(blobDir)+65 || strings.Contains(p, "..") || desc.Size < 0 {
				t.Fatalf("%+v", desc)
			}
		}
		d.choose("linux/amd64")
	})
}

// FuzzConfig: what is accepted can be stored and read again.
func FuzzConfig(f *testing.F) {
	config, _, _ := registrytest.Plain(registrytest.Layer("a", "1")).Files()
	f.Add(config, 1)
	f.Add([]byte(`{"config":{"Entrypoint":"x","Cmd":null},"rootfs":{"diff_ids":[]}}`), 0)
	f.Add([]byte(`{"os":"windows"}`), 0)
	f.Fuzz(func(t *testing.T, raw []byte, layers int) {
		c, err := parseConfig(raw, layers)
		if err != nil {
			return
		}
		for _, d := range c.RootFS.DiffIDs {
			if !isDigest(d) {
				t.Fatal(d)
			}
		}
		if _, err := json.Marshal(entry{Image: c.image("sha256:x")}); err != nil {
			t.Fatal(err)
		}
		c.checkPlatform("x", "linux/amd64")
	})
}

// FuzzDockerItems: the manifest.json of an archive.
func FuzzDockerItems(f *testing.F) {
	f.Add([]byte(`[{"Config":"c","RepoTags":["a:1",""],"Layers":["../../x","y/layer.tar"]}]`))
	f.Add([]byte(`[{"RepoTags":null}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		items, err := parseDockerItems(raw)
		if err != nil {
			return
		}
		a := &archive{}
		for _, item := range items {
			loadedNames(item.RepoTags, "")
			for _, l := range append(item.Layers, item.Config) {
				if _, err := a.find(l); err == nil {
					t.Fatalf("found %q in nothing", l)
				}
				if c := cleanMember(l); strings.HasPrefix(c, "/") || strings.HasPrefix(c, "../") || c == ".." {
					t.Fatalf("%q became %q", l, c)
				}
			}
		}
	})
}

// FuzzReference: a name that is accepted has one canonical form, and its
// familiar form leads back to it.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c", "localhost:5000/x", "x@sha256:" + strings.Repeat("a", 64), "a:b@sha256:" + strings.Repeat("0", 64), "UPPER", "docker.io/library/a", "index.docker.io/a", "[::1]:5000/a:b", "library/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		named, err := parseName(s)
		if err != nil {
			return
		}
		full := canonical(named)
		again, err := parseName(full)
		if err != nil || canonical(again) != full {
			t.Fatalf("%q → %q → %v %v", s, full, again, err)
		}
		back, err := parseName(Familiar(full))
		if err != nil || canonical(back) != full {
			t.Fatalf("%q → %q → %v %v", full, Familiar(full), back, err)
		}
		if refOf(reference.TagNameOnly(named)) == "" {
			t.Fatalf("%q asks for nothing", s)
		}
	})
}

// FuzzChanges: Dockerfile instructions.
func FuzzChanges(f *testing.F) {
	for _, s := range []string{`CMD ["a"]`, `ENV a=b c="d e"`, `LABEL a`, `ENV a b`, `VOLUME ["/x"]`, `EXPOSE 1 2/udp`, `ENV "\`, "ENV\ta=b", `HEALTHCHECK --retries=3 CMD x`, `ONBUILD RUN x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var c configRun
		if c.apply(line) != nil {
			return
		}
		for _, e := range c.Env {
			if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
				t.Fatalf("%q gives %q", line, e)
			}
		}
	})
}

// FuzzPlainTar: any bytes as a compressed stream of any kind.
func FuzzPlainTar(f *testing.F) {
	raw := registrytest.Layer("a", "some text")
	f.Add(raw)
	f.Add(registrytest.Gzip(raw))
	f.Add(registrytest.Zstd(raw))
	f.Add(xzOf(raw, dictionary4K))
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := plainArchive(t.Context(), bytes.NewReader(raw), nil)
		if err != nil {
			return
		}
		defer r.Close()
		a := newAhead(r)
		io.Copy(io.Discard, io.LimitReader(a, 1<<20))
		a.Close()
	})
}

// FuzzLoad: any bytes as an archive leave the store as it was, or an image.
func FuzzLoad(f *testing.F) {
	img := registrytest.Plain(registrytest.Layer("a", "1"))
	f.Add(img.DockerArchive("x:1"))
	f.Add(img.OCIArchive("x:1"))
	f.Add(registrytest.Tar("oci-layout", "{}", "index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:../../x","size":5}]}`))
	f.Add(registrytest.Tar("../../manifest.json", `[{"Config":"/c","RepoTags":["x:1"],"Layers":["l","l"]}]`, "c", "{}", "l", "", "manifest.json", "[]"))
	f.Add([]byte("BZh91AY&SY"))
	f.Add(xzOf(img.DockerArchive("x:1"), dictionary4K))
	f.Add(multi("docker.io/library/x:1", true))
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := w.state(t)
		if imgs, err := w.Load(context.Background(), ask.LoadImages{}, bytes.NewReader(raw), nil); err == nil {
			for _, img := range imgs {
				if _, err := w.Remove(img.ID, true, nobody); err != nil {
					t.Fatal(err)
				}
			}
		}
		if after := w.state(t); after != before {
			t.Fatalf("was\n%s\nis\n%s", before, after)
		}
	})
}
