package docker

import (
	"cmp"
	"context"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// images is everything about images, by what it is used for.
type images interface {
	imageTable
	fetcher
	saver
}

// imageTable is the images as objects. Names may be references, ids, digests
// and unique prefixes of ids.
type imageTable interface {
	Images(ctx context.Context) ([]record.Image, error)
	Image(ctx context.Context, name string) (record.Image, error)
	ImageFor(ctx context.Context, name, platform string) (record.Image, error)
	Tag(ctx context.Context, src, dst string) error
	RemoveImage(ctx context.Context, name string, force bool) ([]record.Removed, error)
}

func (d *door) imageRoutes() []route {
	return []route{
		on("GET /images/json", d.imageList),
		on("POST /images/prune", d.imagePrune),
		on("GET /images/*/json", d.imageInspect),
		on("GET /images/*/history", d.imageHistory),
		on("POST /images/*/tag", d.imageTag),
		on("DELETE /images/*", d.imageRemove),
	}
}

// imageSummary is an image in a list. VirtualSize is gone since API 1.44.
type imageSummary struct {
	image.Summary
	VirtualSize int64 `json:",omitempty"`
}

func (d *door) imageList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"before", "dangling", "label", "label!", "reference", "since", "until"})
	if err != nil {
		return err
	}
	pick, err := d.imagePicker(r.Context(), f)
	if err != nil {
		return err
	}
	all, err := d.imageSummaries(r.Context())
	if err != nil {
		return err
	}
	if r.truth("shared-size") {
		share(all)
	}
	out := []imageSummary{}
	for _, s := range all {
		if !pick(&s) {
			continue
		}
		if r.version < 44 {
			s.VirtualSize = s.Size
		}
		out = append(out, s.imageSummary)
	}
	return ok(w, out)
}

// listed is an image in a list, and the record it was made of.
type listed struct {
	imageSummary
	img record.Image
}

// imageSummaries is all images, newest first, with how many containers use
// each.
func (d *door) imageSummaries(ctx context.Context) ([]listed, error) {
	all, err := d.engine.Images(ctx)
	if err != nil {
		return nil, err
	}
	uses, err := d.imageUses(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b record.Image) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	out := []listed{}
	for _, img := range all {
		s := image.Summary{
			ID: imageID(img), RepoTags: familiarAll(img.Names), RepoDigests: familiarAll(img.Digests), Created: img.Created.Unix(),
			Labels: labelsOf(img.Config.Labels), Containers: int64(uses[img.ID]), SharedSize: -1, Size: img.Size,
		}
		out = append(out, listed{imageSummary{Summary: s}, img})
	}
	return out, nil
}

// imageUses counts the containers of each image id.
func (d *door) imageUses(ctx context.Context) (map[string]int, error) {
	list, err := d.engine.List(ctx)
	uses := map[string]int{}
	for _, c := range list {
		uses[c.ImageID]++
	}
	return uses, err
}

// imagePicker turns the filters into one question. Like Docker it narrows the
// names of an image to those that the reference filter matches.
func (d *door) imagePicker(ctx context.Context, f filters) (func(*listed) bool, error) {
	dangling, err := f.truth("dangling", false)
	if err != nil {
		return nil, err
	}
	until, err := f.moment("until")
	if err != nil {
		return nil, err
	}
	var before, after record.Image
	for key, to := range map[string]*record.Image{"before": &before, "since": &after} {
		if f.has(key) {
			if *to, err = d.engine.Image(ctx, f[key][0]); err != nil {
				return nil, err
			}
		}
	}
	return func(s *listed) bool {
		return f.labels(s.img.Config.Labels) &&
			(!f.has("dangling") || dangling == (len(s.img.Names) == 0)) &&
			(!f.has("before") || s.img.Created.Before(before.Created)) &&
			(!f.has("since") || s.img.Created.After(after.Created)) &&
			(until.IsZero() || s.img.Created.Before(until)) && f.narrow(s)
	}, nil
}

func (f filters) narrow(s *listed) bool {
	if !f.has("reference") {
		return true
	}
	match := func(name string) bool {
		return f.any("reference", func(pattern string) bool { return familiarMatch(pattern, name) })
	}
	s.RepoTags = keep(s.RepoTags, match)
	s.RepoDigests = keep(s.RepoDigests, match)
	return len(s.RepoTags)+len(s.RepoDigests) > 0
}

func keep(list []string, match func(string) bool) []string {
	out := []string{}
	for _, s := range list {
		if match(s) {
			out = append(out, s)
		}
	}
	return out
}

// familiarMatch compares a pattern like "debian", "*/web:1*" with a name.
func familiarMatch(pattern, name string) bool {
	ref, err := reference.ParseAnyReference(name)
	if err != nil {
		return pattern == name
	}
	if hit, err := reference.FamiliarMatch(pattern, ref); err == nil && hit {
		return true
	}
	hit, err := path.Match(pattern, untagged(name))
	return err == nil && hit
}

// familiar prints a canonical name as people write it: docker.io and library
// are left out.
func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}

func familiarAll(names []string) []string {
	out := []string{}
	for _, name := range names {
		out = append(out, familiar(name))
	}
	return out
}

// imageID is the id clients are shown; the built-in host image has none.
func imageID(img record.Image) string {
	if img.ID == "" && img.Host {
		return "host"
	}
	return img.ID
}

func (d *door) imageTag(w http.ResponseWriter, r *request) error {
	repo, tag := r.Form.Get("repo"), r.Form.Get("tag")
	if repo == "" {
		return invalid("invalid reference format: no repository name")
	}
	dst, err := normalName(repo, tag)
	if err != nil {
		return err
	}
	if _, digested := dst.(reference.Digested); digested {
		return invalid("refusing to create a tag with a digest reference")
	}
	if err := d.engine.Tag(r.uncut(), r.name, reference.TagNameOnly(dst).String()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (d *door) imageRemove(w http.ResponseWriter, r *request) error {
	if len(r.Form["platforms"]) > 0 {
		return refuse("removing one platform of an image", "leave out --platform")
	}
	removed, err := d.engine.RemoveImage(r.uncut(), r.name, r.truth("force"))
	if err != nil {
		return err
	}
	return ok(w, removedOf(removed))
}

func removedOf(removed []record.Removed) []image.DeleteResponse {
	out := []image.DeleteResponse{}
	for _, gone := range removed {
		untag := gone.Untagged
		if untag != "" {
			untag = familiar(untag)
		}
		out = append(out, image.DeleteResponse{Untagged: untag, Deleted: gone.Deleted})
	}
	return out
}

// imagePrune removes images that no container uses: those without a name, or
// with dangling=false all.
func (d *door) imagePrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"dangling", "label", "label!", "until"})
	if err != nil {
		return err
	}
	dangling, err := f.truth("dangling", true)
	if err != nil {
		return err
	}
	delete(f, "dangling")
	pick, err := d.imagePicker(r.Context(), f)
	if err != nil {
		return err
	}
	all, err := d.imageSummaries(r.Context())
	if err != nil {
		return err
	}
	out := image.PruneReport{ImagesDeleted: []image.DeleteResponse{}}
	for _, s := range all {
		if s.img.Host || s.Containers > 0 || dangling && len(s.img.Names) > 0 || !pick(&s) {
			continue
		}
		if err := d.pruneOne(r.uncut(), s.img, &out); err != nil {
			return err
		}
	}
	return ok(w, out)
}

// pruneOne removes an image by all its names. One that got into use meanwhile
// stays.
func (d *door) pruneOne(ctx context.Context, img record.Image, out *image.PruneReport) error {
	names := img.Names
	if len(names) == 0 {
		names = []string{img.ID}
	}
	for _, name := range names {
		removed, err := d.engine.RemoveImage(ctx, name, false)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.Busy) {
			return nil
		}
		if err != nil {
			return err
		}
		out.ImagesDeleted = append(out.ImagesDeleted, removedOf(removed)...)
		out.SpaceReclaimed += uint64(img.Freed(removed))
	}
	return nil
}

// normalName parses a reference and adds a tag or digest that came apart from
// it.
func normalName(name, tag string) (reference.Named, error) {
	switch {
	case strings.Contains(tag, ":"):
		name += "@" + tag
	case tag != "":
		name = untagged(name) + ":" + tag
	}
	ref, err := reference.ParseNormalizedNamed(strings.TrimSuffix(name, ":"))
	if err != nil {
		return nil, invalid("%v", err)
	}
	return ref, nil
}
