package remote

import (
	"context"
	"errors"
	"io"
	"time"

	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// attempts is how often a transfer that breaks off is taken up again, as in
// Docker.
const attempts = 5

// Blob fetches a blob into w, from where it broke off when that happens and
// the registry can (RFC 9110 §14), and verifies size and digest. got is told
// how many bytes are there. On an error w holds something, or nothing.
func (r *Repo) Blob(ctx context.Context, desc ocispec.Descriptor, w Sink, got func(int64)) error {
	t := &transfer{repo: r, desc: desc, w: w, got: got, sum: desc.Digest.Verifier()}
	var err error
	for try := range attempts {
		if try > 0 && !sleep(ctx, time.Duration(try)*200*time.Millisecond) {
			break
		}
		var final bool
		if final, err = t.run(ctx); final {
			break
		}
	}
	if ctx.Err() != nil {
		return fault.Wrap(fault.Canceled, "fetch", desc.Digest.String(), context.Cause(ctx), "")
	}
	if err != nil {
		return r.explain("fetch blob", desc.Digest.String(), err)
	}
	if !t.sum.Verified() {
		return fault.New(fault.Corrupt, "fetch blob", desc.Digest.String(), "what the registry sent has another digest", "")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

type transfer struct {
	repo *Repo
	desc ocispec.Descriptor
	w    Sink
	got  func(int64)
	sum  digest.Verifier
	have int64
}

// sinkError is an error of the receiving side, which trying again does not mend.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

// run makes one attempt; final says that another one is of no use.
func (t *transfer) run(ctx context.Context) (final bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := t.repo.stall
	if stall == 0 {
		stall = time.Minute
	}
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	body, err := t.open(ctx)
	if err != nil {
		return !errors.Is(context.Cause(ctx), errStalled) && !temporary(err), err
	}
	defer body.Close()
	err = t.copy(body, func() { watch.Reset(stall) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	var own sinkError
	return err == nil || errors.As(err, &own), err
}

// open asks for what is missing, or for everything where that cannot be.
func (t *transfer) open(ctx context.Context) (io.ReadCloser, error) {
	body, err := t.repo.repo.Blobs().Fetch(ctx, t.desc)
	if err != nil || t.have == 0 {
		return body, err
	}
	if seeker, ok := body.(io.Seeker); ok {
		if _, err := seeker.Seek(t.have, io.SeekStart); err == nil {
			return body, nil
		}
	}
	body.Close()
	if err := t.w.Restart(); err != nil {
		return nil, sinkError{err}
	}
	t.have, t.sum = 0, t.desc.Digest.Verifier()
	return t.repo.repo.Blobs().Fetch(ctx, t.desc)
}

func (t *transfer) copy(body io.Reader, alive func()) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			alive()
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
