package image

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// mark names a blob or a layer that Verify found damaged: in the index under
// damageKey, with what is wrong as its value, until something has mended it.
// What is marked counts as not there for whoever could bring it.
func mark(kind, digest string) string { return kind + "/" + digest }

// damaged reports whether a blob or layer is marked.
func (c *catalog) damaged(kind, digest string) bool {
	_, is := c.damage[mark(kind, digest)]
	return is
}

// hasBlob reports whether the blob is there with that size and as far as is
// known as it came.
func (s *Store) hasBlob(digest string, size int64) bool {
	return s.blobs.has(digest, size) && !s.known.Load().damaged("blob", digest)
}

// unmark notes that a blob or a layer is as it must be. A note that cannot be
// written costs another fetch, or another look.
func (s *Store) unmark(kind, digest string) {
	if !s.known.Load().damaged(kind, digest) {
		return
	}
	_ = s.change(func(c *catalog) (map[string]any, error) {
		delete(c.damage, mark(kind, digest))
		return map[string]any{damageKey + mark(kind, digest): nil}, nil
	})
}

// setMarks notes what a look has found: damaged blobs and layers, and those
// that are sound.
func (s *Store) setMarks(found map[string]string, sound []string) error {
	return s.change(func(c *catalog) (map[string]any, error) {
		puts := map[string]any{}
		for m, what := range found {
			if c.damage[m] != what {
				c.damage[m], puts[damageKey+m] = what, what
			}
		}
		for _, m := range sound {
			if _, is := c.damage[m]; is {
				delete(c.damage, m)
				puts[damageKey+m] = nil
			}
		}
		return puts, nil
	})
}

// problems are the marks of an image, layers first.
func (c *catalog) problems(e entry) (out []record.Problem) {
	if len(c.damage) == 0 {
		return nil
	}
	told := map[string]bool{}
	tell := func(kind, digest string) {
		if what, is := c.damage[mark(kind, digest)]; is && !told[mark(kind, digest)] {
			told[mark(kind, digest)] = true
			out = append(out, record.Problem{Kind: kind, Object: digest, What: what})
		}
	}
	for _, l := range e.Image.Layers {
		tell("layer", l.DiffID)
	}
	for _, b := range e.Blobs {
		tell("blob", b)
	}
	return out
}

// again says how a user gets an image once more.
func (c *catalog) again(id string) string {
	e := c.images[id]
	switch {
	case len(e.Image.Names) > 0 && len(e.Image.Digests) > 0:
		return "fief pull " + Familiar(e.Image.Names[0])
	case len(e.Image.Digests) > 0:
		return "fief pull " + Familiar(e.Image.Digests[0])
	}
	return "load or import the image again"
}

// remake puts a layer that is damaged, or gone, in its place again. Images that
// have it keep their record of it meanwhile.
func (s *Store) remake(ctx context.Context, k keeper, was record.Layer, r io.Reader) (record.Layer, error) {
	diffID := was.DiffID
	l, err := k.Replace(ctx, diffID, r)
	if err != nil {
		return l, err
	}
	failpoint.Hit("layer-mended")
	return l, s.change(func(c *catalog) (map[string]any, error) {
		l.DiffID, l.Digest, l.Bytes = diffID, was.Digest, was.Bytes
		c.layers[diffID] = l
		delete(c.damage, mark("layer", diffID))
		return map[string]any{
			layerKey + diffID: layerState{Done: true, Layer: l}, damageKey + mark("layer", diffID): nil,
		}, nil
	})
}

// repair makes damaged layers anew from blobs that were read just now and
// removes what nobody needs. What it cannot repair stays as it was found.
func (v *verifying) repair(c *catalog, sound map[string]bool) error {
	for i := range v.out.Problems {
		p := &v.out.Problems[i]
		if p.Kind != "layer" || v.out.Problems[i].Repaired {
			continue
		}
		if err := v.ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, "repair", "layers", err, "")
		}
		k, ok := v.layers.(keeper)
		was := c.soundBlob(p.Object, sound)
		if !ok || was.Digest == "" || !v.marked(*p) {
			continue
		}
		v.tell.say(p.Object[len("sha256:"):][:12], "Repairing layer")
		if err := v.remakeFrom(k, was); err != nil {
			p.What += "; it cannot be made anew: " + err.Error()
			continue
		}
		for j := range v.out.Problems { // several differences are one layer
			if q := &v.out.Problems[j]; q.Kind == "layer" && q.Object == p.Object {
				q.Repaired, q.Advice = true, ""
			}
		}
	}
	return v.removeOrphans()
}

func (v *verifying) marked(p record.Problem) bool {
	_, is := v.found[mark(p.Kind, p.Object)]
	return is
}

func (v *verifying) remakeFrom(k keeper, was record.Layer) error {
	unlock, err := v.busy.lock(v.ctx, layerLock(was.DiffID))
	if err != nil {
		return err
	}
	defer unlock()
	f, err := v.blobs.open(was.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	tar, _, err := plainTar(v.ctx, &canceled{v.ctx, f}, v.blobs.windows)
	if err != nil {
		return err
	}
	defer tar.Close()
	_, err = v.remake(v.ctx, k, was, newChecked(tar, was.DiffID))
	return err
}

// removeOrphans removes what was listed and is still needed by nobody.
func (v *verifying) removeOrphans() error {
	for i := range v.out.Orphans {
		o := &v.out.Orphans[i]
		switch o.Kind {
		case "blob":
			v.collectBlob("sha256:" + o.Name)
			_, err := v.blobs.root.Lstat(blobDir + "/" + o.Name)
			o.Removed = err != nil
		case "layer":
			gone, err := v.removeStray(o.Name)
			if err != nil {
				return err
			}
			o.Removed = gone
		}
	}
	return nil
}

// removeStray removes a layer that no record knows of. Who is about to make it
// has pinned it, or will wait for the lock and begin with removing it.
func (v *verifying) removeStray(name string) (bool, error) {
	unlock, err := v.busy.lock(v.ctx, layerLock("sha256:"+name))
	if err != nil {
		return false, err
	}
	defer unlock()
	k, ok := v.layers.(keeper)
	if !ok {
		return false, nil
	}
	stray, err := v.strayLayers(k)
	if err != nil || !slices.Contains(stray, name) {
		return false, err
	}
	return true, v.layers.Remove(name)
}

// layerLock names the lock of a layer: by as much of its diff id as names it on
// disk.
func layerLock(diffID string) string {
	const digits = 32
	_, hex, _ := strings.Cut(diffID, ":")
	return "layer " + hex[:min(len(hex), digits)]
}

// advise says of every problem what repairs it.
func (v *verifying) advise(c *catalog, sound map[string]bool) {
	for i := range v.out.Problems {
		p := &v.out.Problems[i]
		if p.Kind == "layer" && v.marked(*p) && c.soundBlob(p.Object, sound).Digest != "" {
			p.Advice = "fief system verify --repair"
			continue
		}
		for _, id := range slices.Sorted(maps.Keys(c.images)) {
			if e := c.images[id]; p.Object == id || slices.Contains(e.Blobs, p.Object) || e.hasLayer(p.Object) {
				p.Advice = c.again(id)
				break
			}
		}
	}
}

func (e entry) hasLayer(diffID string) bool {
	return slices.ContainsFunc(e.Image.Layers, func(l record.Layer) bool { return l.DiffID == diffID })
}
