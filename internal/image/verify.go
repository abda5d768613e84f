package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// keeper is what Layers must be besides to be looked through.
type keeper interface {
	// List names every complete layer by the beginning of the digits of its diff
	// id.
	List() ([]string, error)
	// Differences says in what a stored layer is not what the tar r unpacks to.
	Differences(ctx context.Context, diffID string, r io.Reader) ([]string, error)
	// Replace is Unpack of a layer that is there, or ought to be, and damaged. It
	// is never missing meanwhile, and containers that run on it keep the old one.
	Replace(ctx context.Context, diffID string, r io.Reader) (record.Layer, error)
}

// Verify reads everything stored and says what is not as it must be: every
// blob's digest, every image's manifest, config and layers, and every file of
// every layer against its blob, which is unpacked once more for that and needs
// the room. Images may be pulled, removed and run meanwhile. What is damaged is
// noted: see record.Image.Damage. With repair, damaged layers are made anew from
// their blobs where those are sound, and orphans removed; else nothing is
// changed. An error means that the look itself was ended, not that something is
// wrong.
func (s *Store) Verify(ctx context.Context, repair bool, tell func(record.Progress)) (record.Verification, error) {
	v := &verifying{Store: s, ctx: ctx, tell: newTeller(tell), hold: s.hold(), users: map[string][]string{}, found: map[string]string{}}
	defer v.hold.release()
	c := v.pin()
	for _, id := range slices.Sorted(maps.Keys(c.images)) {
		v.image(c.images[id])
	}
	sound := map[string]bool{}
	for _, d := range slices.Sorted(maps.Keys(c.usedBlobs())) {
		if err := ctx.Err(); err != nil {
			return v.out, fault.Wrap(fault.Canceled, "verify", "blobs", err, "")
		}
		sound[d] = v.blob(d)
	}
	for _, diffID := range slices.Sorted(maps.Keys(c.usedLayers())) {
		if err := ctx.Err(); err != nil {
			return v.out, fault.Wrap(fault.Canceled, "verify", "layers", err, "")
		}
		v.layer(c, diffID, sound)
	}
	if err := v.orphans(); err != nil {
		return v.out, err
	}
	_ = v.setMarks(v.found, v.fine) // on a disk that cannot be written to everything else fails by itself
	v.advise(c, sound)
	if repair {
		return v.out, v.repair(c, sound)
	}
	return v.out, nil
}

type verifying struct {
	*Store
	ctx   context.Context
	tell  *teller
	hold  *hold
	users map[string][]string // names of images, by blob, diff id and image id
	found map[string]string   // marks to set, and what is wrong
	fine  []string            // marks to take away
	out   record.Verification
}

// pin keeps everything known from being removed until the hold is released.
func (v *verifying) pin() *catalog {
	c := v.known.Load()
	for id, e := range c.images {
		name := id
		if names := c.namesOf(id); len(names) > 0 {
			name = Familiar(names[0])
		}
		v.users[id] = []string{name}
		for _, b := range e.Blobs {
			v.hold.blob(b)
			if b != id {
				v.users[b] = append(v.users[b], name)
			}
		}
		for _, l := range e.Image.Layers {
			v.hold.layer(l.DiffID)
			if !slices.Contains(v.users[l.DiffID], name) {
				v.users[l.DiffID] = append(v.users[l.DiffID], name)
			}
		}
	}
	return c
}

func (v *verifying) wrong(kind, object, what string) {
	v.out.Problems = append(v.out.Problems, record.Problem{Kind: kind, Object: object, Images: v.users[object], What: what})
}

// broken is wrong of a blob or layer whose content is lost, rather than one that
// could not be looked at.
func (v *verifying) broken(kind, object, what string) {
	v.wrong(kind, object, what)
	v.found[mark(kind, object)] = what
}

// gone reports whether an image was removed since the look began: what is
// missing of it then is no problem.
func (v *verifying) gone(object string) bool {
	c := v.known.Load()
	return !c.usedBlobs()[object] && !c.usedLayers()[object] && c.images[object].Image.ID == ""
}

// image compares an image's record with its manifest and config.
func (v *verifying) image(e entry) {
	v.out.Images++
	id := e.Image.ID
	raw := v.blobs.small(e.Image.Manifest, e.Manifest.Size)
	cfgRaw := v.blobs.small(id, maxConfig)
	if raw == nil || cfgRaw == nil {
		return // said of the blobs themselves
	}
	doc, err := parseDocument(raw, e.Manifest.MediaType)
	if err != nil {
		v.wrong("image", id, err.Error())
		return
	}
	if doc.isIndex || doc.Config.Digest.String() != id || len(doc.Layers) != len(e.Image.Layers) {
		v.wrong("image", id, "its manifest is that of another image")
		return
	}
	cfg, err := parseConfig(cfgRaw, len(doc.Layers))
	if err != nil {
		v.wrong("image", id, err.Error())
		return
	}
	for i, l := range e.Image.Layers {
		if doc.Layers[i].Digest.String() != l.Digest || doc.Layers[i].Size != l.Bytes || cfg.RootFS.DiffIDs[i] != l.DiffID {
			v.wrong("image", id, "its record names other layers than its manifest and config")
			return
		}
	}
}

// blob reads a blob; false when it is not what its digest says.
func (v *verifying) blob(digest string) bool {
	v.out.Blobs++
	f, err := v.blobs.root.Open(blobPath(digest))
	if err != nil {
		if !v.gone(digest) {
			v.unopened("blob", digest, err)
		}
		return false
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, &canceled{v.ctx, f})
	v.out.Bytes += n
	v.tell.bytes(digest[len("sha256:"):][:12], "Verifying blob", n, n)
	switch {
	case v.ctx.Err() != nil:
		return false
	case err != nil:
		v.broken("blob", digest, "it cannot be read: "+err.Error())
		return false
	case sumOf(sum) != digest:
		v.broken("blob", digest, "its content has digest "+sumOf(sum))
		return false
	}
	v.fine = append(v.fine, mark("blob", digest))
	return true
}

// unopened tells a blob that is missing from one that cannot be opened now.
func (v *verifying) unopened(kind, object string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		v.broken(kind, object, "it is missing")
		return
	}
	v.wrong(kind, object, "it cannot be opened: "+err.Error())
}

// layer compares an unpacked layer with a blob that is sound.
func (v *verifying) layer(c *catalog, diffID string, sound map[string]bool) {
	v.out.Layers++
	v.tell.say(diffID[len("sha256:"):][:12], "Verifying layer")
	if _, known := c.layers[diffID]; !known {
		v.broken("layer", diffID, "it was never unpacked whole")
		return
	}
	if !v.layers.Has(diffID) {
		if !v.gone(diffID) {
			v.broken("layer", diffID, "its directory is missing")
		}
		return
	}
	k, ok := v.layers.(keeper)
	blob := c.soundBlob(diffID, sound).Digest
	if !ok || blob == "" {
		return // there is nothing to compare it with: the blob has its own problem
	}
	found, err := v.compare(k, diffID, blob)
	if v.ctx.Err() != nil || v.gone(diffID) {
		return
	}
	if err != nil {
		v.wrong("layer", diffID, "it cannot be compared with its blob: "+err.Error())
	}
	for _, what := range found {
		v.broken("layer", diffID, what)
	}
	if err == nil && len(found) == 0 {
		v.fine = append(v.fine, mark("layer", diffID))
	}
}

// soundBlob is a layer with a blob that is known to unpack to it and was read
// just now; without a digest when there is none.
func (c *catalog) soundBlob(diffID string, sound map[string]bool) record.Layer {
	for _, e := range c.images {
		for _, l := range e.Image.Layers {
			if l.DiffID == diffID && sound[l.Digest] {
				return l
			}
		}
	}
	return record.Layer{}
}

func (v *verifying) compare(k keeper, diffID, blob string) ([]string, error) {
	f, err := v.blobs.open(blob)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tar, _, err := plainTar(v.ctx, &canceled{v.ctx, f}, v.blobs.windows)
	if err != nil {
		return nil, err
	}
	defer tar.Close()
	return k.Differences(v.ctx, diffID, newChecked(tar, diffID))
}

// orphans lists blobs and layers that neither an image nor an operation needs.
func (v *verifying) orphans() error {
	blobs, err := fs.ReadDir(v.root.FS(), blobDir)
	if err != nil {
		return diskFault("list", blobDir, err)
	}
	c := v.known.Load()
	used := c.usedBlobs()
	for _, b := range blobs {
		if d := "sha256:" + b.Name(); !used[d] && !v.pins.has("blob "+d) {
			v.out.Orphans = append(v.out.Orphans, record.Orphan{Kind: "blob", Name: b.Name()})
		}
	}
	k, ok := v.layers.(keeper)
	if !ok {
		return nil
	}
	stray, err := v.strayLayers(k)
	for _, name := range stray {
		v.out.Orphans = append(v.out.Orphans, record.Orphan{Kind: "layer", Name: name})
	}
	return err
}

// strayLayers names the layers on disk that are not in the catalog and that no
// operation is about to note there.
func (s *Store) strayLayers(k keeper) ([]string, error) {
	names, err := k.List()
	if err != nil {
		return nil, err
	}
	expected := s.pins.layers()
	for diffID := range s.known.Load().layers {
		expected = append(expected, diffID)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(expected, func(diffID string) bool { return strings.HasPrefix(diffID, "sha256:"+name) })
	}), nil
}

// sweepStray removes layers on disk that no record knows of. A power cut makes
// them: the record of a removed layer is durable before its directory's move is.
func (s *Store) sweepStray() error {
	k, ok := s.layers.(keeper)
	if !ok {
		return nil
	}
	stray, err := s.strayLayers(k)
	for _, name := range stray {
		if err := s.layers.Remove(name); err != nil {
			return err
		}
	}
	return err
}

// layers returns the diff ids that operations need.
func (p *pins) layers() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.count {
		if diffID, ok := strings.CutPrefix(key, "layer "); ok {
			out = append(out, diffID)
		}
	}
	return out
}
