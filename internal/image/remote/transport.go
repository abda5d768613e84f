package remote

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"time"
)

func newTransport(lax bool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxIdleConnsPerHost = 8
	t.DisableCompression = true // a blob's digest is that of the bytes as sent
	if lax {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // asked for by name (Options.Insecure), or loopback, as in Docker
	}
	return t
}

// mayBeInsecure reports whether host ("name[:port]") may be spoken to without
// verified TLS: loopback always, as in Docker, others when listed.
func mayBeInsecure(host string, listed []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addr, err := netip.ParseAddr(name)
	isAddr := err == nil
	if name == "localhost" || isAddr && addr.Unmap().IsLoopback() {
		return true
	}
	for _, entry := range listed {
		if entry == host {
			return true
		}
		if prefix, err := netip.ParsePrefix(entry); err == nil && isAddr && prefix.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// speaksTLS tries. Any answer over TLS, also a refusal, means yes.
func speaksTLS(ctx context.Context, t *http.Transport, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return true // the real request will say what is wrong
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return true
}
