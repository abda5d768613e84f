package image

import (
	"runtime"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/distribution/reference"
)

// HostName is the built-in image: the host's own /usr, with nothing stored.
const HostName = "host:latest"

// Resolve finds an image by name[:tag], name@digest, id, manifest digest, or
// an unambiguous beginning of an id. It does no I/O and takes no lock.
func (s *Store) Resolve(name string) (record.Image, error) {
	c := s.known.Load()
	if id, ok := c.byID(name); ok {
		return c.images[id].Image, nil
	}
	if isHex(name) && len(name) == 64 || strings.HasPrefix(name, "sha256:") && isDigest(name) {
		return record.Image{}, noSuchImage(name)
	}
	named, err := parseName(name)
	if err != nil {
		return record.Image{}, err
	}
	if id, ok := c.names[canonical(named)]; ok {
		return c.images[id].Image, nil
	}
	if id, err := c.byPrefix(name); id != "" || err != nil {
		return c.images[id].Image, err
	}
	if reference.FamiliarString(reference.TagNameOnly(named)) == HostName {
		return hostImage(), nil
	}
	return record.Image{}, noSuchImage(reference.FamiliarString(reference.TagNameOnly(named)))
}

// noSuchImage is Docker's sentence: its command line pulls when it reads it.
func noSuchImage(name string) error { return fault.Say(fault.NotFound, "No such image: "+name) }

// byID finds a full id, with or without its algorithm, or a manifest's digest.
func (c *catalog) byID(name string) (string, bool) {
	id := name
	if isHex(name) && len(name) == 64 {
		id = "sha256:" + name
	}
	if !isDigest(id) {
		return "", false
	}
	if _, ok := c.images[id]; ok {
		return id, true
	}
	for other, e := range c.images {
		if e.Image.Manifest == id {
			return other, true
		}
	}
	return "", false
}

// byPrefix returns "" when no id begins with prefix.
func (c *catalog) byPrefix(prefix string) (found string, err error) {
	prefix = strings.TrimPrefix(prefix, "sha256:")
	if !isHex(prefix) {
		return "", nil
	}
	for id := range c.images {
		if !strings.HasPrefix(id[len("sha256:"):], prefix) {
			continue
		}
		if found != "" {
			return "", fault.New(fault.Invalid, "find image", prefix, "several ids begin so", "write more digits of it")
		}
		found = id
	}
	return found, nil
}

// hostImage is the record of the host's own file system.
func hostImage() record.Image {
	return record.Image{
		Version: record.Version,
		Names:   []string{HostName},
		OS:      "linux",
		Arch:    runtime.GOARCH,
		Comment: "the host's /usr, read-only, with an empty file system around it",
		Config: record.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{"/bin/sh"},
		},
		Host: true,
	}
}

// Tag gives the image src another name, which moves when it was another's.
func (s *Store) Tag(src, dst string) error {
	img, err := s.Resolve(src)
	if err != nil {
		return err
	}
	if img.Host {
		return hostFault("tag")
	}
	named, err := parseName(dst)
	if err != nil {
		return err
	}
	if _, ok := named.(reference.Digested); ok {
		return fault.Say(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	if reference.FamiliarName(named) == "sha256" {
		return fault.Say(fault.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	return s.change(func(c *catalog) (map[string]any, error) {
		if _, ok := c.images[img.ID]; !ok { // removed meanwhile
			return nil, noSuchImage(src)
		}
		puts := map[string]any{}
		c.setNames(img.ID, []string{canonical(named)}, puts)
		return puts, nil
	})
}

func hostFault(op string) error {
	return fault.New(fault.Invalid, op, HostName, "it is built in", "")
}
