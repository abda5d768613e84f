package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is what images are loaded from, by name of its files: an archive that
// was written down, or a directory.
type source interface {
	small(name string, limit int64) ([]byte, error)
	// layer makes the file a blob of the store, held by h, and describes it.
	layer(ctx context.Context, h *hold, name string) (ocispec.Descriptor, error)
	has(name string) bool
}

// Load reads an archive of images, as `docker save` of any age, podman and
// skopeo write them: Docker's archive or an OCI layout, in a tar, plain or
// compressed. It returns the images it made known, all at once: an archive that
// is damaged, in whichever image, changes nothing.
func (s *Store) Load(ctx context.Context, r io.Reader, tell func(record.Progress)) ([]record.Image, error) {
	a, err := readArchive(ctx, s.blobs, r)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return s.load(ctx, archiveSource{s, a}, newTeller(tell))
}

// load takes the OCI layout where there is one that is whole: it has the
// manifests and compressed layers as they came from the registry.
func (s *Store) load(ctx context.Context, src source, t *teller) ([]record.Image, error) {
	l := &loader{Store: s, src: src, tell: t.loading()}
	defer l.release()
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	all, err := s.publish(l.whole)
	if err != nil {
		return nil, err
	}
	for i, whole := range l.whole {
		for _, name := range whole.names {
			t.say("", "Loaded image: "+Familiar(name))
		}
		if len(whole.names) == 0 {
			t.say("", "Loaded image ID: "+all[i].ID)
		}
	}
	return distinct(all), nil
}

type loader struct {
	*Store
	src   source
	tell  *teller
	holds []*hold
	whole []settled
}

func (l *loader) read(ctx context.Context) error {
	switch {
	case l.src.has(ocispec.ImageIndexFile) && l.src.has(ocispec.ImageLayoutFile):
		return l.layout(ctx)
	case l.src.has("manifest.json"):
		return l.docker(ctx)
	case l.src.has("repositories"):
		return fault.New(fault.Unsupported, "load images", "", "the archive is of the form that Docker wrote before 1.10", "load it with an old Docker and save it again")
	}
	return fault.New(fault.Corrupt, "load images", "", "there is neither index.json nor manifest.json in the archive", "is it an image archive? A root file system is taken by import")
}

// begin makes a hold that lasts until all images are known.
func (l *loader) begin() *hold {
	h := l.hold()
	l.holds = append(l.holds, h)
	return h
}

func (l *loader) release() {
	for _, h := range l.holds {
		h.release()
	}
}

// finish gets the layers of one image.
func (l *loader) finish(ctx context.Context, b *build, names []string) error {
	whole, err := b.settle(ctx, names)
	if err == nil {
		l.whole = append(l.whole, whole)
	}
	return err
}

// layout loads every image of an OCI layout.
func (l *loader) layout(ctx context.Context) error {
	raw, err := l.src.small(ocispec.ImageIndexFile, 4<<20)
	if err != nil {
		return err
	}
	doc, err := parseDocument(raw, ocispec.MediaTypeImageIndex)
	if err != nil {
		return err
	}
	if !doc.isIndex || len(doc.Manifests) == 0 {
		return fault.New(fault.Corrupt, "load images", "", "index.json lists no image", "")
	}
	manifests, err := onePlatform(doc.Manifests, l.opt.Platform)
	if err != nil {
		return err
	}
	for _, desc := range manifests {
		if err := l.fromLayout(ctx, desc); err != nil {
			return err
		}
	}
	return nil
}

// onePlatform leaves out what cannot be run here of what has the same name:
// some tools write the manifests of all platforms into index.json itself. It
// leaves out attestations too, which Docker marks with an unknown platform.
func onePlatform(all []ocispec.Descriptor, platform string) ([]ocispec.Descriptor, error) {
	groups := map[string][]ocispec.Descriptor{}
	var order []string
	for _, d := range all {
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		name := d.Annotations[containerdName] + " " + d.Annotations[ocispec.AnnotationRefName]
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], d)
	}
	var out []ocispec.Descriptor
	for _, name := range order {
		g := groups[name]
		if len(g) == 1 || slices.ContainsFunc(g, func(d ocispec.Descriptor) bool { return d.Platform == nil }) {
			out = append(out, g...)
			continue
		}
		d, err := document{Manifests: g}.choose(platform)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (l *loader) fromLayout(ctx context.Context, desc ocispec.Descriptor) error {
	names, err := layoutNames(desc)
	if err != nil {
		return err
	}
	desc, raw, doc, err := l.descend(desc)
	if err != nil {
		return err
	}
	b := &build{Store: l.Store, hold: l.begin(), manifest: desc, raw: raw, doc: doc, tell: l.tell}
	b.fetch = func(ctx context.Context, d ocispec.Descriptor, _ *arriving) (bool, error) {
		got, err := l.src.layer(ctx, b.hold, layoutPath(d.Digest))
		if err == nil && (got.Digest != d.Digest || got.Size != d.Size) {
			err = fault.New(fault.Corrupt, "load layer", d.Digest.String(), "its content has digest "+got.Digest.String(), "")
		}
		return true, err
	}
	err = b.prepare(ctx, func(d ocispec.Descriptor) ([]byte, error) { return l.src.small(layoutPath(d.Digest), maxConfig) })
	if err != nil {
		return err
	}
	return l.finish(ctx, b, names)
}

// descend goes from an index to the manifest of the platform.
func (l *loader) descend(desc ocispec.Descriptor) (ocispec.Descriptor, []byte, document, error) {
	for range maxDepth {
		raw, err := l.src.small(layoutPath(desc.Digest), desc.Size)
		if err != nil {
			return desc, nil, document{}, err
		}
		if digestOf(raw) != desc.Digest.String() || int64(len(raw)) != desc.Size {
			return desc, nil, document{}, fault.New(fault.Corrupt, "load manifest", desc.Digest.String(), "its content has another digest or size", "")
		}
		doc, err := parseDocument(raw, desc.MediaType)
		if err != nil || !doc.isIndex {
			return desc, raw, doc, err
		}
		if desc, err = doc.choose(l.opt.Platform); err != nil {
			return desc, nil, doc, err
		}
	}
	return desc, nil, document{}, badDocument("indexes in indexes in indexes")
}

// layoutPath of a digest that parseDocument has accepted.
func layoutPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// layoutNames reads the name from a layout's annotations. Docker and
// containerd write the full name beside the tag; skopeo and podman write what
// they were told, a full name or a bare tag, and a bare tag names nothing.
func layoutNames(desc ocispec.Descriptor) ([]string, error) {
	name := desc.Annotations[containerdName]
	if name == "" {
		name = desc.Annotations[ocispec.AnnotationRefName]
		if !reference.ReferenceRegexp.MatchString(name) || !hasRepository(name) {
			return nil, nil
		}
	}
	return loadedNames([]string{name}, desc.Digest)
}

// hasRepository tells "alpine:3" from "3" and "latest".
func hasRepository(name string) bool {
	named, err := reference.ParseNormalizedNamed(name)
	return err == nil && !reference.IsNameOnly(named)
}

// loadedNames reads the names that an archive gives an image whose manifest, or
// index, has the digest own; empty: one that nobody can know. A name with
// another digest is refused: who asks for an image by its digest must not get
// what an archive says it is.
func loadedNames(names []string, own digest.Digest) ([]string, error) {
	var out []string
	for _, n := range names {
		if n == "<none>:<none>" { // what old clients wrote for an image without a name
			continue
		}
		named, err := parseName(n)
		if err != nil {
			return nil, fault.Wrap(fault.Corrupt, "load image named", short(n), err, "")
		}
		if d, ok := named.(reference.Digested); ok && d.Digest() != own {
			return nil, fault.New(fault.Corrupt, "load image named", short(n), "that is not its digest", "")
		}
		out = append(out, canonical(named))
	}
	return out, nil
}

// dockerItem is one image in the manifest.json of Docker's archive.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker loads every image of a Docker archive. Its layers are named as the
// archive likes (<id>/layer.tar, <digest>.tar, blobs/sha256/<digest>) and may
// be links to each other.
func (l *loader) docker(ctx context.Context) error {
	raw, err := l.src.small("manifest.json", maxJSON)
	if err != nil {
		return err
	}
	items, err := parseDockerItems(raw)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := l.fromDocker(ctx, item); err != nil {
			return err
		}
	}
	return nil
}

func parseDockerItems(raw []byte) ([]dockerItem, error) {
	var items []dockerItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fault.Wrap(fault.Corrupt, "read manifest.json", "", err, "")
	}
	if len(items) == 0 || len(items) > 1000 {
		return nil, fault.New(fault.Corrupt, "read manifest.json", "", fmt.Sprintf("it lists %d images", len(items)), "")
	}
	for _, item := range items {
		if len(item.Layers) > maxLayers {
			return nil, fault.New(fault.Corrupt, "read manifest.json", "", fmt.Sprintf("it lists %d layers", len(item.Layers)), "")
		}
	}
	return items, nil
}

// fromDocker loads one of them. The archive has no manifest: one is written.
// Config and layers come first, as bytes that h holds.
func (l *loader) fromDocker(ctx context.Context, item dockerItem) error {
	names, err := loadedNames(item.RepoTags, "")
	if err != nil {
		return err
	}
	cfg, err := l.src.small(item.Config, maxConfig)
	if err != nil {
		return err
	}
	h := l.begin()
	var layers []ocispec.Descriptor
	for _, name := range item.Layers {
		desc, err := l.src.layer(ctx, h, name)
		if err != nil {
			return err
		}
		layers = append(layers, desc)
	}
	b, err := l.compose(ctx, h, cfg, layers)
	if err != nil {
		return err
	}
	b.tell = l.tell
	return l.finish(ctx, b, names)
}

// distinct drops images that came under several names.
func distinct(all []record.Image) []record.Image {
	var out []record.Image
	at := map[string]int{}
	for _, img := range all {
		if i, seen := at[img.ID]; seen {
			out[i] = img
			continue
		}
		at[img.ID] = len(out)
		out = append(out, img)
	}
	return out
}
