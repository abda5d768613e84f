package idpool

import (
	"time"

	"fief/internal/words/fault"
)

const (
	// lowWater is the number of free ranges below which the pool looks for more
	// in the background, so that a burst of starts does not wait for the disk.
	lowWater = 16
	// answerWithin bounds how long a lease waits for a look at processes when
	// that is all that could make room: exhaustion is answered within 10 ms. It
	// does not wait at all where looks take longer.
	answerWithin = 5 * time.Millisecond
	// cheap attempts are made for every lease that finds no room. Dearer ones
	// that found nothing are made again after a second at the earliest.
	cheap    = 4 * time.Millisecond
	askAgain = time.Second
	// retryAfter keeps a pool that cannot grow from trying all the time to be
	// ahead of need.
	retryAfter = 30 * time.Second
)

// attempt is one try to make room. Whoever needs room meanwhile waits for it.
type attempt struct {
	n       int           // neighbouring ranges that are needed
	enough  func() bool   // whether there is room; called with p.mu held
	listed  chan struct{} // closed when hope is known
	hope    bool          // there is something to claim, which takes what the disk takes
	done    chan struct{} // closed at the end
	err     error
	changes uint64 // of the pool that it has seen
}

// spent is what an attempt that found nothing leaves: until something changes,
// the next one would find nothing either.
type spent struct {
	n       int // 0: no attempt has found nothing
	changes uint64
	at      time.Time
	took    time.Duration
}

func (s spent) covers(n int, changes uint64) bool {
	return s.n > 0 && n >= s.n && changes == s.changes
}

// holds reports whether another attempt is too dear to be made already.
func (s spent) holds() bool {
	return s.took > cheap && time.Since(s.at) < max(askAgain, lookShare*s.took)
}

// makeRoom returns nil when a lease of n ranges is worth another try. Class
// Exhausted by the deadline when there is nothing left to claim, though a look
// at processes may still go on in the background.
func (p *Pool) makeRoom(n int, deadline time.Time) error {
	enough := func() bool { _, ok := p.room("", n); return ok }
	p.mu.Lock()
	closed := p.closed
	if p.spent.covers(n, p.changes) && p.spent.holds() && !closed {
		p.mu.Unlock()
		return p.exhausted(n)
	}
	if p.looks.took > answerWithin {
		deadline = time.Now()
	}
	t := p.try(n, enough)
	p.mu.Unlock()
	if !t.wait(deadline) && !closed {
		return p.exhausted(n)
	}
	<-t.done
	if t.err != nil && !fault.Is(t.err, fault.Exhausted) {
		return t.err
	}
	p.mu.Lock()
	none := p.spent.covers(n, p.changes)
	p.mu.Unlock()
	if none || t.err != nil && time.Now().After(deadline) {
		return p.exhausted(n)
	}
	return nil // it was for another lease, or ids were given back since
}

// wait reports whether the end of the attempt is near, or worth waiting for.
func (t *attempt) wait(deadline time.Time) bool {
	select {
	case <-t.done:
		return true
	case <-time.After(time.Until(deadline)):
	}
	<-t.listed
	return t.hope
}

// try starts an attempt unless one is under way, and returns the one that is.
// Preconditions: p.mu held.
func (p *Pool) try(n int, enough func() bool) *attempt {
	if p.trying != nil {
		return p.trying
	}
	t := &attempt{n: n, enough: enough, listed: make(chan struct{}), done: make(chan struct{})}
	p.trying = t
	if p.closed { // whoever asked waits for it
		go p.run(t)
	} else {
		p.behind.Go(func() { p.run(t) })
	}
	return t
}

func (p *Pool) run(t *attempt) {
	defer close(t.done)
	began := time.Now()
	t.err = p.claimFor(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trying = nil
	if t.err != nil {
		p.failed = time.Now()
	}
	if fault.Is(t.err, fault.Exhausted) {
		p.spent = spent{t.n, t.changes, p.failed, p.failed.Sub(began)}
	}
}

// prepare grows in the background when few ranges are free. A failure is told
// to the lease that cannot be granted for it. Preconditions: p.mu held.
func (p *Pool) prepare() {
	if p.closed || p.trying != nil || p.freeRanges() >= lowWater {
		return
	}
	pause := askAgain
	if p.spent.covers(1, p.changes) {
		pause = retryAfter
	}
	if time.Since(p.failed) > pause {
		p.try(1, p.hasPlenty)
	}
}
