package image

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
)

// saved is one image of an archive and the names it has there.
type saved struct {
	entry
	names  []string // canonical and tagged
	others []entry  // the same image for other platforms, which go with it
}

// all is the image for every platform.
func (f *saved) all() []entry { return append([]entry{f.entry}, f.others...) }

// Save writes the images as one tar. Blobs go into it as they are kept, so that
// manifests, digests and ids are the same after a Load; a blob that images share
// is there once, and the same request of the same images makes the same bytes.
//
// An error that is known beforehand (no such image, a blob that is missing)
// comes before the first byte. Content is verified while it is copied: after an
// error the archive is cut off and must be thrown away.
func (s *Store) Save(ctx context.Context, want ask.SaveImages, w io.Writer) error {
	want.Format = cmp.Or(want.Format, ask.DockerArchive)
	h := s.hold()
	defer h.release()
	list, err := s.chosen(want, h)
	if err != nil {
		return err
	}
	p := &packer{Store: s, ctx: ctx, sizes: map[string]int64{}}
	if err := p.measure(list); err != nil {
		return err
	}
	files, err := p.tables(list, want.Format)
	if err != nil {
		return err
	}
	return p.write(w, files, want.Format)
}

// chosen finds the images and holds their blobs.
func (s *Store) chosen(want ask.SaveImages, h *hold) ([]*saved, error) {
	if len(want.Names) == 0 {
		return nil, fault.Say(fault.Invalid, "no image to save was named")
	}
	if err := checkPlatforms(want.Platforms); err != nil {
		return nil, err
	}
	c := s.known.Load()
	var list []*saved
	for _, name := range want.Names {
		found, err := s.named(c, name)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if err := c.narrow(f, name, want.Platforms, s.opt.Platform); err != nil {
				return nil, err
			}
			list = merged(list, f)
			for _, e := range f.all() {
				for _, b := range e.Blobs {
					h.blob(b)
				}
			}
		}
	}
	now := s.known.Load()
	for _, f := range list { // removed between the look and the hold
		for _, e := range f.all() {
			if _, there := now.images[e.Image.ID]; !there {
				return nil, noSuchImage(e.Image.ID)
			}
		}
	}
	return list, nil
}

// named is what a name stands for: one image, or with a bare repository every
// tagged image of it, as in Docker.
func (s *Store) named(c *catalog, name string) ([]*saved, error) {
	named, err := parseName(name)
	if err == nil && reference.IsNameOnly(named) {
		if all := c.tagged(named.Name()); len(all) > 0 {
			return all, nil
		}
	}
	img, err := s.Resolve(name)
	if err != nil {
		return nil, err
	}
	if img.Host {
		return nil, hostFault("save")
	}
	found := &saved{entry: c.images[img.ID]}
	if found.Image.ID == "" { // came between the two looks
		return nil, noSuchImage(name)
	}
	if _, tagged := named.(reference.Tagged); tagged && !isIDOf(name, img) {
		found.names = []string{canonical(named)}
	}
	return []*saved{found}, nil
}

// tagged is every image with a tag in the repository, by tag.
func (c *catalog) tagged(repository string) []*saved {
	var names []string
	for name := range c.names {
		if strings.HasPrefix(name, repository+":") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []*saved
	for _, name := range names {
		all = merged(all, &saved{entry: c.images[c.names[name]], names: []string{name}})
	}
	return all
}

// merged adds an image, or only its names when it is in the list already.
func merged(list []*saved, f *saved) []*saved {
	i := slices.IndexFunc(list, func(o *saved) bool { return o.Image.ID == f.Image.ID })
	if i < 0 {
		return append(list, f)
	}
	for _, n := range f.names {
		if !slices.Contains(list[i].names, n) {
			list[i].names = append(list[i].names, n)
		}
	}
	for _, e := range f.others {
		if !slices.ContainsFunc(list[i].others, func(o entry) bool { return o.Image.ID == e.Image.ID }) {
			list[i].others = append(list[i].others, e)
		}
	}
	return list
}
