package image

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Keys of the index: image/<id> → entry, name/<canonical> → id,
// layer/<diff id> → layerState.
const (
	imageKey = "image/"
	nameKey  = "name/"
	layerKey = "layer/"
	// damageKey + "blob/" or "layer/" + digest → what is wrong with it
	damageKey = "damage/"
)

// entry is an image as stored; its names are records of their own, so that a
// tag moves from one image to another in one write.
type entry struct {
	Image    record.Image
	Manifest ocispec.Descriptor
	Layout   ocispec.Descriptor // of the manifest translated for OCI layouts; none where Manifest is OCI's
	Index    string             // digest of the index it was chosen from, which images of other platforms may be from too; empty: none
	Blobs    []string           // every blob the image needs
}

// layerState is a layer as stored: begun, then done.
type layerState struct {
	Done  bool
	Layer record.Layer
}

// catalog is what the store knows: never changed once it can be seen.
type catalog struct {
	images map[string]entry        // by id
	names  map[string]string       // canonical name, tagged or with digest → id
	layers map[string]record.Layer // done, by diff id
	damage map[string]string       // what is wrong, by mark
}

func readCatalog(index Index) (c *catalog, begun []string, err error) {
	c = &catalog{images: map[string]entry{}, names: map[string]string{}, layers: map[string]record.Layer{}, damage: map[string]string{}}
	err = index.Each(func(key string, raw []byte) error {
		var err error
		switch {
		case strings.HasPrefix(key, imageKey):
			var e entry
			err = json.Unmarshal(raw, &e)
			c.images[key[len(imageKey):]] = e
		case strings.HasPrefix(key, nameKey):
			var id string
			err = json.Unmarshal(raw, &id)
			c.names[key[len(nameKey):]] = id
		case strings.HasPrefix(key, damageKey):
			var what string
			err = json.Unmarshal(raw, &what)
			c.damage[key[len(damageKey):]] = what
		case strings.HasPrefix(key, layerKey):
			var l layerState
			err = json.Unmarshal(raw, &l)
			if l.Done {
				c.layers[key[len(layerKey):]] = l.Layer
			} else {
				begun = append(begun, key[len(layerKey):])
			}
		}
		return fault.Wrap(fault.Corrupt, "read image record", key, err, "restore the state file from a backup")
	})
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(c.names, func(_, id string) bool { _, ok := c.images[id]; return !ok })
	c.link()
	return c, begun, nil
}

func (c *catalog) clone() *catalog {
	return &catalog{maps.Clone(c.images), maps.Clone(c.names), maps.Clone(c.layers), maps.Clone(c.damage)}
}

// link writes into every image the names that lead to it, and its damage.
func (c *catalog) link() {
	tags, digests := map[string][]string{}, map[string][]string{}
	for name, id := range c.names {
		if strings.Contains(name, "@") {
			digests[id] = append(digests[id], name)
		} else {
			tags[id] = append(tags[id], name)
		}
	}
	for id, e := range c.images {
		e.Image.Names, e.Image.Digests = slices.Sorted(slices.Values(tags[id])), slices.Sorted(slices.Values(digests[id]))
		e.Image.Damage = c.problems(e)
		c.images[id] = e
	}
}

func (c *catalog) list() []record.Image {
	var all []record.Image
	for _, e := range c.images {
		all = append(all, e.Image)
	}
	slices.SortFunc(all, func(a, b record.Image) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// namesOf returns the names of an image, tagged ones first.
func (c *catalog) namesOf(id string) []string {
	img := c.images[id].Image
	return slices.Concat(img.Names, img.Digests)
}

func (c *catalog) usedBlobs() map[string]bool {
	used := map[string]bool{}
	for _, e := range c.images {
		for _, b := range e.Blobs {
			used[b] = true
		}
	}
	return used
}

func (c *catalog) usedLayers() map[string]bool {
	used := map[string]bool{}
	for _, e := range c.images {
		for _, l := range e.Image.Layers {
			used[l.DiffID] = true
		}
	}
	return used
}

// unusedLayers returns the diff ids of layers that no image has.
func (c *catalog) unusedLayers() map[string]bool {
	used := c.usedLayers()
	unused := map[string]bool{}
	for diffID := range c.layers {
		if !used[diffID] {
			unused[diffID] = true
		}
	}
	return unused
}

// verified reports whether the blob is known to be the tar of diffID: it was
// unpacked as such, or compared.
func (c *catalog) verified(blob, diffID string) bool {
	if l, ok := c.layers[diffID]; ok && l.Digest == blob {
		return true
	}
	for _, e := range c.images {
		for _, l := range e.Image.Layers {
			if l.Digest == blob && l.DiffID == diffID {
				return true
			}
		}
	}
	return false
}

// descriptors is the content of the layout's index.json: every image once for
// each of its names.
func (c *catalog) descriptors() []ocispec.Descriptor {
	var all []ocispec.Descriptor
	for _, img := range c.list() {
		e := c.images[img.ID]
		d := e.Manifest
		if e.Layout.Digest != "" {
			d = e.Layout
		}
		d.Platform = &ocispec.Platform{OS: img.OS, Architecture: img.Arch, Variant: img.Variant}
		if len(img.Names) == 0 {
			all = append(all, d)
		}
		for _, name := range img.Names {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: name, containerdName: name}
			all = append(all, d)
		}
	}
	return all
}

// containerdName is how containerd and Docker write a full name into a layout.
const containerdName = "io.containerd.image.name"

// isDigest reports whether s is a digest of the one algorithm used here.
func isDigest(s string) bool {
	d := digest.Digest(s)
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}
