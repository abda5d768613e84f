package idpool

import (
	"slices"
	"time"
)

const (
	// lookSoon is when processes are looked for after a release, lookNow when
	// few ranges are free. Ranges that processes are still in are looked at
	// again after a second, then less and less often.
	lookSoon  = 2 * time.Second
	lookNow   = 30 * time.Millisecond
	lookLeast = time.Minute
	// lookShare bounds looking in the background to a tenth of a processor,
	// as a look takes longer the more processes there are.
	lookShare = 10
)

// looks says when processes are looked for in the background.
type looks struct {
	due   time.Time // zero: no need
	pause time.Duration
	ended time.Time // the last one
	took  time.Duration
}

// after asks for a look in a while. An earlier one that is due already stays.
func (l *looks) after(wait time.Duration) {
	if due := time.Now().Add(wait); l.due.IsZero() || due.Before(l.due) {
		l.due = due
	}
}

// next is when to look; zero for never.
func (l *looks) next() time.Time {
	if earliest := l.ended.Add(lookShare * l.took); !l.due.IsZero() && l.due.Before(earliest) {
		return earliest
	}
	return l.due
}

// finish notes a look, and plans the next one when ranges still rest.
func (l *looks) finish(began time.Time, resting bool) {
	l.ended = time.Now()
	l.took = l.ended.Sub(began)
	switch {
	case !resting:
		l.due, l.pause = time.Time{}, 0
		return
	case l.due.After(began):
		return // asked for since, or for a later time
	}
	l.pause = min(max(2*l.pause, time.Second), lookLeast)
	l.due = l.ended.Add(l.pause)
}

// sweep frees the ranges that rested before it began and that no process uses,
// and returns what processes use. It notes in t, which may be nil, what of the
// pool it has seen.
func (p *Pool) sweep(t *attempt) (extents, error) {
	p.looking.Lock()
	defer p.looking.Unlock()
	began := time.Now()
	p.mu.Lock()
	looked := slices.Clone(p.slabs)
	for _, s := range looked {
		s.late = 0
	}
	changes := p.changes
	p.mu.Unlock()
	live, err := p.host.live()
	p.mu.Lock()
	defer p.mu.Unlock()
	var freed, left uint64
	for _, s := range looked {
		if err == nil {
			gone := s.resting &^ (s.late | live.mask(s.number))
			s.resting &^= gone
			freed |= gone
		}
		left |= s.resting
	}
	if freed != 0 {
		p.changes++
		changes++
	}
	if t != nil {
		t.changes = changes
	}
	p.looks.finish(began, left != 0)
	p.wakeKeeper()
	return live, err
}
