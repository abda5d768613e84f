package remote

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"fief/internal/words/fault"

	"github.com/distribution/reference"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Mirror is a registry that has copies of another's repositories.
type Mirror struct {
	Host   string // "host[:port]"
	Prefix string // goes before the repository's path: "", or "cache/hub/"
	Plain  bool   // http
}

// String is the mirror as it is written in the configuration.
func (m Mirror) String() string {
	scheme := "https"
	if m.Plain {
		scheme = "http"
	}
	return strings.TrimSuffix(scheme+"://"+m.Host+"/"+m.Prefix, "/")
}

// ParseMirror reads "https://host[:port][/path]" or the same with http, which
// must be written: nothing is guessed about how safe a mirror is. Credentials
// in it are refused; a mirror is asked as nobody.
func ParseMirror(text string) (Mirror, error) {
	bad := func(why string) (Mirror, error) {
		return Mirror{}, fault.New(fault.Invalid, "use mirror", text, why, "mirrors are written like https://mirror.example")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return bad("it is no URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("it does not begin with https:// or http://")
	case u.User != nil:
		return bad("it holds credentials: mirrors are asked without")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.HasSuffix(text, "#"):
		return bad("it has more than a host and a path")
	}
	m := Mirror{Host: u.Host, Plain: u.Scheme == "http"}
	path := strings.Trim(u.Path, "/")
	if path != "" {
		m.Prefix = path + "/"
	}
	name, err := reference.ParseNamed(m.Host + "/" + m.Prefix + "x")
	if err != nil || reference.Domain(name) != m.Host || !reference.IsNameOnly(name) {
		return bad("its host and path cannot be those of a repository")
	}
	return m, nil
}

// end is one place to ask: a mirror, or the origin.
type end struct {
	mirror    *Mirror // nil: the origin
	repo      *remote.Repository
	client    *client
	single    *client // does not ask again: a part of what it sent may be there
	transport *http.Transport
	unsure    bool // plain http is allowed: find out
	once      sync.Once
	mu        sync.Mutex
	down      bool // guarded by mu: it could not be reached
}

func newEnd(ref registry.Reference, lax bool, opt Options) *end {
	e := &end{transport: newTransport(lax)}
	if opt.Answer > 0 {
		e.transport.ResponseHeaderTimeout = opt.Answer
	}
	stall := opt.stall()
	e.client = &client{
		http:   retrying(patient{e.transport, stall}),
		tokens: retrying(patient{guard{newTokenTransport(lax)}, stall}),
		cache:  auth.NewCache(), host: ref.Host(), agent: opt.UserAgent, wait: stall,
	}
	single := *e.client
	single.http = &http.Client{Transport: patient{e.transport, stall}}
	e.single = &single
	e.repo = &remote.Repository{
		Client:             e.client,
		Reference:          ref,
		MaxMetadataBytes:   MaxManifest,
		TagListMaxPages:    100,
		ManifestMediaTypes: []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, DockerList, DockerManifest},
	}
	return e
}

// authenticate makes the end show who it is when it is asked. It must not have
// been used before.
func (e *end) authenticate(who auth.Credential) { e.client.who, e.single.who = who, who }

// settle finds out, once, whether a registry that may be insecure speaks TLS.
func (e *end) settle(ctx context.Context) {
	e.once.Do(func() {
		if e.unsure {
			e.repo.PlainHTTP = !speaksTLS(context.WithoutCancel(ctx), e.transport, e.repo.Reference.Host())
		}
	})
}

// url is the address of something of the repository. Preconditions: settled.
func (e *end) url(rest string) string {
	scheme := "https://"
	if e.repo.PlainHTTP {
		scheme = "http://"
	}
	return scheme + e.repo.Reference.Host() + "/v2/" + e.repo.Reference.Repository + rest
}

// each asks one end after another until one does not fail. The error is the
// origin's. One that did not answer is not asked again by this Repo.
func (r *Repo) each(ctx context.Context, try func(*end) error) (err error) {
	for _, e := range r.ends {
		if e.mirror != nil && e.isDown() {
			continue
		}
		e.settle(ctx)
		err = try(e)
		if err != nil && ctx.Err() != nil {
			return fault.Wrap(fault.Canceled, "fetch", r.pretty(""), context.Cause(ctx), "")
		}
		var own sinkError
		if err == nil || e.mirror == nil || errors.As(err, &own) {
			break
		}
		if fault.Is(err, fault.Unavailable) {
			e.setDown()
		}
		if r.fallen != nil {
			r.fallen(*e.mirror, err)
		}
	}
	return err
}

func (e *end) isDown() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.down
}

func (e *end) setDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.down = true
}
