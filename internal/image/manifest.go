package image

import (
	"encoding/json"
	"fmt"
	"mime"

	"fief/internal/image/remote"
	"fief/internal/words/fault"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What an image may consist of.
const (
	maxConfig = 8 << 20
	maxLayers = 500     // overlayfs takes no more (OVL_MAX_STACK)
	maxBlob   = 1 << 40 // bytes of one layer as stored
	maxDepth  = 4       // of indexes in indexes
)

// document is what a manifest and an index have between them. Which of the two
// it is must be clear from it (CVE-2021-41190: one digest, two meanings).
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	FSLayers      json.RawMessage      `json:"fsLayers"` // Docker's schema 1
	isIndex       bool
}

// parseDocument reads a manifest or index. served is the media type it came
// with, empty when it came without.
func parseDocument(raw []byte, served string) (document, error) {
	var d document
	if len(raw) > remote.MaxManifest {
		return d, badDocument("it has more than 4 MiB")
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d, fault.Wrap(fault.Corrupt, "read manifest", "", err, "")
	}
	if d.FSLayers != nil || d.SchemaVersion == 1 {
		return d, fault.New(fault.Unsupported, "read manifest", "", "it is of Docker's schema 1, which was given up in 2019", "push the image again with a newer client")
	}
	if d.SchemaVersion != 2 {
		return d, badDocument(fmt.Sprintf("it is of schema %d", d.SchemaVersion))
	}
	kind := d.MediaType
	if kind == "" {
		kind, _, _ = mime.ParseMediaType(served)
	}
	switch kind {
	case ocispec.MediaTypeImageIndex, remote.DockerList:
		d.isIndex = true
	case ocispec.MediaTypeImageManifest, remote.DockerManifest:
	case "", "application/json", "text/plain", "application/octet-stream":
		d.isIndex = d.Manifests != nil
	default:
		return d, fault.New(fault.Unsupported, "read manifest", "", fmt.Sprintf("media type %q is no image", kind), "")
	}
	if d.isIndex {
		return d, d.checkIndex()
	}
	return d, d.checkManifest()
}

func badDocument(why string) error { return fault.New(fault.Corrupt, "read manifest", "", why, "") }

func (d document) checkIndex() error {
	if d.Config != nil || d.Layers != nil {
		return badDocument("it is an index and a manifest at once")
	}
	if len(d.Manifests) > 10_000 {
		return badDocument(fmt.Sprintf("it lists %d manifests", len(d.Manifests)))
	}
	for _, m := range d.Manifests {
		if err := checkDescriptor(m, remote.MaxManifest); err != nil {
			return err
		}
	}
	return nil
}

func (d document) checkManifest() error {
	if d.Manifests != nil {
		return badDocument("it is an index and a manifest at once")
	}
	if d.Config == nil {
		return badDocument("it has no config")
	}
	if t := d.Config.MediaType; t != "" && t != ocispec.MediaTypeImageConfig && t != dockerConfig && t != "application/octet-stream" {
		return fault.New(fault.Unsupported, "read manifest", "", fmt.Sprintf("config of media type %q is not that of a container image", t), "")
	}
	if err := checkDescriptor(*d.Config, maxConfig); err != nil {
		return err
	}
	if len(d.Layers) > maxLayers {
		return badDocument(fmt.Sprintf("it has %d layers, more than %d", len(d.Layers), maxLayers))
	}
	for _, l := range d.Layers {
		if err := checkDescriptor(l, maxBlob); err != nil {
			return err
		}
	}
	return nil
}

// dockerConfig is the media type of a config in Docker's schema 2.
const dockerConfig = "application/vnd.docker.container.image.v1+json"

// checkDescriptor keeps anything but a sha256 digest out of paths and requests.
func checkDescriptor(d ocispec.Descriptor, limit int64) error {
	if !isDigest(d.Digest.String()) {
		return badDocument(fmt.Sprintf("%q is no sha256 digest", short(d.Digest.String())))
	}
	if d.Size < 0 || d.Size > limit {
		return badDocument(fmt.Sprintf("%s is said to have %d bytes", d.Digest, d.Size))
	}
	return nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// matcher understands "os[/arch[/variant]]"; empty is the host's platform.
func matcher(platform string) (platforms.MatchComparer, error) {
	if platform == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "use platform", platform, err, "platforms are written like linux/arm64")
	}
	return platforms.Only(p), nil
}

// checkPlatforms refuses what names no platform before anything is begun.
func checkPlatforms(asked []string) error {
	if len(asked) > maxPlatforms {
		return fault.New(fault.Invalid, "use platforms", "", fmt.Sprintf("%d are too many", len(asked)), "")
	}
	for _, p := range asked {
		if p == "" {
			return fault.New(fault.Invalid, "use platform", "", "it is empty", "platforms are written like linux/arm64")
		}
		if _, err := matcher(p); err != nil {
			return err
		}
	}
	return nil
}

// maxPlatforms is more than any image has.
const maxPlatforms = 64

// choose picks the best manifest of an index. Entries without a platform are
// taken only when there is nothing else to choose from: layouts of one image
// have such.
func (d document) choose(platform string) (ocispec.Descriptor, error) {
	match, err := matcher(platform)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var best *ocispec.Descriptor
	for i, m := range d.Manifests {
		if m.Platform == nil || !match.Match(*m.Platform) {
			continue
		}
		if best == nil || match.Less(*m.Platform, *best.Platform) {
			best = &d.Manifests[i]
		}
	}
	if best == nil && len(d.Manifests) == 1 && d.Manifests[0].Platform == nil {
		best = &d.Manifests[0]
	}
	if best == nil {
		if platform == "" {
			platform = platforms.DefaultString()
		}
		return ocispec.Descriptor{}, fault.Say(fault.NotFound, "no matching manifest for "+platform+" in the manifest list entries")
	}
	return *best, nil
}

func digestOf(raw []byte) string { return digest.FromBytes(raw).String() }
