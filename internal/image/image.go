// Package image keeps images: it fetches them from registries, loads and
// imports archives, and knows them by name, digest and id. Blobs are kept as
// they came, in an OCI image layout that other tools can read; layers are
// handed on to be unpacked, each once, whatever images share it.
//
// An image is known when, and only when, its record is in the index, which is
// written last, durably, and in one piece. Everything before that (blobs in
// ingest/, blobs without a record, layers begun) is thrown away by whoever
// made it or, after a crash, by the next Open.
package image

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Layers unpacks layers and keeps them. Ids are diff ids, "sha256:…" of the
// uncompressed tar.
type Layers interface {
	Has(diffID string) bool
	// Unpack reads r, the uncompressed tar, to its end: an error at the end
	// means that the digest does not verify, and nothing must stay then. On
	// success the layer is durable. The facts it returns need no digests.
	Unpack(ctx context.Context, diffID string, r io.Reader) (record.Layer, error)
	// Remove of a layer that is not there is no error.
	Remove(diffID string) error
}

// Index is where records are kept. PutAll is durable and all or nothing; a nil
// value deletes.
type Index interface {
	PutAll(changes map[string]any) error
	Each(f func(key string, raw []byte) error) error
}

// Options of a store. The zero value is usable.
type Options struct {
	Insecure    []string      // registries, "host[:port]" or CIDR, that may lack TLS
	MaxParallel int           // layers fetched and unpacked at once; 0: 3, as in Docker
	Platform    string        // "os/arch[/variant]" when none is asked for; empty: the host's
	UserAgent   string        // sent to registries
	Policy      Policy        // which images need signatures
	Registries  Registries    // how some registries are reached
	Stall       time.Duration // a download that brings nothing for so long is begun anew; 0: a minute
}

// Store is the images below a data root. It is safe for use by several
// goroutines; only one Store may be open on a data root (the index's file lock
// sees to that).
type Store struct {
	opt    Options
	root   *os.Root
	blobs  *blobs
	index  Index
	layers Layers

	writing sync.Mutex // held across a change of the index: changes are few, readers never wait for it
	known   atomic.Pointer[catalog]
	pulls   joins[ask.PullImage, record.Image] // those that run
	coming  joins[arrivingLayer, record.Layer] // layers that are being pulled
	busy    locks                              // one at a time per blob and per layer
	pins    pins                               // what running operations will need
}

// Open reads the index and removes what a crash left behind. It makes blobs/,
// ingest/, oci-layout and index.json below dataRoot.
func Open(dataRoot string, index Index, layers Layers, opt Options) (*Store, error) {
	if opt.MaxParallel <= 0 {
		opt.MaxParallel = 3
	}
	if _, err := matcher(opt.Platform); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dataRoot)
	if err != nil {
		return nil, fault.Wrap(diskClass(err), "open data root", dataRoot, err, "")
	}
	s := &Store{opt: opt, root: root, blobs: &blobs{root, newWindows()}, index: index, layers: layers}
	if err := s.recover(); err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// Close lets go of the data root. Operations still running fail.
func (s *Store) Close() error { return s.root.Close() }

// recover loads the catalog and makes the directory agree with it.
func (s *Store) recover() error {
	if err := s.blobs.prepare(); err != nil {
		return err
	}
	c, begun, err := readCatalog(s.index)
	if err != nil {
		return err
	}
	s.known.Store(c)
	for _, diffID := range begun {
		if err := s.dropLayer(diffID); err != nil {
			return err
		}
	}
	for diffID := range c.unusedLayers() {
		if err := s.dropLayer(diffID); err != nil {
			return err
		}
	}
	if err := s.sweepStray(); err != nil {
		return err
	}
	if err := s.blobs.sweep(c.usedBlobs()); err != nil {
		return err
	}
	err = s.blobs.writeIndex(s.known.Load().descriptors())
	if fault.Is(err, fault.Exhausted) { // see change: it is no reason to keep from being removed what fills the disk
		err = nil
	}
	return err
}

// change applies f to a copy of the catalog and makes the result durable, then
// visible. f returns the records to write. On an error nothing has changed.
func (s *Store) change(f func(*catalog) (map[string]any, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	next := s.known.Load().clone()
	puts, err := f(next)
	if err != nil || len(puts) == 0 {
		return err
	}
	failpoint.Hit("index-changing")
	if err := s.index.PutAll(puts); err != nil {
		return err
	}
	failpoint.Hit("index-changed")
	next.link()
	s.known.Store(next)
	for key := range puts {
		if !strings.HasPrefix(key, layerKey) && !strings.HasPrefix(key, damageKey) {
			// For other tools to read, and made anew by every change and every
			// Open: what it says is no promise of this store, so that its failure
			// on a full disk does not undo what is already durable.
			_ = s.blobs.writeIndex(next.descriptors())
			break
		}
	}
	return nil
}

// List returns every image, the newest first.
func (s *Store) List() []record.Image { return s.known.Load().list() }
