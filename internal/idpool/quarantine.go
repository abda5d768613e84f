package idpool

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

const (
	// walkSoon is when the files of released ranges are first looked for. Where
	// some are left it is tried again after twice the time, and so on up to
	// walkLeast, or after walkNow when few ranges are free.
	walkSoon  = 3 * time.Second
	walkNow   = 10 * time.Second
	walkLeast = time.Hour
	// walkShare keeps a pool with few free ranges from walking all the time.
	walkShare = 10
)

// documents is where quarantined ranges are kept, so that they stay so after a
// restart.
type documents interface {
	// PutSoon stores v under key, or deletes the key when v is nil, without
	// waiting for the disk. It is called with the pool locked.
	PutSoon(key string, v any) error
	Each(func(key string, raw []byte) error) error
}

// rest is what an owner left: ranges that files may still belong to. It is
// stored as JSON, and a pointer to it stands for one state of it.
type rest struct {
	Owner string    `json:"owner"`
	IDs   []extent  `json:"ids"`
	Left  []string  `json:"left"` // where the files may be
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"` // what the last walk found

	sign  sign          // the file that the last walk found
	next  time.Time     // when to walk
	pause time.Duration // before the walk after that
}

// MarshalJSON writes an extent as [from, to].
func (e extent) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "[%d,%d]", e.from, e.to), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *extent) UnmarshalJSON(text []byte) error {
	var both [2]uint64
	if err := json.Unmarshal(text, &both); err != nil {
		return err
	}
	if both[0] >= both[1] || both[1] > allIDs {
		return fmt.Errorf("%d to %d are no ids", both[0], both[1])
	}
	*e = extent{both[0], both[1]}
	return nil
}

func (r *rest) key() string { return r.Owner + "@" + strconv.FormatUint(r.IDs[0].from, 10) }

// bar keeps ids of the pool from being leased until no file below left belongs
// to them. Preconditions: p.mu held.
func (p *Pool) bar(owner string, ids extents, left []string) {
	var own []extent
	for _, s := range p.slabs {
		own = append(own, extent{uint64(s.base()), uint64(s.base()) + slabIDs})
	}
	ids = ids.intersect(own)
	if len(ids) == 0 || len(left) == 0 {
		return
	}
	now := time.Now()
	r := &rest{Owner: owner, IDs: ids, Since: now, next: now.Add(walkSoon), pause: walkSoon}
	if old := p.rests[r.key()]; old != nil {
		r.IDs, r.Since, left = union(append(r.IDs, old.IDs...)), old.Since, append(left, old.Left...)
	}
	r.Left = slices.Compact(slices.Sorted(slices.Values(left)))
	p.rests[r.key()] = r
	p.keepRest(r.key(), r)
	for _, e := range r.IDs {
		p.each(e, func(s *slab, ranges uint64) { s.barred |= ranges })
	}
}

// keepRest stores what is quarantined, nil to forget it. The store tells of its
// own failures: all that is lost by one is the quarantine after a restart.
func (p *Pool) keepRest(key string, r *rest) {
	if p.cfg.Quarantine == nil {
		return
	}
	if r == nil {
		_ = p.cfg.Quarantine.PutSoon(key, nil)
		return
	}
	failpoint.Hit("quarantine-begun")
	_ = p.cfg.Quarantine.PutSoon(key, r)
}

// rebar marks the quarantined ranges. Preconditions: p.mu held.
func (p *Pool) rebar() {
	for _, s := range p.slabs {
		s.barred = 0
		for _, r := range p.rests {
			s.barred |= extents(r.IDs).mask(s.number)
		}
	}
}

// restore takes up what was quarantined before this start. Preconditions: the
// pool is not shared yet.
func (p *Pool) restore() error {
	if p.cfg.Quarantine == nil {
		return nil
	}
	err := p.cfg.Quarantine.Each(func(key string, raw []byte) error {
		r := &rest{next: time.Now().Add(walkSoon), pause: walkSoon}
		if err := json.Unmarshal(raw, r); err != nil || len(r.IDs) == 0 {
			return fault.New(fault.Corrupt, "read quarantined ids of", key, fmt.Sprintf("it is %.100q: %v", raw, err),
				"remove the entry when no file of these ids is left")
		}
		p.rests[key] = r
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range p.rests {
		err := p.claimUnder(r.IDs)
		if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Invalid) {
			return err // a conflict: it is for the other daemon to keep them
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rebar()
	return nil
}

// dueWalks returns the quarantines to walk for at now, and when the next one
// will be, zero for never. Those that processes may still be in come after
// these processes. Preconditions: p.mu held.
func (p *Pool) dueWalks(now time.Time) (due map[string]*rest, next time.Time) {
	if p.walking || p.closed {
		return nil, next
	}
	low := p.freeRanges() < lowWater
	soon := p.walked.Add(max(walkNow, walkShare*p.walkTook))
	due = map[string]*rest{}
	for key, r := range p.rests {
		if p.resting(r.IDs) {
			continue
		}
		at := r.next
		if low && soon.Before(at) {
			at = soon
		}
		switch {
		case !at.After(now):
			due[key] = r
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return due, next
}

// resting reports whether a process may still be in ids. Preconditions: p.mu
// held.
func (p *Pool) resting(ids extents) bool {
	for _, s := range p.slabs {
		if s.resting&ids.mask(s.number) != 0 {
			return true
		}
	}
	return false
}

// settle notes what walks have found. What was released again meanwhile is
// walked for again.
func (p *Pool) settle(began time.Time, found map[*rest]sign) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.walking, p.walked = false, time.Now()
	p.walkTook = p.walked.Sub(began)
	for key, r := range p.rests {
		s, walked := found[r]
		if !walked {
			continue
		}
		if s.why == "" {
			delete(p.rests, key)
			p.keepRest(key, nil)
			p.changes++
			continue
		}
		changed := r.Why != s.why
		r.Why, r.sign = s.why, s
		r.pause = min(2*r.pause, walkLeast)
		r.next = p.walked.Add(r.pause)
		if changed {
			p.keepRest(key, r)
		}
	}
	p.rebar()
	p.wakeKeeper()
}
