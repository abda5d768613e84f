package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// pulse is how many bytes of an answer must come within the stall time. Single
// bytes are no sign of life: with them a server could hold a pull for ever.
const pulse = 16 << 10

// errStalled is why an answer was given up.
var errStalled = errors.New("the registry sends nothing")

// patient ends answers that bring less than a pulse in the stall time. How long
// an answer may take to begin is the transport's to say.
type patient struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements http.RoundTripper. Reading a body that stalls fails with
// errStalled.
func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := p.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	watch := time.AfterFunc(p.stall, func() { cancel(errStalled) })
	resp.Body = &watched{body: resp.Body, ctx: ctx, watch: watch, stall: p.stall, cancel: cancel}
	return resp, nil
}

type watched struct {
	body   io.ReadCloser
	ctx    context.Context
	watch  *time.Timer
	stall  time.Duration
	beat   int // bytes since the watch began anew
	cancel context.CancelCauseFunc
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if w.beat += n; w.beat >= pulse {
		w.watch.Reset(w.stall)
		w.beat = 0
	}
	if err != nil && err != io.EOF && context.Cause(w.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (w *watched) Close() error {
	w.watch.Stop()
	defer w.cancel(nil)
	return w.body.Close()
}
