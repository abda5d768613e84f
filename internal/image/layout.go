package image

import (
	"context"
	"slices"

	"fief/internal/words/fault"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// alternatives are the entries of a layout's index.json, those together that
// stand for one image: some tools write the manifests of all platforms of a
// name into index.json itself. Attestations, which Docker marks with an unknown
// platform, are left out.
func alternatives(all []ocispec.Descriptor) [][]ocispec.Descriptor {
	groups := map[string]int{}
	var out [][]ocispec.Descriptor
	for _, d := range all {
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue
		}
		name := d.Annotations[containerdName] + " " + d.Annotations[ocispec.AnnotationRefName]
		i, seen := groups[name]
		if !seen || d.Platform == nil || !otherPlatform(d, out[i]) {
			groups[name] = len(out)
			out = append(out, []ocispec.Descriptor{d})
			continue
		}
		out[i] = append(out[i], d)
	}
	return out
}

// otherPlatform reports whether d is of a platform that none of the list is of:
// two of the same are no alternatives, but images.
func otherPlatform(d ocispec.Descriptor, list []ocispec.Descriptor) bool {
	is := platforms.FormatAll(platforms.Normalize(*d.Platform))
	return !slices.ContainsFunc(list, func(o ocispec.Descriptor) bool {
		return o.Platform == nil || platforms.FormatAll(platforms.Normalize(*o.Platform)) == is
	})
}

// picked is a manifest that was chosen from a layout.
type picked struct {
	manifest ocispec.Descriptor
	raw      []byte
	doc      document
	index    string // digest of what it was chosen from; empty: nothing to choose from
	names    []string
	asked    []string // the platforms that it was chosen for
}

// fromLayout loads one image: the platforms asked for, or the host's.
func (l *loader) fromLayout(ctx context.Context, list []ocispec.Descriptor) error {
	asked := l.asked
	if len(asked) == 0 {
		asked = []string{""}
	}
	var all []picked
	for _, platform := range asked {
		p, err := l.pick(list, platform)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(o picked) bool { return o.manifest.Digest == p.manifest.Digest }); i >= 0 {
			all[i].asked = append(all[i].asked, platform)
			continue
		}
		all = append(all, p)
	}
	named := l.bestOf(all)
	for i, p := range all {
		if i != named {
			p.names = nil
		}
		if err := l.fromPicked(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// bestOf is the place of the one that runs here best, else 0.
func (l *loader) bestOf(all []picked) int {
	var list []ocispec.Platform
	for _, p := range all {
		is := ocispec.Platform{}
		if p.manifest.Platform != nil {
			is = *p.manifest.Platform
		}
		list = append(list, is)
	}
	return best(list, l.opt.Platform)
}

// best is the place in the list of the platform that fits asked, or the host's
// when that is empty, best; 0 when none does.
func best(list []ocispec.Platform, asked string) int {
	at := 0
	match, err := matcher(asked)
	if err != nil {
		return at
	}
	for i, p := range list {
		if match.Match(p) && (!match.Match(list[at]) || match.Less(p, list[at])) {
			at = i
		}
	}
	return at
}

// pick finds the manifest of a platform; empty: the host's where there is a choice.
func (l *loader) pick(list []ocispec.Descriptor, platform string) (picked, error) {
	wanted := platform
	if wanted == "" {
		wanted = l.opt.Platform
	}
	names, err := layoutNames(list[0])
	if err != nil {
		return picked{}, err
	}
	desc, index := list[0], ""
	if len(list) > 1 {
		if desc, err = (document{Manifests: list}).choose(wanted); err != nil {
			return picked{}, notProvided(names, platform, err)
		}
		index = digestOf(encoded(list))
	}
	manifest, raw, doc, err := l.descend(desc, wanted)
	if manifest.Digest != desc.Digest {
		index = desc.Digest.String()
	}
	return picked{manifest, raw, doc, index, names, []string{platform}}, notProvided(names, platform, err)
}

func (l *loader) fromPicked(ctx context.Context, p picked) error {
	b := &build{Store: l.Store, hold: l.begin(), manifest: p.manifest, raw: p.raw, doc: p.doc, index: p.index, tell: l.tell}
	b.fetch = func(ctx context.Context, d ocispec.Descriptor, _ *arriving) (bool, error) {
		got, err := l.src.layer(ctx, b.hold, layoutPath(d.Digest))
		if err == nil && (got.Digest != d.Digest || got.Size != d.Size) {
			err = fault.New(fault.Corrupt, "load layer", d.Digest.String(), "its content has digest "+got.Digest.String(), "")
		}
		return true, err
	}
	err := b.prepare(ctx, func(d ocispec.Descriptor) ([]byte, error) { return l.src.small(layoutPath(d.Digest), maxConfig) })
	if err != nil {
		return err
	}
	for _, platform := range p.asked {
		if err := b.config.checkPlatform(nameOf(p.names, b), platform); err != nil {
			return err
		}
	}
	return l.finish(ctx, b, p.names)
}

// notProvided names the image of which an archive has not the platform asked for.
func notProvided(names []string, platform string, err error) error {
	if platform == "" || !fault.Is(err, fault.NotFound) {
		return err
	}
	name := "in the archive"
	if len(names) > 0 {
		name = Familiar(names[0])
	}
	return platformAbsent(name, platform, "")
}

// nameOf is what a message calls an image.
func nameOf(names []string, b *build) string {
	if len(names) > 0 {
		return Familiar(names[0])
	}
	return b.doc.Config.Digest.String()
}

// descend goes from an index to the manifest of the platform.
func (l *loader) descend(desc ocispec.Descriptor, platform string) (ocispec.Descriptor, []byte, document, error) {
	for range maxDepth {
		raw, err := l.src.small(layoutPath(desc.Digest), desc.Size)
		if err != nil {
			return desc, nil, document{}, err
		}
		if digestOf(raw) != desc.Digest.String() || int64(len(raw)) != desc.Size {
			return desc, nil, document{}, fault.New(fault.Corrupt, "load manifest", desc.Digest.String(), "its content has another digest or size", "")
		}
		doc, err := parseDocument(raw, desc.MediaType)
		if err != nil || !doc.isIndex {
			return desc, raw, doc, err
		}
		if desc, err = doc.choose(platform); err != nil {
			return desc, nil, doc, err
		}
	}
	return desc, nil, document{}, badDocument("indexes in indexes in indexes")
}

// layoutPath of a digest that parseDocument has accepted.
func layoutPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// layoutNames reads the name from a layout's annotations. Docker and
// containerd write the full name beside the tag; skopeo and podman write what
// they were told, a full name or a bare tag, and a bare tag names nothing.
func layoutNames(desc ocispec.Descriptor) ([]string, error) {
	name := desc.Annotations[containerdName]
	if name == "" {
		name = desc.Annotations[ocispec.AnnotationRefName]
		if !reference.ReferenceRegexp.MatchString(name) || !hasRepository(name) {
			return nil, nil
		}
	}
	return loadedNames([]string{name}, desc.Digest)
}

// hasRepository tells "alpine:3" from "3" and "latest".
func hasRepository(name string) bool {
	named, err := reference.ParseNormalizedNamed(name)
	return err == nil && !reference.IsNameOnly(named)
}

// loadedNames reads the names that an archive gives an image whose manifest, or
// index, has the digest own; empty: one that nobody can know. A name with
// another digest is refused: who asks for an image by its digest must not get
// what an archive says it is.
func loadedNames(names []string, own digest.Digest) ([]string, error) {
	var out []string
	for _, n := range names {
		if n == "<none>:<none>" { // what old clients wrote for an image without a name
			continue
		}
		named, err := parseName(n)
		if err != nil {
			return nil, fault.Wrap(fault.Corrupt, "load image named", short(n), err, "")
		}
		if d, ok := named.(reference.Digested); ok && d.Digest() != own {
			return nil, fault.New(fault.Corrupt, "load image named", short(n), "that is not its digest", "")
		}
		out = append(out, canonical(named))
	}
	return out, nil
}
