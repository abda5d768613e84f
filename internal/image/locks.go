package image

import (
	"context"
	"sync"

	"fief/internal/words/fault"
)

// locks is one lock per key, made when needed.
//
// Order: layer before blob before Store.writing before pins.mu.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	free  chan struct{} // holds a token while nobody has the lock
	users int           // holder and waiters
}

// lock waits for the key and returns what frees it again.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	k := l.held[key]
	if k == nil {
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	select {
	case <-k.free:
		return func() { k.free <- struct{}{}; l.leave(key, k) }, nil
	case <-ctx.Done():
		l.leave(key, k)
		return nil, fault.Wrap(fault.Canceled, "wait for", key, context.Cause(ctx), "")
	}
}

func (l *locks) leave(key string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}

// pins counts, per blob and layer, the operations that will need it.
type pins struct {
	mu    sync.Mutex
	count map[string]int
}

func (p *pins) add(keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == nil {
		p.count = map[string]int{}
	}
	for _, k := range keys {
		p.count[k]++
	}
}

func (p *pins) drop(keys ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		if p.count[k]--; p.count[k] <= 0 {
			delete(p.count, k)
		}
	}
}

func (p *pins) has(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[key] > 0
}
