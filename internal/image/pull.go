package image

import (
	"context"
	"slices"
	"sync"

	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pull is Pull for one caller. tell is never called from two goroutines at once.
func (s *Store) pull(ctx context.Context, want ask.PullImage, tell func(record.Progress)) (record.Image, error) {
	name, err := parseName(want.Name)
	if err != nil {
		return record.Image{}, err
	}
	if reference.FamiliarName(name) == "scratch" {
		return record.Image{}, fault.Say(fault.Denied, "'scratch' is a reserved name")
	}
	repo, err := remote.Connect(ctx, name, s.remoteOptions(want.Auth, want.PlainTLS))
	if err != nil {
		return record.Image{}, err
	}
	defer repo.Close()
	platform := want.Platform
	if platform == "" {
		platform = s.opt.Platform
	}
	p := &pull{Store: s, repo: repo, platform: platform, asked: want.Platform, tell: newTeller(tell), heard: &sync.Map{}}
	if want.All && reference.IsNameOnly(name) {
		return p.all(ctx, name)
	}
	return p.one(ctx, reference.TagNameOnly(name))
}

type pull struct {
	*Store
	repo     *remote.Repo
	platform string
	asked    string // the platform that the user named
	tell     *teller
	heard    *sync.Map // arrivingLayer: those whose progress is told
}

func (p *pull) all(ctx context.Context, name reference.Named) (img record.Image, err error) {
	tags, err := p.repo.Tags(ctx)
	if err != nil {
		return record.Image{}, err
	}
	if len(tags) == 0 {
		return record.Image{}, fault.Say(fault.NotFound, "repository "+reference.FamiliarName(name)+" has no tags")
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(name, tag)
		if err != nil {
			return record.Image{}, fault.Wrap(fault.Corrupt, "use tag", short(tag), err, "")
		}
		if img, err = p.one(ctx, tagged); err != nil {
			return record.Image{}, err
		}
	}
	return img, nil
}

// one pulls name, which has a tag or a digest.
func (p *pull) one(ctx context.Context, name reference.Named) (record.Image, error) {
	ref := refOf(name)
	p.tell.say(ref, "Pulling from "+reference.Path(name))
	top, raw, err := p.repo.Manifest(ctx, ref)
	if err != nil {
		return record.Image{}, err
	}
	if err := p.opt.Policy.check(ctx, p.repo, name, top); err != nil {
		return record.Image{}, err
	}
	desc, raw, doc, err := p.descend(ctx, top, raw)
	if err != nil {
		return record.Image{}, err
	}
	names := []string{reference.TrimNamed(name).Name() + "@" + top.Digest.String()}
	if tagged, ok := name.(reference.NamedTagged); ok && !isDigest(ref) {
		names = append(names, tagged.Name()+":"+tagged.Tag())
	}
	b := &build{Store: p.Store, hold: p.hold(), manifest: desc, raw: raw, doc: doc, shared: p.layer, tell: p.tell}
	defer b.hold.release()
	if top.Digest != desc.Digest {
		b.index = top.Digest.String()
	}
	if err := b.prepare(ctx, func(cfg ocispec.Descriptor) ([]byte, error) { return p.repo.Small(ctx, cfg, maxConfig) }); err != nil {
		return record.Image{}, err
	}
	if err := b.config.checkPlatform(reference.FamiliarString(name), p.asked); err != nil {
		return record.Image{}, err
	}
	old := p.known.Load().names[names[len(names)-1]]
	img, err := b.finish(ctx, names)
	if err != nil {
		return record.Image{}, err
	}
	p.tell.say("", "Digest: "+top.Digest.String())
	status := "Status: Downloaded newer image for "
	if old == img.ID {
		status = "Status: Image is up to date for "
	}
	p.tell.say("", status+reference.FamiliarString(name))
	return img, nil
}

// refOf is what a registry is asked for: the digest where there is one.
func refOf(name reference.Named) string {
	switch n := name.(type) {
	case reference.Canonical:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return "latest"
}

// descend goes from an index to the manifest of the platform.
func (p *pull) descend(ctx context.Context, desc ocispec.Descriptor, raw []byte) (ocispec.Descriptor, []byte, document, error) {
	for range maxDepth {
		doc, err := parseDocument(raw, desc.MediaType)
		if err != nil || !doc.isIndex {
			return desc, raw, doc, err
		}
		next, err := doc.choose(p.platform)
		if err != nil {
			return desc, nil, doc, err
		}
		desc = next
		if raw, err = p.child(ctx, desc); err != nil {
			return desc, nil, doc, err
		}
	}
	return desc, nil, document{}, badDocument("indexes in indexes in indexes")
}

// child fetches a manifest that an index names, or takes the stored one.
func (p *pull) child(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	got, raw, err := p.repo.Manifest(ctx, desc.Digest.String())
	if err != nil {
		return nil, err
	}
	if got.Digest != desc.Digest || got.Size != desc.Size {
		return nil, badDocument("the registry sent another one than its index names")
	}
	return raw, nil
}

// fetch downloads a layer's blob, unless it is there. It can be read meanwhile.
func (p *pull) fetch(ctx context.Context, desc ocispec.Descriptor, a *arriving) (fresh bool, err error) {
	d := desc.Digest.String()
	unlock, err := p.busy.lock(ctx, "blob "+d)
	if err != nil {
		return false, err
	}
	defer unlock()
	if p.hasBlob(d, desc.Size) {
		return false, nil
	}
	in, err := p.blobs.ingest()
	if err != nil {
		return false, err
	}
	defer in.abort()
	same, err := in.again()
	if err != nil {
		return false, err
	}
	a.begin(same)
	id := barOf(desc.Digest)
	err = p.repo.Blob(ctx, desc, in, func(n int64) {
		a.grew(n)
		p.tell.bytes(id, "Downloading", n, desc.Size)
	})
	if err != nil {
		return false, err
	}
	a.end(nil)
	failpoint.Hit("pull-downloaded")
	p.tell.say(id, "Verifying Checksum")
	if err := in.commit(d); err != nil {
		return false, err
	}
	p.tell.say(id, "Download complete")
	return true, nil
}

// addBlob stores raw, a document of a few MiB at most, under its digest, unless
// it is there and whole.
func (s *Store) addBlob(ctx context.Context, digest string, raw []byte) error {
	unlock, err := s.busy.lock(ctx, "blob "+digest)
	if err != nil {
		return err
	}
	defer unlock()
	if s.blobs.small(digest, int64(len(raw))) == nil {
		if err := s.blobs.add(digest, raw); err != nil {
			return err
		}
	}
	s.unmark("blob", digest)
	return nil
}

// setNames points names at image id, in c and in the records to write.
func (c *catalog) setNames(id string, names []string, puts map[string]any) {
	for _, n := range names {
		c.names[n] = id
		puts[nameKey+n] = id
	}
}

func uniqueStrings(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
