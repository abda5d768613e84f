package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"fief/internal/words/fault"

	"github.com/distribution/reference"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// pretty is the name as users write it.
func (r *Repo) pretty(ref string) string {
	name := reference.FamiliarName(r.name)
	switch {
	case ref == "":
		return name
	case strings.Contains(ref, ":"):
		return name + "@" + ref
	}
	return name + ":" + ref
}

// explain makes a fault of what oras and net/http return. The sentences about
// missing and denied images are Docker's, whole: its clients match them.
func (r *Repo) explain(op, ref string, err error) error {
	if err == nil {
		return nil
	}
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	var own sinkError
	if errors.As(err, &own) {
		return own.error
	}
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, context.Canceled): // a deadline would be net/http's own for a connection
		return fault.Wrap(fault.Canceled, op, r.pretty(ref), err, "")
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return r.denied("authentication required")
	case errors.Is(err, errdef.ErrNotFound) && op == "fetch manifest":
		return fault.Say(fault.NotFound, "manifest for "+r.pretty(ref)+" not found: manifest unknown: manifest unknown")
	case errors.Is(err, errdef.ErrNotFound):
		return fault.Wrap(fault.NotFound, op, r.pretty(ref), err, "")
	case errors.Is(err, content.ErrMismatchedDigest), errors.Is(err, content.ErrTrailingData), errors.Is(err, content.ErrInvalidDescriptorSize),
		strings.Contains(err.Error(), "mismatch"): // oras has no other sign for headers that contradict the request
		return fault.Wrap(fault.Corrupt, op, r.pretty(ref), err, "")
	case errors.As(err, &answer):
		return r.explainAnswer(op, ref, answer)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStalled):
		return fault.Wrap(fault.Unavailable, op, r.pretty(ref), err, "try again")
	}
	return explainNet(op, r.pretty(ref), err)
}

func (r *Repo) explainAnswer(op, ref string, answer *errcode.ErrorResponse) error {
	says := strings.ToLower(http.StatusText(answer.StatusCode))
	if len(answer.Errors) > 0 {
		says = answer.Errors.Error()
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return r.denied(says)
	case http.StatusNotFound:
		return fault.Say(fault.NotFound, "repository "+r.pretty("")+" not found: "+says)
	case http.StatusTooManyRequests:
		return fault.Say(fault.Unavailable, "toomanyrequests: "+says)
	}
	class := fault.Unavailable
	if answer.StatusCode < 500 {
		class = fault.Invalid
	}
	return fault.Wrap(class, op, r.pretty(ref), answer, "")
}

func (r *Repo) denied(says string) error {
	return fault.Say(fault.Denied, "pull access denied for "+r.pretty("")+
		", repository does not exist or may require 'docker login': "+says)
}

func explainNet(op, object string, err error) error {
	var refusedCert *tls.CertificateVerificationError
	var lookup *net.DNSError
	hint := ""
	switch {
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		hint = "the registry speaks plain http: list it as insecure if you trust the network to it"
	case errors.As(err, &refusedCert):
		hint = "install the registry's authority on this host, or list the registry as insecure"
	case errors.As(err, &lookup), errors.Is(err, syscall.ECONNREFUSED):
		hint = "is the registry's name right, and is it running?"
	}
	return fault.Wrap(fault.Unavailable, op, object, err, hint)
}

// parseRefusal reads an error body (OCI distribution spec, "Error Codes").
// One that cannot be read says nothing.
func parseRefusal(req *http.Request, status int, body io.Reader) error {
	answer := &errcode.ErrorResponse{StatusCode: status}
	if req != nil {
		answer.Method, answer.URL = req.Method, req.URL
	}
	var said struct {
		Errors errcode.Errors `json:"errors"`
	}
	if json.NewDecoder(body).Decode(&said) == nil {
		answer.Errors = said.Errors
	}
	return answer
}
