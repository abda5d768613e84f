package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// attempts is how often a transfer that breaks off is taken up again, as in
	// Docker. One that got ahead by a step counts anew: a large blob over a bad
	// line may break often and still arrive.
	attempts = 5
	step     = 1 << 20
)

// Blob fetches a blob into w, from where it broke off when that happens and
// the registry can (RFC 9110 §14), and verifies size and digest. A mirror that
// fails, or sends something else, is followed by the next one and the origin.
// got is told how many bytes are there. On an error w holds something, or
// nothing.
func (r *Repo) Blob(ctx context.Context, desc ocispec.Descriptor, w Sink, got func(int64)) error {
	t := &transfer{desc: desc, w: w, got: got}
	return r.each(ctx, func(e *end) error {
		if err := t.restart(); err != nil { // of what the one before sent
			return err
		}
		t.end = e
		return r.explain("fetch blob", desc.Digest.String(), t.all(ctx))
	})
}

// transfer is one blob from one place.
type transfer struct {
	end   *end
	desc  ocispec.Descriptor
	w     Sink
	got   func(int64)
	sum   digest.Verifier
	have  int64
	mixed bool // it was resumed: the parts may be of two different things
}

// sinkError is an error of the receiving side, which trying again does not mend.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

func (t *transfer) restart() error {
	t.sum, t.mixed = t.desc.Digest.Verifier(), false
	if t.have == 0 {
		return nil
	}
	t.have = 0
	if err := t.w.Restart(); err != nil {
		return sinkError{err}
	}
	return nil
}

// all makes attempts until the blob is there and verified.
func (t *transfer) all(ctx context.Context) (err error) {
	for try := 0; try < attempts; try++ {
		if try > 0 && !sleep(ctx, wait(try-1)) {
			return context.Cause(ctx)
		}
		before := t.have
		var final bool
		if final, err = t.run(ctx); final && err != nil {
			return err
		}
		if err == nil && t.sum.Verified() {
			return nil
		}
		if err == nil {
			if !t.mixed {
				return fault.New(fault.Corrupt, "fetch blob", t.desc.Digest.String(), "what the registry sent has another digest", "")
			}
			if err := t.restart(); err != nil {
				return err
			}
			continue
		}
		if t.have-before >= step {
			try = 0
		}
	}
	if err == nil {
		err = fault.New(fault.Corrupt, "fetch blob", t.desc.Digest.String(), "the registry resumes it with something else", "")
	}
	return err
}

// run makes one attempt; final says that another one is of no use.
func (t *transfer) run(ctx context.Context) (final bool, err error) {
	body, err := t.open(ctx)
	if err != nil { // what may pass has been tried again below
		return true, because(ctx, err)
	}
	defer body.Close()
	err = because(ctx, t.copy(body))
	var own sinkError
	return err == nil || errors.As(err, &own), err
}

// because is why a request ended: the reason for which its context did, if it
// did.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// open asks for what is missing. A registry that sends everything, or another
// part than asked for, makes the transfer begin anew.
func (t *transfer) open(ctx context.Context) (io.ReadCloser, error) {
	resp, err := t.get(ctx)
	if err != nil {
		return nil, err
	}
	var first, last, size int64
	switch {
	case resp.StatusCode == http.StatusPartialContent && t.have > 0:
		_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &first, &last)
		if err == nil && first == t.have && last == t.desc.Size-1 {
			t.mixed = true
			return resp.Body, nil
		}
	case resp.StatusCode == http.StatusOK:
		if size = resp.ContentLength; size >= 0 && size != t.desc.Size {
			resp.Body.Close()
			return nil, fault.New(fault.Corrupt, "fetch blob", t.desc.Digest.String(), fmt.Sprintf("mismatch: its manifest says %d bytes, the registry %d", t.desc.Size, size), "")
		}
		if err := t.restart(); err != nil {
			resp.Body.Close()
			return nil, err
		}
		return resp.Body, nil
	case resp.StatusCode == http.StatusNotFound:
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %w", t.desc.Digest, errdef.ErrNotFound)
	case resp.StatusCode != http.StatusRequestedRangeNotSatisfiable && resp.StatusCode != http.StatusPartialContent:
		return nil, refusal(resp)
	}
	resp.Body.Close()
	if t.have == 0 {
		return nil, fault.New(fault.Corrupt, "fetch blob", t.desc.Digest.String(), "the registry sends a part of it unasked", "")
	}
	if err := t.restart(); err != nil {
		return nil, err
	}
	return t.open(ctx)
}

func (t *transfer) get(ctx context.Context) (*http.Response, error) {
	ctx = auth.AppendRepositoryScope(ctx, t.end.repo.Reference, auth.ActionPull)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.end.url("/blobs/"+t.desc.Digest.String()), nil)
	if err != nil {
		return nil, err
	}
	if t.have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", t.have, t.desc.Size-1))
	}
	return t.end.client.Do(req)
}

func (t *transfer) copy(body io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if t.have += int64(n); t.have > t.desc.Size {
				return sinkError{fault.New(fault.Corrupt, "fetch blob", t.desc.Digest.String(), "the registry sends more than it said", "")}
			}
			t.sum.Write(buf[:n])
			if _, err := t.w.Write(buf[:n]); err != nil {
				return sinkError{err}
			}
			t.got(t.have)
		}
		if err == io.EOF && t.have < t.desc.Size {
			return io.ErrUnexpectedEOF
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// refusal is the error that an answer means. It closes the answer.
func refusal(resp *http.Response) error {
	defer resp.Body.Close()
	return parseRefusal(resp.Request, resp.StatusCode, io.LimitReader(resp.Body, 64<<10))
}
