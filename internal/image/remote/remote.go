// Package remote speaks to registries (OCI distribution spec): it finds out
// whether a registry talks TLS, authenticates, and fetches manifests and blobs
// whose digest and size it verifies. What a registry sends is hostile; all of
// it is bounded.
package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// MaxManifest is the size of the largest manifest or index taken: registries
// refuse larger ones (OCI distribution spec, "Pushing Manifests").
const MaxManifest = 4 << 20

// The media types of Docker's schema 2, which OCI's were made from.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Options say how to reach registries.
type Options struct {
	Insecure  []string            // "host[:port]" or CIDR: certificates are not verified, plain http is allowed
	PlainHTTP bool                // treat this registry as if it were in Insecure
	Auth      ask.RegistryAuth    // zero: anonymous; no mirror is sent it
	Mirrors   map[string][]Mirror // by registry, "docker.io" or "host[:port]": asked in order before it
	UserAgent string
	Stall     time.Duration // a transfer that brings next to nothing for so long is begun anew; 0: a minute
	Answer    time.Duration // how long a registry may take to begin an answer; 0: half a minute
	Chunk     int64         // largest blob, in bytes, that is uploaded in one request; 0: 64 MiB
	// Fallen, if set, hears of a mirror that could not serve, and why.
	Fallen func(mirror Mirror, err error)
}

func (o Options) stall() time.Duration {
	if o.Stall == 0 {
		return time.Minute
	}
	return o.Stall
}

// Repo is a repository of a registry, with the registry's mirrors. Close it
// when done. It may be used by several goroutines.
type Repo struct {
	name   reference.Named
	ends   []*end // never empty; the origin is the last
	stall  time.Duration
	chunk  int64
	fallen func(Mirror, error)
}

// Connect prepares for requests about name. Registries that may be insecure
// are asked whether they speak TLS when they are first needed.
func Connect(_ context.Context, name reference.Named, opt Options) (*Repo, error) {
	r := &Repo{name: name, stall: opt.stall(), fallen: opt.Fallen}
	if r.chunk = opt.Chunk; r.chunk == 0 {
		r.chunk = whole
	}
	domain, path := reference.Domain(name), reference.Path(name)
	for _, m := range opt.Mirrors[domain] {
		ref := registry.Reference{Registry: m.Host, Repository: m.Prefix + path}
		e := newEnd(ref, !m.Plain && mayBeInsecure(m.Host, opt.Insecure), opt)
		e.mirror, e.repo.PlainHTTP = &m, m.Plain
		r.ends = append(r.ends, e)
	}
	ref := registry.Reference{Registry: domain, Repository: path}
	lax := opt.PlainHTTP || mayBeInsecure(ref.Host(), opt.Insecure)
	e := newEnd(ref, lax, opt)
	e.unsure = lax
	e.authenticate(credential(opt.Auth))
	r.ends = append(r.ends, e)
	return r, nil
}

// credential prefers the tokens a client has over its password, as Docker does.
func credential(a ask.RegistryAuth) auth.Credential {
	switch {
	case a.RegistryToken != "":
		return auth.Credential{AccessToken: a.RegistryToken}
	case a.IdentityToken != "":
		return auth.Credential{RefreshToken: a.IdentityToken}
	}
	return auth.Credential{Username: a.Username, Password: a.Password}
}

// Close drops the idle connections.
func (r *Repo) Close() {
	for _, e := range r.ends {
		e.transport.CloseIdleConnections()
	}
}

// origin is the registry that the name names, which alone is pushed to.
func (r *Repo) origin() *end { return r.ends[len(r.ends)-1] }

// Manifest fetches a manifest or index by tag or digest, with its descriptor.
// Its bytes have that digest and size; for a digest they are what was asked.
// For a tag the first mirror that knows it is believed.
func (r *Repo) Manifest(ctx context.Context, ref string) (desc ocispec.Descriptor, raw []byte, err error) {
	err = r.each(ctx, func(e *end) error {
		for try := 0; ; try++ {
			desc, raw, err = r.manifest(ctx, e, ref)
			if err == nil || try >= refetches || !brokeOff(err) || !sleep(ctx, wait(try)) {
				return err
			}
		}
	})
	return desc, raw, err
}

// refetches is how often a manifest is asked for again whose body broke off. It
// is small, so that each try begins anew.
const refetches = 2

// brokeOff reports whether an answer had begun and did not end.
func brokeOff(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errStalled) || errors.Is(err, syscall.ECONNRESET)
}

func (r *Repo) manifest(ctx context.Context, e *end, ref string) (ocispec.Descriptor, []byte, error) {
	desc, body, err := e.repo.Manifests().FetchReference(ctx, ref)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.explain("fetch manifest", ref, err)
	}
	defer body.Close()
	if desc.Size > MaxManifest {
		return ocispec.Descriptor{}, nil, fault.New(fault.Exhausted, "fetch manifest", r.pretty(ref), "it has more than 4 MiB", "")
	}
	raw, err := content.ReadAll(body, desc)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.explain("fetch manifest", ref, err)
	}
	if strings.Contains(ref, ":") && desc.Digest.String() != ref {
		return ocispec.Descriptor{}, nil, fault.New(fault.Corrupt, "fetch manifest", r.pretty(ref), "the registry sent another one", "")
	}
	return desc, raw, nil
}

// Small fetches a blob of at most limit bytes into memory.
func (r *Repo) Small(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, fault.New(fault.Exhausted, "fetch", desc.Digest.String(), "it is larger than such a thing can be", "")
	}
	var b bytes.Buffer
	if err := r.Blob(ctx, desc, buffer{&b}, func(int64) {}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// buffer is a Sink in memory.
type buffer struct{ *bytes.Buffer }

func (b buffer) Restart() error {
	b.Reset()
	return nil
}

// Tags lists every tag of the repository.
func (r *Repo) Tags(ctx context.Context) ([]string, error) {
	var all []string
	err := r.each(ctx, func(e *end) error {
		all = nil
		err := e.repo.Tags(ctx, "", func(tags []string) error {
			all = append(all, tags...)
			if len(all) > 10_000 {
				return fault.New(fault.Exhausted, "list the tags of", r.name.Name(), "there are more than 10000", "name the tags you want")
			}
			return nil
		})
		return r.explain("list tags of", "", err)
	})
	return all, err
}

// Sink takes a blob. Restart forgets what was written.
type Sink interface {
	io.Writer
	Restart() error
}
