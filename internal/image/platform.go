package image

import (
	"slices"
	"strings"

	"fief/internal/words/record"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Images of several platforms that came from one index, whenever each came, are
// kept as an image each and know the index. A name leads to one of them.

// family is the image and those that came from the same index, that one first
// and the others in the order of their ids.
func (c *catalog) family(id string) []entry {
	own := c.images[id]
	all := []entry{own}
	if own.Index == "" {
		return all
	}
	for other, e := range c.images {
		if other != id && e.Index == own.Index {
			all = append(all, e)
		}
	}
	slices.SortFunc(all[1:], func(a, b entry) int { return strings.Compare(a.Image.ID, b.Image.ID) })
	return all
}

// ofPlatform finds the image for a platform; name is what it was called.
func (c *catalog) ofPlatform(id, name, asked string) (entry, error) {
	match, err := matcher(asked)
	if err != nil {
		return entry{}, err
	}
	all := c.family(id)
	list := platformsOf(all)
	if at := best(list, asked); match.Match(list[at]) {
		return all[at], nil
	}
	if len(all) == 1 {
		return entry{}, notOfPlatform(name, asked, list[0])
	}
	var stored []string
	for _, p := range list {
		stored = append(stored, platforms.Format(p))
	}
	slices.Sort(stored)
	return entry{}, platformAbsent(name, asked, strings.Join(slices.Compact(stored), ", "))
}

func platformsOf(all []entry) []ocispec.Platform {
	var list []ocispec.Platform
	for _, e := range all {
		list = append(list, platformOf(e.Image))
	}
	return list
}

func platformOf(img record.Image) ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{OS: img.OS, Architecture: img.Arch, Variant: img.Variant})
}

// narrow leaves the platforms asked for: the one that fits the host best, else
// the first, with the others beside it.
func (c *catalog) narrow(f *saved, name string, asked []string, host string) error {
	if len(asked) == 0 {
		return nil
	}
	var all []entry
	for _, platform := range asked {
		e, err := c.ofPlatform(f.Image.ID, name, platform)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(o entry) bool { return o.Image.ID == e.Image.ID }) {
			all = append(all, e)
		}
	}
	at := best(platformsOf(all), host)
	f.entry = all[at]
	f.others = slices.Delete(all, at, at+1)
	return nil
}

// ResolveFor finds an image by name, as Resolve does, for a platform; empty: the
// one that the name stands for.
func (s *Store) ResolveFor(name, platform string) (record.Image, error) {
	img, err := s.Resolve(name)
	if err != nil || platform == "" {
		return img, err
	}
	if img.Host {
		return img, hostIsOf(img, name, platform)
	}
	c := s.known.Load()
	if _, there := c.images[img.ID]; !there { // removed between the two looks
		return record.Image{}, noSuchImage(name)
	}
	e, err := c.ofPlatform(img.ID, name, platform)
	return e.Image, err
}

// hostIsOf refuses the host's image for another platform than the host's.
func hostIsOf(img record.Image, name, platform string) error {
	match, err := matcher(platform)
	if err == nil && !match.Match(platformOf(img)) {
		err = notOfPlatform(name, platform, platformOf(img))
	}
	return err
}
