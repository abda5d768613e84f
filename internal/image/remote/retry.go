package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// How a request is repeated. Answers that say no (4xx) are final; those that
// say "not now" and connections that break are not.
const (
	retries     = 4 // after the first request
	refusals    = 2 // of a connection: nobody listens, which rarely changes soon
	firstWait   = 250 * time.Millisecond
	longestWait = 5 * time.Second
	// mostPatience is how long a Retry-After is obeyed. Docker Hub sends hours
	// when a quota is used up: a user wants to hear that now.
	mostPatience = 30 * time.Second
)

func retrying(base http.RoundTripper) *http.Client {
	return &http.Client{Transport: &retry.Transport{Base: base, Policy: func() retry.Policy { return backoff{} }}}
}

// backoff is when to ask again: after 250 ms, twice that, and so on, each time
// half of it by chance, so that many clients of a registry that comes back do
// not come at once; or when the registry says (RFC 9110 §10.2.3).
type backoff struct{}

// Retry implements retry.Policy. attempt counts from 0.
func (backoff) Retry(attempt int, resp *http.Response, err error) (time.Duration, error) {
	if attempt >= retries {
		return -1, nil
	}
	if err != nil {
		if !passing(err) || attempt >= refusals && errors.Is(err, syscall.ECONNREFUSED) {
			return -1, nil
		}
		return wait(attempt), nil
	}
	if !notNow(resp.StatusCode) {
		return -1, nil
	}
	after, said := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch {
	case said && after > mostPatience:
		return -1, nil
	case said:
		return after + wait(0)/4, nil
	}
	return wait(attempt), nil
}

func notNow(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// wait is the pause before try attempt+1: between half and all of 250 ms·2ⁿ.
func wait(attempt int) time.Duration {
	whole := min(firstWait<<min(attempt, 10), longestWait)
	return whole/2 + rand.N(whole/2)
}

// retryAfter reads the header's two forms: seconds, and a date.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, false
}

// passing reports whether an error of a connection may be gone at the next
// try. What a certificate or a name lacks is not.
func passing(err error) bool {
	var cert *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var header tls.RecordHeaderError // plain http where TLS was expected
	var lookup *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), // but not DeadlineExceeded: net's time-outs say they are that
		errors.As(err, &cert), errors.As(err, &authority), errors.As(err, &header):
		return false
	case errors.As(err, &lookup):
		return lookup.IsTemporary || lookup.IsTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNABORTED):
		return true
	}
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
