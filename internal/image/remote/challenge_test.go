package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"fief/internal/words/ask"

	"oras.land/oras-go/v2/registry"
)

// asked answers every request with the same challenge, and notes who was sent
// credentials.
type asked struct {
	challenge string
	told      []*url.URL
}

func (a *asked) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "" || req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return nil, errors.New("no such address") // as http.Transport says
	}
	if req.Header.Get("Authorization") != "" {
		a.told = append(a.told, req.URL)
	}
	return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {a.challenge}},
		Body: io.NopCloser(strings.NewReader(`{"token":"t"}`)), Request: req}, nil
}

// Whatever a registry demands, credentials go to it or, safely, to the token
// server that it names.
func FuzzChallenge(f *testing.F) {
	f.Add(`Basic realm="x"`)
	f.Add(`Bearer realm="https://reg.example/token",service="reg",scope="repository:a/b:pull"`)
	f.Add(`Bearer realm="http://203.0.113.9/token"`)
	f.Add(`Bearer realm="https://127.0.0.1/token"`)
	f.Add(`Bearer realm="https://[::ffff:10.0.0.1]/token"`)
	f.Add(`Basic realm="x", Bearer realm="https://169.254.169.254:1/"`)
	f.Add(`Bearer realm="https://100%250000"`)
	f.Add(`Bearer realm="",error=`)
	f.Add("Bearer realm=\"https://a\\\"b\", ,=,x")
	f.Fuzz(func(t *testing.T, challenge string) {
		a := &asked{challenge: challenge}
		e := newEnd(registry.Reference{Registry: "reg.example", Repository: "a/b"}, false, Options{})
		e.authenticate(credential(ask.RegistryAuth{Username: "u", Password: "p"}))
		e.single.http, e.single.tokens = &http.Client{Transport: a}, &http.Client{Transport: guard{a}}
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, e.url("/blobs/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := e.single.Do(req); err == nil {
			resp.Body.Close()
		}
		for _, to := range a.told {
			if to.Scheme != "https" {
				t.Errorf("%q: the password went in the clear to %s", challenge, to)
			}
			if addr, err := netip.ParseAddr(to.Hostname()); err == nil && placeOf(addr) != public {
				t.Errorf("%q: the password went to %s", challenge, to)
			}
		}
	})
}
