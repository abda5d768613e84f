package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"fief/internal/words/fault"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// mounts is how many repositories are tried as the source of a blob, as in
// Docker: each try is a request.
const mounts = 4

// Outcome is what became of a blob that was to be pushed.
type Outcome struct {
	There   bool   // it was there already
	Mounted string // the repository it was taken from, familiar; empty: uploaded
}

// Has reports whether the registry has the blob in this repository.
func (r *Repo) Has(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	e := r.origin()
	e.settle(ctx)
	resp, err := e.do(ctx, http.MethodHead, e.url("/blobs/"+desc.Digest.String()), nil, nil)
	if err != nil {
		return false, r.explainPush(desc.Digest.String(), err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, r.explainPush(desc.Digest.String(), refusal(resp))
}

// PushBlob brings a blob into the repository: it is there, or a repository of
// the same registry in from gives it (OCI distribution spec, "Mounting a blob
// from another repository"), or it is uploaded, with sent told how many bytes
// have gone. Names in from that are of another registry are passed over. It
// may be repeated.
func (r *Repo) PushBlob(ctx context.Context, desc ocispec.Descriptor, content io.ReaderAt, from []reference.Named, sent func(int64)) (Outcome, error) {
	there, err := r.Has(ctx, desc)
	if err != nil || there {
		return Outcome{There: there}, err
	}
	u := &upload{end: r.origin(), stall: r.stall, chunk: r.chunk, desc: desc, content: content, sent: sent}
	for _, source := range r.sources(from) {
		mounted, err := u.mount(ctx, reference.Path(source))
		if err != nil {
			break // it is only worth a try: the upload will say what is wrong
		}
		if mounted {
			return Outcome{Mounted: reference.FamiliarName(source)}, nil
		}
	}
	err = u.all(ctx)
	if ctx.Err() != nil {
		u.drop(context.WithoutCancel(ctx))
		return Outcome{}, fault.Wrap(fault.Canceled, "push", desc.Digest.String(), context.Cause(ctx), "")
	}
	return Outcome{}, r.explainPush(desc.Digest.String(), err)
}

// sources are the repositories that a blob may be mounted from.
func (r *Repo) sources(from []reference.Named) (out []reference.Named) {
	for _, name := range from {
		same := func(other reference.Named) bool { return other.Name() == name.Name() }
		if len(out) < mounts && reference.Domain(name) == reference.Domain(r.name) && !same(r.name) && !slices.ContainsFunc(out, same) {
			out = append(out, name)
		}
	}
	return out
}

// PushManifest stores a manifest or index under ref, a tag or its digest.
// Everything it names must be there. It may be repeated.
func (r *Repo) PushManifest(ctx context.Context, desc ocispec.Descriptor, raw []byte, ref string) error {
	e := r.origin()
	e.settle(ctx)
	header := http.Header{"Content-Type": {desc.MediaType}}
	resp, err := e.do(ctx, http.MethodPut, e.url("/manifests/"+ref), bytes.NewReader(raw), header)
	if err != nil {
		return r.explainPush(ref, err)
	}
	if resp.StatusCode != http.StatusCreated {
		return r.explainPush(ref, refusal(resp))
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != desc.Digest.String() {
		return fault.New(fault.Corrupt, "push", r.pretty(ref), fmt.Sprintf("the registry stored %s instead of %s", short(got), desc.Digest), "")
	}
	return nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// do sends a request that may change the repository.
func (e *end) do(ctx context.Context, method, address string, body io.Reader, header http.Header) (*http.Response, error) {
	ctx = auth.AppendRepositoryScope(ctx, e.repo.Reference, auth.ActionPull, auth.ActionPush)
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	return e.client.Do(req)
}

// location is where an upload goes on. It stays at the registry and as safe as
// it was, or credentials would go elsewhere.
func location(resp *http.Response, e *end) (string, error) {
	u, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("the registry does not say where to upload: %w", err)
	}
	base, err := url.Parse(e.url(""))
	if err != nil {
		return "", err
	}
	if canonicalHost(u) != canonicalHost(base) || base.Scheme == "https" && u.Scheme != "https" {
		return "", fmt.Errorf("the registry sends the upload elsewhere, to %s://%s", u.Scheme, u.Host)
	}
	return u.String(), nil
}

func canonicalHost(u *url.URL) string {
	port := u.Port()
	if port == "" && u.Scheme == "https" {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// explainPush makes a fault of what went wrong in a push. The words are
// Docker's.
func (r *Repo) explainPush(ref string, err error) error {
	var answer *errcode.ErrorResponse
	if errors.As(err, &answer) {
		says := strings.ToLower(http.StatusText(answer.StatusCode))
		if len(answer.Errors) > 0 {
			says = answer.Errors.Error()
		}
		switch answer.StatusCode {
		case http.StatusUnauthorized:
			return &fault.Error{Class: fault.Denied, Cause: errors.New("unauthorized: " + says), Hint: "log in with fief login or docker login"}
		case http.StatusForbidden:
			return &fault.Error{Class: fault.Denied, Cause: errors.New("denied: requested access to the resource is denied: " + says), Hint: ""}
		case http.StatusNotFound:
			return fault.Say(fault.NotFound, "name unknown: repository "+r.pretty("")+" not found: "+says)
		}
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return &fault.Error{Class: fault.Denied, Cause: errors.New("no basic auth credentials"), Hint: "log in with fief login or docker login"}
	}
	return r.explain("push", ref, err)
}
