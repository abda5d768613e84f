package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import makes an image of one layer from the tar of a root file system, plain
// or compressed, which r holds, or with a Source a server. On an error nothing
// has changed.
func (s *Store) Import(ctx context.Context, want ask.ImportImage, r io.Reader) (record.Image, error) {
	names, err := importNames(want.Name)
	if err != nil {
		return record.Image{}, err
	}
	place := "-"
	if want.Source != "" {
		body, from, err := download(ctx, want.Source, s.opt.UserAgent)
		if err != nil {
			return record.Image{}, err
		}
		defer body.Close()
		r, place = body, from
	}
	cfg, err := newConfig(want, place)
	if err != nil {
		return record.Image{}, err
	}
	h := s.hold()
	defer h.release()
	in := bufio.NewReader(r)
	if _, err := in.Peek(1); err == io.EOF {
		return record.Image{}, fault.New(fault.Invalid, "import", want.Name, "the input is empty", "give it the tar of a root file system")
	}
	desc, diffID, err := s.importLayer(ctx, h, in)
	if err != nil {
		return record.Image{}, err
	}
	cfg.RootFS.Type, cfg.RootFS.DiffIDs = "layers", []string{diffID}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return record.Image{}, fault.Wrap(fault.Internal, "write image config", "", err, "")
	}
	b, err := s.compose(ctx, h, raw, []ocispec.Descriptor{desc})
	if err != nil {
		return record.Image{}, err
	}
	return b.finish(ctx, names)
}

func importNames(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	named, err := parseName(name)
	if err != nil {
		return nil, err
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, fault.Say(fault.Invalid, "cannot import digest reference")
	}
	return []string{canonical(named)}, nil
}

func newConfig(want ask.ImportImage, place string) (configFile, error) {
	platform := platforms.DefaultSpec()
	if want.Platform != "" {
		var err error
		if platform, err = platforms.Parse(want.Platform); err != nil {
			return configFile{}, fault.Wrap(fault.Invalid, "use platform", want.Platform, err, "platforms are written like linux/arm64")
		}
	}
	now := time.Now().UTC()
	comment := want.Message
	if comment == "" {
		comment = "Imported from " + place
	}
	cfg := configFile{Created: &now, Comment: comment, Architecture: platform.Architecture, OS: platform.OS, Variant: platform.Variant}
	cfg.History = []ocispec.History{{Created: &now, Comment: comment}}
	for _, line := range want.Changes {
		if err := cfg.Config.apply(line); err != nil {
			return configFile{}, err
		}
	}
	return cfg, nil
}

// importLayer makes the tar that r holds a blob, held by h.
func (s *Store) importLayer(ctx context.Context, h *hold, r *bufio.Reader) (desc ocispec.Descriptor, diffID string, err error) {
	other, err := foreign(r)
	if err != nil {
		return desc, "", err
	}
	if other {
		return s.rewritten(ctx, h, r)
	}
	if desc, err = s.ingestLayer(ctx, h, r); err == nil {
		diffID, err = s.diffID(ctx, desc)
	}
	return desc, diffID, err
}

// rewritten makes a blob, held by h, of what r holds in a compression that
// layers cannot have.
func (s *Store) rewritten(ctx context.Context, h *hold, r io.Reader) (ocispec.Descriptor, string, error) {
	plain, err := plainArchive(ctx, &canceled{ctx, r}, s.blobs.windows)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer plain.Close()
	desc, diffID, _, err := s.writeLayer(ctx, h, func(w io.Writer) (int64, error) { return io.Copy(w, plain) })
	return desc, diffID, err
}

// ingestLayer makes r a blob, held by h.
func (s *Store) ingestLayer(ctx context.Context, h *hold, r io.Reader) (ocispec.Descriptor, error) {
	in, err := s.blobs.ingest()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer in.abort()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(in, sum), io.LimitReader(&counter{r: &canceled{ctx, r}}, maxBlob))
	if err != nil {
		return ocispec.Descriptor{}, archiveFault(err)
	}
	got := sumOf(sum)
	h.blob(got)
	unlock, err := s.busy.lock(ctx, "blob "+got)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer unlock()
	if err := in.commit(got); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.describe(got, n)
}

// diffID is the digest of the blob's content, uncompressed.
func (s *Store) diffID(ctx context.Context, desc ocispec.Descriptor) (string, error) {
	f, err := s.blobs.open(desc.Digest.String())
	if err != nil {
		return "", err
	}
	defer f.Close()
	tar, _, err := plainTar(ctx, &canceled{ctx, f}, s.blobs.windows)
	if err != nil {
		return "", err
	}
	defer tar.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, tar); err != nil {
		return "", err
	}
	return sumOf(sum), nil
}

// compose writes a manifest around a config and layers that are blobs already.
func (s *Store) compose(ctx context.Context, h *hold, cfg []byte, layers []ocispec.Descriptor) (*build, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: layers, Config: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(cfg), Size: int64(len(cfg))}}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "write manifest", "", err, "")
	}
	doc, err := parseDocument(raw, m.MediaType)
	if err != nil {
		return nil, err
	}
	b := &build{
		Store:    s,
		hold:     h,
		manifest: ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))},
		raw:      raw,
		doc:      doc,
		fetch:    func(context.Context, ocispec.Descriptor, *arriving) (bool, error) { return true, nil },
	}
	return b, b.prepare(ctx, func(ocispec.Descriptor) ([]byte, error) { return cfg, nil })
}
