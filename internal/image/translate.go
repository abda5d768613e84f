package image

import (
	"fief/internal/image/remote"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A manifest of Docker's schema 2 and one of OCI say the same in other words.
// Both are needed: skopeo and podman find an image in an OCI layout by name only
// when its manifest is OCI's (containers/image, oci/layout: getManifestDescriptor),
// and Docker's schema 2 is all that old tools know.

// ociManifest is the same image in OCI's words. Layers that were called foreign
// (to be fetched from URLs, not from registries) are called layers: their blobs
// are here.
func ociManifest(doc document) []byte {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: plainDescriptor(*doc.Config, ocispec.MediaTypeImageConfig), Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for _, l := range doc.Layers {
		kind := l.MediaType
		switch kind {
		case dockerLayerTar, dockerForeignTar:
			kind = ocispec.MediaTypeImageLayer
		case dockerLayerGzip, dockerForeignGzip:
			kind = ocispec.MediaTypeImageLayerGzip
		case dockerLayerZstd:
			kind = ocispec.MediaTypeImageLayerZstd
		}
		m.Layers = append(m.Layers, plainDescriptor(l, kind))
	}
	return encoded(m)
}

// dockerManifest is the same image in the words of Docker's schema 2. kinds are
// the media types of its layers, of dockerLayerTar and dockerLayerGzip.
func dockerManifest(doc document, kinds []string) []byte {
	m := ocispec.Manifest{MediaType: remote.DockerManifest, Config: plainDescriptor(*doc.Config, dockerConfig), Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for i, l := range doc.Layers {
		m.Layers = append(m.Layers, plainDescriptor(l, kinds[i]))
	}
	return encoded(m)
}

// Media types of layers in Docker's schema 2.
const (
	dockerLayerTar    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip   = dockerLayerTar + ".gzip"
	dockerLayerZstd   = dockerLayerTar + ".zstd"
	dockerForeignTar  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignGzip = dockerForeignTar + ".gzip"
)

func plainDescriptor(d ocispec.Descriptor, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: d.Size}
}

// layoutManifest is what stands for the image in an OCI layout: its own
// manifest, or a translation, whose bytes it returns too.
func layoutManifest(own ocispec.Descriptor, doc document) (ocispec.Descriptor, []byte) {
	if own.MediaType != remote.DockerManifest {
		return own, nil
	}
	raw := ociManifest(doc)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw
}
