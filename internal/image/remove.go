package image

import (
	"fmt"
	"slices"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"

	"github.com/distribution/reference"
)

// Use is a container made from an image.
type Use struct {
	ID      string // of the container
	Running bool
}

// Remove takes a name from an image, or, given an id, all its names, and with
// the last name the image, its blobs and the layers that no other image has.
// inUse returns the containers made from an image; whoever calls keeps new ones
// from being made meanwhile. The rules and the words are Docker's, with one
// difference: an image that containers still use is never deleted. With force
// its names go and, when none of them runs, it stays, nameless, until a Remove by
// id after its last container.
func (s *Store) Remove(name string, force bool, inUse func(imageID string) []Use) ([]record.Removed, error) {
	img, err := s.Resolve(name)
	if err != nil {
		return nil, err
	}
	if img.Host {
		return nil, hostFault("remove")
	}
	users := inUse(img.ID)
	var out []record.Removed
	var gone entry
	err = s.change(func(c *catalog) (puts map[string]any, err error) {
		r := &removal{catalog: c, name: name, force: force, users: users, puts: map[string]any{}}
		if r.entry = c.images[img.ID]; r.entry.Image.ID == "" { // removed meanwhile
			return nil, noSuchImage(name)
		}
		if isIDOf(name, img) {
			err = r.byID()
		} else {
			err = r.byName()
		}
		out, gone = r.out, r.gone
		return r.puts, err
	})
	if err != nil || gone.Image.ID == "" {
		return out, err
	}
	blobs, layers := map[string]bool{}, map[string]bool{}
	for _, b := range gone.Blobs {
		blobs[b] = true
	}
	for _, l := range gone.Image.Layers {
		layers[l.DiffID] = true
	}
	for _, diffID := range s.collect(blobs, layers) {
		out = append(out, record.Removed{Deleted: diffID})
	}
	return out, nil
}

// isIDOf reports whether name is an id of img or the beginning of one, rather
// than one of its names.
func isIDOf(name string, img record.Image) bool {
	if name == img.Manifest {
		return true
	}
	return strings.HasPrefix(img.ID, name) || strings.HasPrefix(img.ID[len("sha256:"):], name)
}

// removal decides what a Remove does, on a catalog of its own.
type removal struct {
	*catalog
	entry entry
	name  string
	force bool
	users []Use
	puts  map[string]any
	out   []record.Removed
	gone  entry // the image, if it goes
}

func (r *removal) byName() error {
	named, err := parseName(r.name)
	if err != nil {
		return err
	}
	names := r.namesOf(r.entry.Image.ID)
	if !r.force && oneReference(names) && len(r.users) > 0 {
		return fault.Say(fault.Conflict, fmt.Sprintf(
			"conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			r.name, ref.Short(r.users[0].ID), ref.Short(r.entry.Image.ID[len("sha256:"):])))
	}
	r.untag(canonical(named))
	if _, byDigest := named.(reference.Digested); !byDigest {
		r.untagDigestsOf(named.Name())
	}
	if len(r.left()) == 0 && len(r.users) == 0 {
		r.delete()
	}
	return nil
}

// untagDigestsOf removes the digests of a repository without tags.
func (r *removal) untagDigestsOf(repository string) {
	var digests []string
	for _, n := range r.left() {
		if strings.HasPrefix(n, repository+":") {
			return
		}
		if strings.HasPrefix(n, repository+"@") {
			digests = append(digests, n)
		}
	}
	for _, d := range digests {
		r.untag(d)
	}
}

func (r *removal) byID() error {
	names := r.left()
	if i := slices.IndexFunc(r.users, func(u Use) bool { return u.Running }); i >= 0 {
		return r.conflict("cannot be forced", "image is being used by running container "+ref.Short(r.users[i].ID))
	}
	if !oneReference(names) && !r.force {
		return r.conflict("must be forced", "image is referenced in multiple repositories")
	}
	if len(r.users) > 0 && !r.force {
		return r.conflict("must be forced", "image is being used by stopped container "+ref.Short(r.users[0].ID))
	}
	if len(r.users) > 0 && len(names) == 0 {
		return r.conflict("cannot be forced", "image is being used by stopped container "+ref.Short(r.users[0].ID))
	}
	for _, n := range names {
		r.untag(n)
	}
	if len(r.users) == 0 {
		r.delete()
	}
	return nil
}

func (r *removal) conflict(force, why string) error {
	return fault.Say(fault.Conflict, fmt.Sprintf("conflict: unable to delete %s (%s) - %s",
		ref.Short(r.entry.Image.ID[len("sha256:"):]), force, why))
}

// left is the names the image still has.
func (r *removal) left() []string {
	var left []string
	for _, n := range r.namesOf(r.entry.Image.ID) {
		if _, there := r.names[n]; there {
			left = append(left, n)
		}
	}
	return left
}

func (r *removal) untag(name string) {
	if r.names[name] != r.entry.Image.ID {
		return
	}
	delete(r.names, name)
	r.puts[nameKey+name] = nil
	r.out = append(r.out, record.Removed{Untagged: Familiar(name)})
}

func (r *removal) delete() {
	id := r.entry.Image.ID
	delete(r.images, id)
	r.puts[imageKey+id] = nil
	r.gone = r.entry
	r.out = append(r.out, record.Removed{Deleted: id})
}

// oneReference reports whether all names are one tag and its digests, or
// digests of one repository: what a user thinks of as one image.
func oneReference(names []string) bool {
	if len(names) <= 1 {
		return true
	}
	tags, repositories := 0, map[string]bool{}
	for _, n := range names {
		named, err := parseName(n)
		if err != nil {
			return false
		}
		if _, byDigest := named.(reference.Digested); !byDigest {
			tags++
		}
		repositories[named.Name()] = true
	}
	return tags <= 1 && len(repositories) == 1
}
