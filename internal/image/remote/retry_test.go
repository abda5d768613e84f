package remote

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	answer := func(status int, after string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}}
	}
	for name, c := range map[string]struct {
		attempt  int
		resp     *http.Response
		err      error
		min, max time.Duration // negative: no other try
	}{
		"ok":               {0, answer(200, ""), nil, -1, -1},
		"no":               {0, answer(404, ""), nil, -1, -1},
		"who are you":      {0, answer(401, "1"), nil, -1, -1},
		"never":            {0, answer(501, ""), nil, -1, -1},
		"not now":          {0, answer(503, ""), nil, 125 * time.Millisecond, 250 * time.Millisecond},
		"still not":        {2, answer(502, ""), nil, 500 * time.Millisecond, time.Second},
		"enough":           {retries, answer(503, ""), nil, -1, -1},
		"too many":         {0, answer(429, "3"), nil, 3 * time.Second, 4 * time.Second},
		"nonsense":         {0, answer(429, "soon"), nil, 125 * time.Millisecond, 250 * time.Millisecond},
		"hours":            {0, answer(429, "7200"), nil, -1, -1},
		"a date gone by":   {0, answer(503, "Mon, 02 Jan 2006 15:04:05 GMT"), nil, 0, time.Second},
		"reset":            {0, nil, syscall.ECONNRESET, 125 * time.Millisecond, 250 * time.Millisecond},
		"cut off":          {0, nil, io.ErrUnexpectedEOF, 125 * time.Millisecond, 250 * time.Millisecond},
		"refused":          {1, nil, &net.OpError{Err: syscall.ECONNREFUSED}, 250 * time.Millisecond, 500 * time.Millisecond},
		"refused again":    {refusals, nil, &net.OpError{Err: syscall.ECONNREFUSED}, -1, -1},
		"no such name":     {0, nil, &net.DNSError{IsNotFound: true}, -1, -1},
		"resolver is away": {0, nil, &net.DNSError{IsTimeout: true}, 125 * time.Millisecond, 250 * time.Millisecond},
		"certificate":      {0, nil, &tls.CertificateVerificationError{}, -1, -1},
		"given up":         {0, nil, context.Canceled, -1, -1},
	} {
		for range 20 { // chance has a part in it
			d, err := backoff{}.Retry(c.attempt, c.resp, c.err)
			if err != nil || d < c.min || d > c.max {
				t.Fatalf("%s: %v %v, want %v to %v", name, d, err, c.min, c.max)
			}
		}
	}
}

func TestParseMirror(t *testing.T) {
	for text, want := range map[string]Mirror{
		"https://mirror.lan":            {Host: "mirror.lan"},
		"https://mirror.lan/":           {Host: "mirror.lan"},
		"http://cache.lan:5000":         {Host: "cache.lan:5000", Plain: true},
		"https://harbor.lan/proxy/hub/": {Host: "harbor.lan", Prefix: "proxy/hub/"},
		"http://[::1]:5000":             {Host: "[::1]:5000", Plain: true},
	} {
		got, err := ParseMirror(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
		if again, err := ParseMirror(got.String()); err != nil || again != got {
			t.Errorf("%s printed as %s", text, got)
		}
	}
	for _, text := range []string{"", "mirror.lan", "ftp://mirror.lan", "https://", "https://u:p@mirror.lan", "https://mirror.lan?x", "https://mirror.lan/a@b",
		"https://mirror.lan/UP", "https://mirror.lan/a:b", "https://mirror.lan/../x", "https://mirror.lan/#", "https://a b"} {
		if m, err := ParseMirror(text); err == nil {
			t.Errorf("%q is taken as %+v", text, m)
		}
	}
}

func FuzzMirror(f *testing.F) {
	f.Add("https://mirror.lan/a/b")
	f.Add("http://[::1]:5000/")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMirror(text)
		if err != nil {
			return
		}
		if again, err := ParseMirror(m.String()); err != nil || again != m {
			t.Errorf("%q is %+v, printed as %s, read as %+v, %v", text, m, m, again, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if d, _ := retryAfter(header, time.Unix(1e9, 0)); d < 0 {
			t.Errorf("%q: %v", header, d)
		}
	})
}
