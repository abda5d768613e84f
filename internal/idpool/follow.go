package idpool

import "slices"

func areasOf(cfg Config, f facts) extents {
	switch {
	case cfg.First != 0:
		return extents{{uint64(cfg.First), uint64(cfg.Last) + rangeIDs}}
	case f.named:
		return f.own.aligned().intersect(extents{{rangeIDs, lastBase + rangeIDs}})
	}
	return extents{{defaultFirst, defaultLast + rangeIDs}}
}

// follow reads the files of the host again when they have changed since.
func (p *Pool) follow() error {
	now := p.host.signature()
	p.mu.Lock()
	same := now == p.seen
	p.mu.Unlock()
	if same {
		return nil
	}
	return p.reread()
}

// reread learns what the files of the host say. Ranges that are leased already
// stay so. Ranges that may be leased from now on are so once the claims on disk
// say it.
func (p *Pool) reread() error {
	p.reading.Lock()
	defer p.reading.Unlock()
	seen := p.host.signature() // before reading: what changes meanwhile is read next time
	f, err := p.host.read()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.taken, p.areas, p.facts = seen, f.taken, areasOf(p.cfg, f), f
	p.changes++
	for _, s := range p.slabs {
		p.mark(s)
	}
	return nil
}

// mark notes in a slab what the files of the host say of it. Preconditions:
// p.mu held.
func (p *Pool) mark(s *slab) {
	s.outside, s.taken = ^p.areas.mask(s.number), p.taken.mask(s.number)
}

// fresh is a slab before anything of it is leased, as it would be claimed.
// Preconditions: p.mu held.
func (p *Pool) fresh(number int) *slab {
	s := &slab{number: number}
	p.mark(s)
	s.told = s.offer()
	return s
}

// slab returns the own slab of that number, or nil. Preconditions: p.mu held.
func (p *Pool) slab(number int) *slab {
	for _, s := range p.slabs {
		if s.number == number {
			return s
		}
	}
	return nil
}

// each calls do for every own slab that e touches, with its ranges in e.
// Preconditions: p.mu held.
func (p *Pool) each(e extent, do func(s *slab, ranges uint64)) {
	for _, s := range p.slabs {
		if ranges := (extents{e}).mask(s.number); ranges != 0 {
			do(s, ranges)
		}
	}
}

// askNames asks the name services again about ids of the slabs that an earlier
// process has claimed: users may have been added since. A start does not wait for
// services that do not answer, which have answered when the slab was claimed.
func (p *Pool) askNames() {
	p.mu.Lock()
	slabs := slices.Clone(p.slabs)
	p.mu.Unlock()
	for _, s := range slabs {
		names, err := p.namesOf([]int{s.number})
		if p.ctx.Err() != nil {
			return
		}
		if err != nil {
			p.host.warn(err.Error())
			return
		}
		p.asked(s, names)
	}
}
