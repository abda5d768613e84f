// Package snapshot keeps unpacked image layers and writable layers, both with
// inside ids, and makes root file systems of them for any map. It knows
// neither images nor containers: only layers, uppers and maps.
//
// Below the data root, all mode 0700:
//
//	layers/<32 hex digits>/fs   a layer, complete
//	uppers/<name>/{fs,work}     a writable layer
//	building/                   layers being unpacked; nothing here counts
//	replaced/                   damaged layers that a container may still run on
//	dropped/                    on its way out
//	<uid>.<gid>/layers/         copies for one map, only with shift.Copy and Reflink
//	<uid>.<gid>/shadows/        shadows of images for one map, only with shift.Metacopy
package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sync/singleflight"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/probe"
	"fief/internal/kernel/sysx"
	"fief/internal/snapshot/shift"
)

// Options are the choices of an administrator. The zero value is good.
type Options struct {
	Force shift.Way    // only this way of shifting; empty: the best that works
	Stock int          // pairs of upper and work directories kept ready; 0: 8
	Log   *slog.Logger // where failures of background work go; nil: nowhere
}

// Store is an open store. All methods may be called from any goroutine.
type Store struct {
	path    string // the data root
	root    *os.File
	layers  *os.File
	uppers  *os.File
	build   *os.File
	old     *os.File // replaced/
	way     shift.Way
	answers []probe.Answer
	mounter shift.Mounter
	stock   *stock
	drops   *dropper
	copies  singleflight.Group
	trials  singleflight.Group
	ctx     context.Context // ends with Close: stops copying
	cancel  context.CancelFunc

	mu     sync.Mutex                  // never held across a system call
	roots  map[string]rootOwner        // by layer; guarded by mu
	sizes  map[string]int64            // in bytes, by layer; guarded by mu
	built  map[string]string           // layers of built-in images by name; guarded by mu
	others map[shift.Way]shift.Mounter // of ways that are not the store's; guarded by mu
}

// Open makes the store's directories below dataRoot where they are missing,
// and chooses the way of shifting by trying it on the file system there. A way
// that is not supported is passed over; a trial that failed for another reason
// (no space) fails the call. What a killed process left to be deleted is deleted
// in the background.
func Open(dataRoot string, opt Options) (*Store, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Stock == 0 {
		opt.Stock = 8
	}
	if err := os.MkdirAll(dataRoot, 0o700); err != nil {
		return nil, sysx.Fault("make data root", dataRoot, err)
	}
	s := &Store{path: dataRoot, roots: map[string]rootOwner{}, sizes: map[string]int64{}, built: map[string]string{}, others: map[shift.Way]shift.Mounter{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(opt); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(opt Options) (err error) {
	if s.root, err = at.Dir(s.path); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		to   **os.File
	}{{"layers", &s.layers}, {"uppers", &s.uppers}, {"building", &s.build}, {"replaced", &s.old}} {
		if *d.to, err = at.EnsureDir(s.root, d.name); err != nil {
			return err
		}
	}
	if s.drops, err = newDropper(s.root, opt.Log); err != nil {
		return err
	}
	spread(s.uppers)
	s.stock = newStock(s.uppers, opt.Stock, opt.Log)
	return s.choose(opt.Force)
}

// Close ends the background work and lets go of everything; deletions that
// have not happened happen after the next Open. Root file systems that were
// made live on. No other call may follow or be under way.
func (s *Store) Close() {
	s.cancel()
	if s.stock != nil {
		s.stock.close()
	}
	if s.drops != nil {
		s.drops.close()
	}
	if s.mounter != nil {
		s.mounter.Close()
	}
	for _, m := range s.others {
		m.Close()
	}
	fd.CloseAll(s.root, s.layers, s.uppers, s.build, s.old)
}

// Way says how stored files appear under a map, and why no better way was
// taken; why is empty for the best.
func (s *Store) Way() (way, why string) {
	return string(s.way), s.why()
}

// HostIDs reports whether a way writes files with the host ids of one map: what
// was written by it is of no use to another map or to a way that does not.
func HostIDs(way string) bool { return shift.Way(way).HostIDs() }

// Answers says what was tried, in order, and what came of it.
func (s *Store) Answers() []probe.Answer { return s.answers }

// token returns 16 random hex digits. Random names never meet what an earlier
// process left behind.
func token() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
