package image

import (
	"cmp"
	"context"
	"fmt"

	"fief/internal/words/fault"
	"fief/internal/words/record"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// build puts an image together from a manifest, wherever its parts come from.
type build struct {
	*Store
	hold     *hold
	manifest ocispec.Descriptor
	raw      []byte // of the manifest
	index    string // digest of the index it was chosen from; empty: none
	doc      document
	config   configFile
	cfgRaw   []byte
	fetch    fetcher
	shared   func(context.Context, layerJob) (record.Layer, error) // gets a layer, instead of fetch; may be nil
	tell     *teller
}

// prepare gets and reads the config, from the store when it is there. get
// returns the bytes of a blob that is not.
func (b *build) prepare(ctx context.Context, get func(ocispec.Descriptor) ([]byte, error)) (err error) {
	b.hold.blob(b.manifest.Digest.String())
	b.hold.blob(b.doc.Config.Digest.String())
	for _, l := range b.doc.Layers {
		b.hold.blob(l.Digest.String())
	}
	b.cfgRaw = b.blobs.small(b.doc.Config.Digest.String(), maxConfig)
	if b.cfgRaw == nil {
		b.cfgRaw, err = get(*b.doc.Config)
	}
	if err != nil {
		return err
	}
	if digestOf(b.cfgRaw) != b.doc.Config.Digest.String() {
		return fault.New(fault.Corrupt, "read image config", b.doc.Config.Digest.String(), "its content has another digest", "")
	}
	b.config, err = parseConfig(b.cfgRaw, len(b.doc.Layers))
	for _, d := range b.config.RootFS.DiffIDs {
		b.hold.layer(d)
	}
	return err
}

// settled is an image that is whole, and known to nobody yet.
type settled struct {
	entry
	names []string
	hold  *hold
}

// finish makes the image known under names.
func (b *build) finish(ctx context.Context, names []string) (record.Image, error) {
	whole, err := b.settle(ctx, names)
	if err != nil {
		return record.Image{}, err
	}
	all, err := b.publish([]settled{whole})
	if err != nil {
		return record.Image{}, err
	}
	return all[0], nil
}

// settle gets every layer, several at once. Layers and blobs are durable when
// it returns, and held.
func (b *build) settle(ctx context.Context, names []string) (settled, error) {
	layers, err := b.allLayers(ctx)
	if err != nil {
		return settled{}, err
	}
	if err := b.addBlob(ctx, b.doc.Config.Digest.String(), b.cfgRaw); err != nil {
		return settled{}, err
	}
	if err := b.addBlob(ctx, b.manifest.Digest.String(), b.raw); err != nil {
		return settled{}, err
	}
	e, translated := b.entry(layers)
	if translated != nil {
		b.hold.blob(e.Layout.Digest.String())
		err = b.addBlob(ctx, e.Layout.Digest.String(), translated)
	}
	return settled{e, names, b.hold}, err
}

// publish makes all of the images known in one write, or none. Their holds must
// last until it returns.
func (s *Store) publish(list []settled) ([]record.Image, error) {
	before := make([]entry, len(list))
	err := s.change(func(c *catalog) (map[string]any, error) {
		puts := map[string]any{}
		for i, whole := range list {
			e := whole.entry
			before[i] = c.images[e.Image.ID]
			if before[i].Image.Manifest == e.Image.Manifest {
				e.Image.Pulled = before[i].Image.Pulled
				e.Index = cmp.Or(e.Index, before[i].Index) // an archive of this platform alone says nothing of the others
			}
			c.images[e.Image.ID] = e
			puts[imageKey+e.Image.ID] = e
			c.setNames(e.Image.ID, whole.names, puts)
		}
		return puts, nil
	})
	if err != nil {
		return nil, err
	}
	var all []record.Image
	for i, whole := range list {
		for _, old := range before[i].Blobs { // another manifest of the same config: its blobs may be of no use now
			whole.hold.blob(old)
		}
		all = append(all, s.known.Load().images[whole.Image.ID].Image)
	}
	return all, nil
}

// entry is the image's record, and the bytes of a manifest for OCI layouts
// where that is not its own.
func (b *build) entry(layers []record.Layer) (entry, []byte) {
	img := b.config.image(b.doc.Config.Digest.String())
	img.Manifest = b.manifest.Digest.String()
	img.Layers = layers
	blobs := []string{img.Manifest, img.ID}
	counted := map[string]bool{}
	for _, l := range layers {
		blobs = append(blobs, l.Digest)
		if !counted[l.DiffID] {
			img.Size += l.Size
		}
		counted[l.DiffID] = true
	}
	desc := ocispec.Descriptor{MediaType: b.manifest.MediaType, Digest: b.manifest.Digest, Size: int64(len(b.raw))}
	if b.doc.MediaType != "" {
		desc.MediaType = b.doc.MediaType
	}
	e := entry{Image: img, Manifest: desc, Index: b.index}
	layout, translated := layoutManifest(desc, b.doc)
	if translated != nil {
		e.Layout = layout
		blobs = append(blobs, layout.Digest.String())
	}
	e.Blobs = uniqueStrings(blobs)
	return e, translated
}

// allLayers returns the layers in order. The first failure ends the others.
func (b *build) allLayers(ctx context.Context) ([]record.Layer, error) {
	jobs := make([]layerJob, len(b.doc.Layers))
	told := map[string]bool{}
	for i, desc := range b.doc.Layers {
		jobs[i] = layerJob{desc, b.config.RootFS.DiffIDs[i]}
		id := barOf(desc.Digest)
		if _, there := b.have(jobs[i]); there {
			b.tell.say(id, "Already exists")
		} else if !told[id] {
			b.tell.say(id, "Pulling fs layer")
		}
		told[id] = true
	}
	out := make([]record.Layer, len(jobs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.opt.MaxParallel)
	for i, job := range jobs {
		_, there := b.have(job)
		group.Go(func() (err error) {
			if b.shared != nil {
				out[i], err = b.shared(ctx, job)
			} else {
				out[i], err = b.layer(ctx, job, b.fetch, b.tell)
			}
			if err == nil && !there {
				b.tell.say(barOf(job.blob.Digest), "Pull complete")
			}
			return about(err, i, len(jobs))
		})
	}
	return out, group.Wait()
}

// about says which layer an error is about, where it does not say so itself.
func about(err error, i, n int) error {
	if err == nil {
		return nil
	}
	return fault.Wrap(fault.ClassOf(err), "get", fmt.Sprintf("layer %d of %d", i+1, n), err, "")
}
