package image

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"fief/internal/words/fault"
)

// What a root file system is downloaded with.
const (
	maxRedirects  = 5
	headerTimeout = time.Minute
)

// download opens what a URL of http or https names, for an import. It says
// nothing of the content: that is as untrusted as any archive. place is the URL
// without its credentials. The caller closes the body.
func download(ctx context.Context, raw, agent string) (body io.ReadCloser, place string, err error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, "", fault.New(fault.Invalid, "import", short(raw), "it is no URL of http or https", "")
	}
	shown := *u
	shown.User = nil
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", fault.Wrap(fault.Invalid, "import", shown.String(), err, "")
	}
	if agent != "" {
		req.Header.Set("User-Agent", agent)
	}
	// Content-Encoding is left alone: the bytes decide what they are.
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: headerTimeout, DisableCompression: true, DisableKeepAlives: true}
	c := &http.Client{Transport: t, CheckRedirect: checkRedirect}
	res, err := c.Do(req)
	if err != nil {
		return nil, "", downloadFault(ctx, shown.String(), err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, "", fault.New(fault.Unavailable, "import", shown.String(), "the server says "+res.Status, "")
	}
	return res.Body, shown.String(), nil
}

// checkRedirect keeps a download from going on for ever, and from leaving TLS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("it is redirected too often")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("it is redirected from https to " + req.URL.Scheme)
	}
	return nil
}

// downloadFault leaves out the URL of the library's error: it has the password.
func downloadFault(ctx context.Context, place string, err error) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Canceled, "import", place, context.Cause(ctx), "")
	}
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	return fault.Wrap(fault.Unavailable, "import", place, err, "")
}
