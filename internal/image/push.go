package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// answer is how long a registry may take to store what it was sent: some move
// a blob from one place to another before they answer.
const answer = 5 * time.Minute

// Push stores an image, or with All every tag of a repository, at the registry
// that its name names, never at a mirror. What is stored is the manifest that
// the image came with, and so has its digest. tell (nil: nobody listens) hears
// Docker's words, never from two goroutines at once. A push that fails may be
// repeated; what has arrived need not go again. Afterwards the image is known
// under the repository's name with its digest too.
func (s *Store) Push(ctx context.Context, want ask.PushImage, tell func(record.Progress)) ([]record.Pushed, error) {
	name, tags, err := s.toPush(want)
	if err != nil {
		return nil, err
	}
	opt := s.remoteOptions(want.Auth, false)
	opt.Answer, opt.Mirrors = answer, nil
	repo, err := remote.Connect(ctx, name, opt)
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	p := &push{Store: s, repo: repo, name: name, platform: want.Platform, tell: newTeller(tell)}
	p.tell.say("", "The push refers to repository ["+name.Name()+"]")
	var done []record.Pushed
	for _, tag := range tags {
		one, err := p.one(ctx, tag)
		if err != nil {
			return done, err
		}
		done = append(done, one)
	}
	return done, nil
}

// toPush finds the tags that are meant.
func (s *Store) toPush(want ask.PushImage) (reference.Named, []string, error) {
	name, err := parseName(want.Name)
	if err != nil {
		return nil, nil, err
	}
	if _, digested := name.(reference.Digested); digested {
		return nil, nil, fault.Say(fault.Invalid, "cannot push a digest reference")
	}
	known := s.known.Load()
	if tagged, ok := reference.TagNameOnly(name).(reference.NamedTagged); ok && !(want.All && reference.IsNameOnly(name)) {
		if _, there := known.names[tagged.String()]; !there {
			return nil, nil, fault.Say(fault.NotFound, "An image does not exist locally with the tag: "+reference.FamiliarName(name))
		}
		return reference.TrimNamed(name), []string{tagged.Tag()}, nil
	}
	var tags []string
	for full := range known.names {
		if tag, ok := strings.CutPrefix(full, name.Name()+":"); ok {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		return nil, nil, fault.Say(fault.NotFound, "An image does not exist locally with the tag: "+reference.FamiliarName(name))
	}
	slices.Sort(tags)
	return name, tags, nil
}

type push struct {
	*Store
	repo     *remote.Repo
	name     reference.Named // without tag
	platform string          // that the user named
	tell     *teller
}

// one pushes what a tag names now.
func (p *push) one(ctx context.Context, tag string) (record.Pushed, error) {
	hold := p.hold()
	defer hold.release()
	e, err := p.grab(hold, p.name.Name()+":"+tag)
	if err != nil {
		return record.Pushed{}, err
	}
	raw := p.blobs.small(e.Image.Manifest, remote.MaxManifest)
	if raw == nil {
		return record.Pushed{}, fault.New(fault.Corrupt, "push", reference.FamiliarName(p.name)+":"+tag, "its manifest is missing or damaged", "pull or load the image again")
	}
	doc, err := parseDocument(raw, e.Manifest.MediaType)
	if err != nil {
		return record.Pushed{}, err
	}
	if err := p.all(ctx, doc); err != nil {
		return record.Pushed{}, err
	}
	desc := ocispec.Descriptor{MediaType: e.Manifest.MediaType, Digest: e.Manifest.Digest, Size: int64(len(raw))}
	if err := p.repo.PushManifest(ctx, desc, raw, tag); err != nil {
		return record.Pushed{}, err
	}
	if err := p.remember(e.Image.ID, e.Image.Manifest); err != nil {
		return record.Pushed{}, err
	}
	p.tell.say("", fmt.Sprintf("%s: digest: %s size: %d", tag, desc.Digest, desc.Size))
	return record.Pushed{Tag: tag, Digest: desc.Digest.String(), Size: desc.Size}, nil
}

// grab returns the image of a name and keeps its blobs from being collected
// until the hold is released.
func (p *push) grab(h *hold, name string) (entry, error) {
	for {
		c := p.known.Load()
		id, ok := c.names[name]
		if !ok { // removed meanwhile
			return entry{}, fault.Say(fault.NotFound, "An image does not exist locally with the tag: "+reference.FamiliarName(p.name))
		}
		e := c.images[id]
		if p.platform != "" {
			var err error
			if e, err = c.ofPlatform(id, Familiar(name), p.platform); err != nil {
				return entry{}, err
			}
		}
		for _, b := range e.Blobs {
			h.blob(b)
		}
		if now := p.known.Load(); now.names[name] == id && now.images[e.Image.ID].Image.Manifest == e.Image.Manifest {
			return e, nil // pinned before anybody removed it
		}
	}
}

// all pushes layers, several at once, and then the config. The first failure
// ends the others.
func (p *push) all(ctx context.Context, doc document) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(5) // as in Docker
	begun := map[string]bool{}
	for _, l := range doc.Layers {
		if !begun[l.Digest.String()] {
			p.tell.say(barOf(l.Digest), "Preparing")
		}
		begun[l.Digest.String()] = true
	}
	clear(begun)
	for _, l := range slices.Backward(doc.Layers) {
		if begun[l.Digest.String()] {
			continue
		}
		begun[l.Digest.String()] = true
		group.Go(func() error { return p.blob(inner, l, barOf(l.Digest)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return p.blob(ctx, *doc.Config, "")
}

// blob pushes one blob; bar is empty for what has none.
func (p *push) blob(ctx context.Context, desc ocispec.Descriptor, bar string) error {
	f, err := p.blobs.open(desc.Digest.String())
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != desc.Size {
		return fault.New(fault.Corrupt, "push blob", desc.Digest.String(), "it is damaged", "pull or load the image again")
	}
	done, err := p.repo.PushBlob(ctx, desc, f, p.known.Load().holders(desc.Digest.String()), func(n int64) {
		if bar != "" {
			p.tell.bytes(bar, "Pushing", n, desc.Size)
		}
	})
	failpoint.Hit("push-sent")
	if err != nil || bar == "" {
		return err
	}
	switch {
	case done.There:
		p.tell.say(bar, "Layer already exists")
	case done.Mounted != "":
		p.tell.say(bar, "Mounted from "+done.Mounted)
	default:
		p.tell.say(bar, "Pushed")
	}
	return nil
}

// holders are the repositories known to have a blob, from pulls and pushes.
func (c *catalog) holders(blob string) (out []reference.Named) {
	for _, e := range c.images {
		if !slices.Contains(e.Blobs, blob) {
			continue
		}
		for _, d := range e.Image.Digests {
			if named, err := reference.ParseNormalizedNamed(d); err == nil {
				out = append(out, reference.TrimNamed(named))
			}
		}
	}
	slices.SortFunc(out, func(a, b reference.Named) int { return strings.Compare(a.Name(), b.Name()) })
	return out
}

// remember notes that the repository has the image, unless it went meanwhile.
func (p *push) remember(id, manifest string) error {
	name := p.name.Name() + "@" + manifest
	failpoint.Hit("push-accepted")
	return p.change(func(c *catalog) (map[string]any, error) {
		if _, there := c.images[id]; !there || c.names[name] == id {
			return nil, nil
		}
		puts := map[string]any{}
		c.setNames(id, []string{name}, puts)
		return puts, nil
	})
}
