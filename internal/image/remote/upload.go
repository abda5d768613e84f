package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"fief/internal/words/fault"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// whole is the largest blob that goes in one request, which every registry
// takes (OCI distribution spec, "POST then PUT"). Larger ones go in chunks of
// that size: what has arrived need not go again when a connection breaks, even
// at registries that forget an unfinished request.
const whole = 64 << 20

// upload is one blob on its way to a registry.
type upload struct {
	end     *end
	stall   time.Duration
	desc    ocispec.Descriptor
	content io.ReaderAt
	sent    func(int64)
	at      string // where to go on; empty: not begun
	have    int64  // bytes that the registry has
	chunk   int64  // bytes of a chunk, and of the largest blob sent whole
	plain   bool   // the registry takes no chunks
}

// mount asks the registry to take the blob from another of its repositories.
// One that cannot begins an upload instead, which is kept.
func (u *upload) mount(ctx context.Context, from string) (bool, error) {
	u.drop(ctx)
	source := u.end.repo.Reference
	source.Repository = from
	ctx = auth.AppendRepositoryScope(ctx, source, auth.ActionPull)
	query := url.Values{"mount": {u.desc.Digest.String()}, "from": {from}}
	resp, err := u.end.do(ctx, http.MethodPost, u.end.url("/blobs/uploads/?"+query.Encode()), nil, nil)
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		resp.Body.Close()
		return true, nil
	case http.StatusAccepted:
		resp.Body.Close()
		u.at, err = location(resp, u.end)
		return false, err
	}
	return false, refusal(resp)
}

// drop ends a begun upload that is not wanted any more; the registry would do
// so itself in time.
func (u *upload) drop(ctx context.Context) {
	if u.at == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if resp, err := u.end.do(ctx, http.MethodDelete, u.at, nil, nil); err == nil {
		resp.Body.Close()
	}
	u.at, u.have = "", 0
}

// all makes attempts until the blob has arrived.
func (u *upload) all(ctx context.Context) (err error) {
	for try := 0; try < attempts; try++ {
		if try > 0 && !sleep(ctx, wait(try-1)) {
			return context.Cause(ctx)
		}
		before := u.have
		if err = u.run(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		var answer *errcode.ErrorResponse
		switch {
		case errors.As(err, &answer) && u.at != "" && !u.plain && u.large() && refusesChunks(answer.StatusCode):
			u.plain = true
			u.drop(ctx)
		case errors.As(err, &answer) && !notNow(answer.StatusCode) && u.have == 0:
			return err
		case fault.Is(err, fault.Corrupt):
			return err
		}
		if u.have-before >= step {
			try = 0
		}
		u.ask(ctx)
	}
	return err
}

func (u *upload) large() bool { return u.desc.Size > u.chunk }

func refusesChunks(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired,
		http.StatusRequestEntityTooLarge, http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented:
		return true
	}
	return false
}

// ask finds out how much of a broken upload has arrived (OCI distribution
// spec, "Resuming an interrupted upload"). A registry that does not know begins
// anew.
func (u *upload) ask(ctx context.Context) {
	if u.at == "" {
		return
	}
	resp, err := u.end.do(ctx, http.MethodGet, u.at, nil, nil)
	if err != nil {
		u.at, u.have = "", 0
		return
	}
	defer resp.Body.Close()
	at, err := location(resp, u.end)
	if err != nil {
		at = u.at // it is needed only where it changes
	}
	last, known := lastByte(resp.Header.Get("Range"))
	if resp.StatusCode != http.StatusNoContent || !known || last >= u.desc.Size {
		u.at, u.have = "", 0
		return
	}
	u.at, u.have = at, last+1
}

// lastByte reads "0-N", with "bytes=" before it at some registries. "0-0" is
// what most say when they have nothing, so that one byte is taken for none;
// sending it again would be refused, and begins the upload anew.
func lastByte(header string) (int64, bool) {
	var first, last int64
	if len(header) > len("bytes=") && header[:6] == "bytes=" {
		header = header[6:]
	}
	if n, err := fmt.Sscanf(header, "%d-%d", &first, &last); n != 2 || err != nil || first != 0 || last < 0 || last > 1<<40 {
		return 0, false
	}
	if last == 0 {
		return -1, true
	}
	return last, true
}

// run begins the upload, or goes on with it, to its end.
func (u *upload) run(ctx context.Context) error {
	if u.at == "" {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	for !u.plain && u.desc.Size-u.have > u.chunk {
		if err := u.patch(ctx, u.chunk); err != nil {
			return err
		}
	}
	if u.have > 0 && u.have < u.desc.Size { // a PUT with a part of the blob is not known everywhere
		if err := u.patch(ctx, u.desc.Size-u.have); err != nil {
			return err
		}
	}
	return u.finish(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	resp, err := u.end.do(ctx, http.MethodPost, u.end.url("/blobs/uploads/"), nil, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return refusal(resp)
	}
	resp.Body.Close()
	if least, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && least > u.chunk && least < 1<<40 {
		u.chunk = least
	}
	u.have = 0
	u.at, err = location(resp, u.end)
	return err
}

// patch sends the next n bytes.
func (u *upload) patch(ctx context.Context, n int64) error {
	header := http.Header{
		"Content-Type":  {"application/octet-stream"},
		"Content-Range": {fmt.Sprintf("%d-%d", u.have, u.have+n-1)},
	}
	resp, err := u.send(ctx, http.MethodPatch, u.at, n, header)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return refusal(resp)
	}
	resp.Body.Close()
	u.have += n
	at, err := location(resp, u.end)
	if err == nil {
		u.at = at
	}
	return err
}

// finish sends everything, or when all of it has gone nothing, and closes the
// upload with its digest.
func (u *upload) finish(ctx context.Context) error {
	at, err := url.Parse(u.at)
	if err != nil {
		return err
	}
	query := at.Query()
	query.Set("digest", u.desc.Digest.String())
	at.RawQuery = query.Encode()
	resp, err := u.send(ctx, http.MethodPut, at.String(), u.desc.Size-u.have, http.Header{"Content-Type": {"application/octet-stream"}})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return refusal(resp)
	}
	resp.Body.Close()
	u.sent(u.desc.Size)
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != u.desc.Digest.String() {
		return fault.New(fault.Corrupt, "push", u.desc.Digest.String(), "the registry stored another digest, "+short(got), "")
	}
	return nil
}

// send sends n bytes of the blob from u.have on. When nothing moves for the
// stall time, it is given up; how long the registry may think about what it got
// is the transport's to say.
func (u *upload) send(ctx context.Context, method, address string, n int64, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(u.stall, func() { cancel(errStalled) })
	defer watch.Stop()
	ctx = auth.AppendRepositoryScope(ctx, u.end.repo.Reference, auth.ActionPull, auth.ActionPush)
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	if req.ContentLength = n; n == 0 {
		watch.Stop()
	} else {
		// A request that must be sent again, with a new token perhaps, needs its
		// body from the start.
		req.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(&counted{io.NewSectionReader(u.content, u.have, n), u.have, u.sent, watch, u.stall}), nil
		}
		req.Body, _ = req.GetBody()
	}
	resp, err := u.end.single.Do(req)
	if err != nil {
		err = because(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &ended{resp.Body, func() { cancel(nil) }}
	return resp, nil
}

// counted tells how far a body has been read.
type counted struct {
	r     io.Reader
	n     int64
	sent  func(int64)
	watch *time.Timer
	stall time.Duration
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.watch.Reset(c.stall)
		c.sent(c.n)
	}
	if err != nil {
		c.watch.Stop()
	}
	return n, err
}

// ended ends a request's context with its answer.
type ended struct {
	io.ReadCloser
	end func()
}

func (e *ended) Close() error {
	defer e.end()
	return e.ReadCloser.Close()
}
