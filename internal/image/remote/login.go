package remote

import (
	"context"
	"errors"
	"net/http"

	"fief/internal/words/fault"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Login asks a registry, "docker.io" or "host[:port]", whether it takes the
// credentials (OCI distribution spec, "Determining Support": GET /v2/). One
// that asks for none takes any, as with Docker.
func Login(ctx context.Context, host string, opt Options) error {
	ref := registry.Reference{Registry: host}
	lax := opt.PlainHTTP || mayBeInsecure(ref.Host(), opt.Insecure)
	e := newEnd(ref, lax, opt)
	defer e.transport.CloseIdleConnections()
	e.unsure = lax
	e.settle(ctx)
	e.authenticate(credential(opt.Auth))
	scheme := "https://"
	if e.repo.PlainHTTP {
		scheme = "http://"
	}
	address := scheme + ref.Host() + "/v2/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fault.Wrap(fault.Invalid, "log in to", host, err, "registries are written like registry.example:5000")
	}
	resp, err := e.client.Do(req)
	if err == nil && resp.StatusCode == http.StatusOK {
		resp.Body.Close()
		return nil
	}
	if err == nil {
		err = refusal(resp)
	}
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden),
		errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fault.Say(fault.Denied, "login attempt to "+address+" failed: unauthorized: incorrect username or password")
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fault.New(fault.Unavailable, "log in to", host, "it is no registry: it does not know /v2/", "")
	}
	return explainNet("log in to", host, err)
}
