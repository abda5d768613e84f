package image

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is what images are loaded from, by name of its files: an archive that
// was written down, or a directory.
type source interface {
	small(name string, limit int64) ([]byte, error)
	// layer makes the file a blob of the store, held by h, and describes it.
	layer(ctx context.Context, h *hold, name string) (ocispec.Descriptor, error)
	open(name string) (*os.File, error)
	has(name string) bool
}

// Load reads an archive of images, as `docker save` of any age, podman and
// skopeo write them: Docker's archive or an OCI layout, in a tar, plain or
// compressed. It returns the images it made known, all at once: an archive that
// is damaged, in whichever image, changes nothing.
//
// Of an image of several platforms the host's is kept, as Podman does, or those
// asked for, each an image of its own: the host's, else the one asked for first,
// has the name, and the others are found by it with their platform.
func (s *Store) Load(ctx context.Context, want ask.LoadImages, r io.Reader, tell func(record.Progress)) ([]record.Image, error) {
	if err := checkPlatforms(want.Platforms); err != nil {
		return nil, err
	}
	a, err := readArchive(ctx, s.blobs, r)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return s.load(ctx, want, archiveSource{s, a}, newTeller(tell))
}

// load takes the OCI layout where there is one that is whole: it has the
// manifests and compressed layers as they came from the registry.
func (s *Store) load(ctx context.Context, want ask.LoadImages, src source, t *teller) ([]record.Image, error) {
	l := &loader{Store: s, src: src, asked: want.Platforms, tell: t.loading()}
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
	asked []string // platforms; empty: the host's where there are several
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
	for _, alternatives := range alternatives(doc.Manifests) {
		if err := l.fromLayout(ctx, alternatives); err != nil {
			return err
		}
	}
	return nil
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
		desc, err := l.dockerLayer(ctx, h, name)
		if err != nil {
			return err
		}
		layers = append(layers, desc)
	}
	b, err := l.compose(ctx, h, cfg, layers)
	if err != nil {
		return err
	}
	for _, platform := range l.asked {
		if err := b.config.checkPlatform(nameOf(names, b), platform); err != nil {
			return err
		}
	}
	b.tell = l.tell
	return l.finish(ctx, b, names)
}

// dockerLayer makes a layer of Docker's archive a blob, held by h. That archive
// says nothing of the blobs, only of what is in them.
func (l *loader) dockerLayer(ctx context.Context, h *hold, name string) (ocispec.Descriptor, error) {
	f, err := l.src.open(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	other, err := foreign(in)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if !other {
		return l.src.layer(ctx, h, name)
	}
	desc, _, err := l.rewritten(ctx, h, in)
	return desc, err
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
