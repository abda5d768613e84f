package idpool

import "time"

// wakeKeeper lets the goroutine that watches over released ranges look at what
// there is to do. It runs only while there are any. Preconditions: p.mu held.
func (p *Pool) wakeKeeper() {
	if p.closed || p.ctx == nil {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	if !p.keeping {
		p.keeping = true
		p.behind.Go(p.keep)
	}
}

// keep frees released ranges, each once no process and no file of it is left.
func (p *Pool) keep() {
	for {
		now := time.Now()
		p.mu.Lock()
		look := p.looks.next()
		due, next := p.dueWalks(now)
		if len(due) > 0 {
			p.walking = true
			p.walker = make(chan struct{})
			go p.search(due, p.walker)
		}
		if p.closed || look.IsZero() && next.IsZero() && !p.walking {
			p.keeping = false
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		if look.IsZero() || look.After(now) {
			p.sleep(now, look, next)
			continue
		}
		_, _ = p.sweep(nil) // a failure is told to the lease that cannot be granted for it
	}
}

// search looks for files of what is due, and then closes done.
func (p *Pool) search(due map[string]*rest, done chan struct{}) {
	defer close(done)
	began := time.Now()
	p.settle(began, walk(p.ctx, due))
}

// sleep waits until the earlier of two times, zero for none, or until there is
// something new.
func (p *Pool) sleep(now, a, b time.Time) {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		a = b
	}
	var due <-chan time.Time
	if !a.IsZero() {
		timer := time.NewTimer(a.Sub(now))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-p.ctx.Done():
	case <-p.wake:
	case <-due:
	}
}
