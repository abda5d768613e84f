package registrytest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Layer is a tar of regular files, given as name and content in turns.
func Layer(namesAndContents ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(namesAndContents); i += 2 {
		name, body := namesAndContents[i], namesAndContents[i+1]
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeReg}
		must(w.WriteHeader(h))
		_, err := w.Write([]byte(body))
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("registrytest: %v", err))
	}
}

// Gzip compresses.
func Gzip(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(raw)
	must(err)
	must(w.Close())
	return b.Bytes()
}

// Zstd compresses.
func Zstd(raw []byte) []byte {
	w, err := zstd.NewWriter(nil)
	must(err)
	return w.EncodeAll(raw, nil)
}

// Image is an image to be pushed or written into an archive.
type Image struct {
	Blobs        [][]byte // layers as stored, lowest first
	Tars         [][]byte // the same, uncompressed
	MediaTypes   []string // of the layers; nil: OCI, gzip
	Architecture string   // empty: amd64
	Variant      string
	Docker       bool           // schema 2 instead of OCI
	Config       map[string]any // "config" of the config file
}

// Plain is an image of uncompressed layers.
func Plain(tars ...[]byte) Image {
	img := Image{Tars: tars, Blobs: tars}
	for range tars {
		img.MediaTypes = append(img.MediaTypes, ocispec.MediaTypeImageLayer)
	}
	return img
}

// Gzipped is an image of compressed layers.
func Gzipped(tars ...[]byte) Image {
	img := Image{Tars: tars}
	for _, t := range tars {
		img.Blobs = append(img.Blobs, Gzip(t))
	}
	return img
}

// Files returns config, manifest and the descriptor of the manifest.
func (i Image) Files() (config, manifest []byte, desc ocispec.Descriptor) {
	if i.Architecture == "" {
		i.Architecture = "amd64"
	}
	var diffIDs []string
	for _, t := range i.Tars {
		diffIDs = append(diffIDs, digest.FromBytes(t).String())
	}
	config = marshal(map[string]any{
		"architecture": i.Architecture, "variant": i.Variant, "os": "linux", "created": "2024-05-06T07:08:09.123456789Z", "config": i.Config,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": []any{map[string]any{"created_by": "test"}},
	})
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{},
	}
	layerType := ocispec.MediaTypeImageLayerGzip
	if i.Docker {
		m.MediaType, m.Config.MediaType, layerType = DockerManifest, DockerConfig, DockerLayer
	}
	for n, blob := range i.Blobs {
		if i.MediaTypes != nil {
			layerType = i.MediaTypes[n]
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: layerType, Digest: digest.FromBytes(blob), Size: int64(len(blob))})
	}
	manifest = marshal(m)
	return config, manifest, ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
		Platform: &ocispec.Platform{OS: "linux", Architecture: i.Architecture, Variant: i.Variant}}
}

func marshal(v any) []byte {
	raw, err := json.Marshal(v)
	must(err)
	return raw
}

// Push stores the image under repo and, if not empty, a tag.
func (g *Registry) Push(repo, tag string, img Image) ocispec.Descriptor {
	config, manifest, desc := img.Files()
	g.Add(config)
	for _, b := range img.Blobs {
		g.Add(b)
	}
	g.Tag(repo, tag, desc.MediaType, manifest)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range append([][]byte{config}, img.Blobs...) {
		g.owned(repo, digest.FromBytes(b).String())
	}
	return desc
}

// PushIndex stores an index of manifests.
func (g *Registry) PushIndex(repo, tag, mediaType string, manifests ...ocispec.Descriptor) digest.Digest {
	return g.Tag(repo, tag, mediaType, marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests}))
}

// Tar packs files, given as name and content in turns, in that order.
func Tar(namesAndContents ...any) []byte {
	var flat []string
	for _, v := range namesAndContents {
		switch v := v.(type) {
		case string:
			flat = append(flat, v)
		case []byte:
			flat = append(flat, string(v))
		}
	}
	return Layer(flat...)
}

// OCIArchive is the image as an OCI layout in a tar; name is its ref.name.
func (i Image) OCIArchive(name string) []byte {
	config, manifest, desc := i.Files()
	desc.Platform = nil
	if name != "" {
		desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	files := []any{"oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{desc}})}
	for _, b := range append([][]byte{config, manifest}, i.Blobs...) {
		files = append(files, "blobs/sha256/"+digest.FromBytes(b).Encoded(), b)
	}
	return Tar(files...)
}

// DockerArchive is the image as `docker save` wrote it before version 25:
// <id>/layer.tar, and manifest.json last.
func (i Image) DockerArchive(tags ...string) []byte {
	config, _, _ := i.Files()
	name := digest.FromBytes(config).Encoded() + ".json"
	files := []any{name, config}
	var layers []string
	for n, b := range i.Blobs {
		layer := fmt.Sprintf("%064x/layer.tar", n+1)
		layers = append(layers, layer)
		files = append(files, layer, b)
	}
	files = append(files, "manifest.json", marshal([]any{map[string]any{"Config": name, "RepoTags": tags, "Layers": layers}}))
	return Tar(files...)
}
