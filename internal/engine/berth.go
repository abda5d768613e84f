package engine

import (
	"sync"
	"time"

	"fief/internal/snapshot"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// rangeSize is how many ids a container gets unless it needs more: the whole
// 16-bit space, so that nobody (65534) and every image's users are mapped.
const rangeSize = 65536

// berthPause keeps the making of a berth out of the start that took one.
const berthPause = 30 * time.Millisecond

// berthRetry is how long the maker of berths waits after a failure.
const berthRetry = time.Second

// berth is what a start under a range of its own needs and what takes longest
// to make: the range, and the store seen through its map. Made ahead of need,
// used once.
type berth struct {
	owner  string // who holds the lease until a container does
	lease  record.Lease
	pair   idmap.Pair
	mapped *snapshot.Mapped
}

// berths keeps a few berths ready.
type berths struct {
	ready chan *berth
	stop  chan struct{}
	done  sync.WaitGroup
}

// newBerths keeps n berths ready from when calm is closed, at once when it is nil.
func newBerths(n int, calm <-chan struct{}, build func() (*berth, error)) *berths {
	b := &berths{ready: make(chan *berth, n), stop: make(chan struct{})}
	if n == 0 {
		return b
	}
	b.done.Go(func() {
		if calm != nil {
			select {
			case <-calm:
			case <-b.stop:
				return
			}
		}
		b.fill(build)
	})
	return b
}

func (b *berths) fill(build func() (*berth, error)) {
	for {
		next, err := build()
		if err != nil {
			next = nil
		}
		var offer chan *berth
		var retry <-chan time.Time
		if next != nil {
			offer = b.ready
		} else {
			retry = time.After(berthRetry)
		}
		select {
		case offer <- next:
			b.pause()
		case <-retry:
		case <-b.stop:
			if next != nil {
				next.mapped.Close()
			}
			return
		}
	}
}

// pause lets starts that are under way have the machine, unless berths run out.
func (b *berths) pause() {
	if len(b.ready) < cap(b.ready)/2 {
		return
	}
	select {
	case <-time.After(berthPause):
	case <-b.stop:
	}
}

// take returns a ready berth or nil.
func (b *berths) take() *berth {
	select {
	case next := <-b.ready:
		return next
	default:
		return nil
	}
}

func (b *berths) close() {
	close(b.stop)
	b.done.Wait()
	for next := b.take(); next != nil; next = b.take() {
		next.mapped.Close()
	}
}

// newBerth leases a range and makes the store's view under its map.
func (e *Engine) newBerth() (*berth, error) {
	owner := "berth-" + ref.NewID()
	lease, err := e.rooms.IDs.Lease(owner, rangeSize)
	if err != nil {
		return nil, err
	}
	pair, err := idmap.Range(lease.Base, lease.Size)
	if err == nil {
		var mapped *snapshot.Mapped
		if mapped, err = e.rooms.Layers.Maps(pair, ""); err == nil {
			return &berth{owner, lease, pair, mapped}, nil
		}
	}
	e.rooms.IDs.Release(owner)
	return nil, fault.Wrap(fault.ClassOf(err), "prepare", "an id range", err, fault.HintOf(err))
}
