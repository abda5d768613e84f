package image

import (
	"context"
	"errors"
	"io"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layerJob is one layer to be had: its blob and what it unpacks to.
type layerJob struct {
	blob   ocispec.Descriptor
	diffID string
}

// fetcher brings a blob into the store; it is there when it returns nil. fresh
// says that its content was verified just now, rather than whenever it came. A
// fetcher that takes its time lets the blob be read meanwhile, through a.
type fetcher func(ctx context.Context, desc ocispec.Descriptor, a *arriving) (fresh bool, err error)

// layer makes sure that the layer is unpacked and that its blob is there and is
// the same, and returns the facts. The caller holds both (see hold).
func (s *Store) layer(ctx context.Context, job layerJob, fetch fetcher, t *teller) (record.Layer, error) {
	unlock, err := s.busy.lock(ctx, layerLock(job.diffID))
	if err != nil {
		return record.Layer{}, err
	}
	defer unlock()
	if l, ok := s.have(job); ok {
		return l, nil
	}
	l, fresh, err := s.fetchAndOpen(ctx, job, fetch, t)
	if err == nil {
		s.unmark("blob", job.blob.Digest.String())
	}
	if fresh || !fault.Is(err, fault.Corrupt) {
		return l, err
	}
	if err := s.blobs.remove(job.blob.Digest.String()); err != nil { // the disk has damaged it: fetch it anew
		return record.Layer{}, err
	}
	l, _, err = s.fetchAndOpen(ctx, job, fetch, t)
	return l, err
}

// fetchAndOpen unpacks the blob while it arrives, so that a layer is there soon
// after its last byte. fresh is the fetcher's, and true when that has failed.
func (s *Store) fetchAndOpen(ctx context.Context, job layerJob, fetch fetcher, t *teller) (l record.Layer, fresh bool, err error) {
	fetching, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	a := newArriving()
	defer a.free()
	done := make(chan error, 1)
	go func() {
		var err error
		fresh, err = fetch(fetching, job.blob, a)
		a.end(err)
		done <- err
	}()
	if !a.begun() {
		if err := <-done; err != nil {
			return record.Layer{}, true, err
		}
		l, err = s.openStored(ctx, job, t)
		return l, fresh, err
	}
	l, err = s.open(ctx, job, a, nil)
	if err != nil && !fault.Is(err, fault.Corrupt) { // what is corrupt may be so on its way only: the blob's digest tells
		giveUp(err)
	}
	if fetchErr := <-done; fetchErr != nil && (err == nil || errors.Is(err, fetchErr) || context.Cause(fetching) != err) {
		return record.Layer{}, true, fetchErr
	}
	if fault.Is(err, fault.Corrupt) { // of a mirror that lied before another sent the blob, which is verified
		l, err = s.openStored(ctx, job, t)
	}
	if err == nil {
		t.bytes(barOf(job.blob.Digest), "Extracting", job.blob.Size, job.blob.Size)
	}
	return l, true, err
}

// have returns the facts of a layer that is there with its very blob.
func (s *Store) have(job layerJob) (record.Layer, bool) {
	c := s.known.Load()
	l, ok := c.layers[job.diffID]
	blob := job.blob.Digest.String()
	if !ok || c.damaged("layer", job.diffID) || !s.layers.Has(job.diffID) || !s.hasBlob(blob, job.blob.Size) || !c.verified(blob, job.diffID) {
		return record.Layer{}, false
	}
	l.Digest, l.Bytes = blob, job.blob.Size
	return l, true
}

func (s *Store) openStored(ctx context.Context, job layerJob, t *teller) (record.Layer, error) {
	f, err := s.blobs.open(job.blob.Digest.String())
	if err != nil {
		return record.Layer{}, err
	}
	return s.open(ctx, job, f, t)
}

// open unpacks a blob, which it closes, or only compares it when another blob
// has brought the layer already.
func (s *Store) open(ctx context.Context, job layerJob, blob io.ReadCloser, t *teller) (record.Layer, error) {
	defer blob.Close()
	tar, _, err := plainTar(ctx, &extracting{blob, ctx, t, barOf(job.blob.Digest), 0, job.blob.Size}, s.blobs.windows)
	if err != nil {
		return record.Layer{}, err
	}
	defer tar.Close()
	r := newAhead(newChecked(tar, job.diffID))
	defer r.Close()
	defer blob.Close() // first: r may be waiting for it
	c := s.known.Load()
	l, known := c.layers[job.diffID]
	k, keeps := s.layers.(keeper)
	switch {
	case known && !c.damaged("layer", job.diffID) && s.layers.Has(job.diffID):
		_, err = io.Copy(io.Discard, r)
	case known && keeps && c.usedLayers()[job.diffID]:
		l, err = s.remake(ctx, k, l, r)
	default:
		l, err = s.unpack(ctx, job, r)
	}
	l.DiffID, l.Digest, l.Bytes = job.diffID, job.blob.Digest.String(), job.blob.Size
	return l, err
}

// unpack notes that the layer is begun before it can exist, so that whatever a
// crash leaves is known to the next Open.
func (s *Store) unpack(ctx context.Context, job layerJob, r io.Reader) (record.Layer, error) {
	if err := s.layers.Remove(job.diffID); err != nil { // one whose record was lost
		return record.Layer{}, err
	}
	err := s.change(func(c *catalog) (map[string]any, error) {
		delete(c.layers, job.diffID)
		return map[string]any{layerKey + job.diffID: layerState{}}, nil
	})
	if err != nil {
		return record.Layer{}, err
	}
	failpoint.Hit("layer-begun")
	l, err := s.layers.Unpack(ctx, job.diffID, r)
	failpoint.Hit("layer-unpacked")
	if err == nil {
		l.DiffID, l.Digest, l.Bytes = job.diffID, job.blob.Digest.String(), job.blob.Size
		err = s.change(func(c *catalog) (map[string]any, error) {
			c.layers[job.diffID] = l
			return map[string]any{layerKey + job.diffID: layerState{Done: true, Layer: l}}, nil
		})
	}
	if err != nil {
		s.dropLayer(job.diffID) // else the next Open does
		return record.Layer{}, err
	}
	return l, nil
}

// extracting reads a blob and tells how far, if anybody listens.
type extracting struct {
	r     io.Reader
	ctx   context.Context
	tell  *teller
	id    string
	n     int64
	total int64
}

func (e *extracting) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Canceled, "unpack layer", e.id, err, "")
	}
	n, err := e.r.Read(p)
	e.n += int64(n)
	e.tell.bytes(e.id, "Extracting", e.n, e.total)
	return n, err
}
