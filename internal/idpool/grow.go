package idpool

import (
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

const (
	// lowWater is the number of free ranges below which the pool looks for more
	// in the background, so that a burst of starts does not wait for the disk.
	lowWater = 16
	// retryAfter keeps a pool that cannot grow from looking again at every lease.
	retryAfter = 30 * time.Second
)

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
	p.growing.Lock()
	defer p.growing.Unlock()
	return p.reread()
}

// reread learns what the files of the host say. Ranges that are leased already
// stay so. Preconditions: p.growing held.
func (p *Pool) reread() error {
	seen := p.host.signature() // before reading: what changes meanwhile is read next time
	f, err := p.host.read()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.taken, p.areas = seen, f.taken, areasOf(p.cfg, f)
	for _, s := range p.slabs {
		*s = p.marked(*s)
	}
	return nil
}

// fresh is a slab before anything of it is leased. Preconditions: p.mu held.
func (p *Pool) fresh(number int) *slab {
	s := p.marked(slab{number: number})
	return &s
}

func (p *Pool) marked(s slab) slab {
	s.outside, s.taken = ^p.areas.mask(s.number), p.taken.mask(s.number)
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

// own adds slabs. Ranges that somebody uses rest until nobody does.
// Preconditions: p.mu held.
func (p *Pool) own(live extents, numbers ...int) {
	for _, number := range numbers {
		s := p.fresh(number)
		s.resting = live.mask(number)
		p.slabs = append(p.slabs, s)
	}
	slices.SortFunc(p.slabs, func(a, b *slab) int { return a.number - b.number })
	p.repin()
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

// prepare grows in the background when few ranges are free. Preconditions:
// p.mu held.
func (p *Pool) prepare() {
	if p.busy || p.closed || p.freeRanges() >= lowWater {
		return
	}
	p.busy = true
	p.behind.Go(func() {
		p.growing.Lock()
		defer p.growing.Unlock()
		if time.Since(p.failed) > retryAfter {
			// A failure is told to the lease that cannot be granted for it.
			if err := p.claimFor(1, p.hasPlenty); err != nil {
				p.failed = time.Now()
			}
		}
		p.mu.Lock()
		p.busy = false
		p.mu.Unlock()
	})
}

func (p *Pool) freeRanges() int {
	n := 0
	for _, s := range p.slabs {
		n += bits.OnesCount64(s.free())
	}
	return n
}

// hasFree and hasPlenty say when growing has done enough.
func (p *Pool) hasFree() bool   { return p.freeRanges() > 0 }
func (p *Pool) hasPlenty() bool { return p.freeRanges() >= lowWater }

// claimFor makes room for a lease of n ranges: first by freeing ranges that
// nobody uses any longer, then by claiming slabs, those of vanished data roots
// last. It stops when enough, called with p.mu held, says so. Class Exhausted
// when there is nothing left to claim. Preconditions: p.growing held.
func (p *Pool) claimFor(n int, enough func() bool) error {
	live, err := p.sweep()
	if err != nil {
		return err
	}
	p.mu.Lock()
	done := enough()
	p.mu.Unlock()
	if done {
		return nil
	}
	unlock, err := p.claims.lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := p.claims.list()
	if err != nil {
		return err
	}
	if err := p.confirm(all); err != nil {
		return err
	}
	unclaimed := func(number int) bool { _, claimed := all[number]; return !claimed }
	dead := func(number int) bool { return unclaimed(number) || all[number].vanished() }
	for _, can := range []func(int) bool{unclaimed, dead} {
		if numbers := p.choose(n, live, can); len(numbers) > 0 {
			return p.claim(numbers, live, all)
		}
	}
	return p.exhausted(n)
}

// sweep frees the ranges that rested before it began and that no process uses,
// and returns what processes use. Preconditions: p.growing held.
func (p *Pool) sweep() (extents, error) {
	p.mu.Lock()
	before := make(map[*slab]uint64, len(p.slabs))
	for _, s := range p.slabs {
		before[s] = s.resting
	}
	p.mu.Unlock()
	live, err := p.host.live()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, resting := range before {
		s.resting &^= resting &^ live.mask(s.number)
	}
	return live, nil
}

// confirm claims own slabs again whose claims somebody has removed, and stops
// leasing from those that another daemon has claimed since. Preconditions:
// p.growing and the lock of the claims are held.
func (p *Pool) confirm(all map[int]claim) error {
	p.mu.Lock()
	slabs := slices.Clone(p.slabs)
	p.mu.Unlock()
	for _, s := range slabs {
		c, claimed := all[s.number]
		if claimed && p.claims.mine(c) {
			continue
		}
		if !claimed {
			if err := p.claims.add(s.number, ^s.outside); err != nil {
				return err
			}
			all[s.number] = claim{p.claims.id, p.claims.root, ^s.outside}
			continue
		}
		p.mu.Lock()
		p.slabs = slices.DeleteFunc(p.slabs, func(o *slab) bool { return o == s })
		p.mu.Unlock()
	}
	return nil
}

// choose returns the numbers of neighbouring slabs to claim for n neighbouring
// ranges. Different data roots begin to look at different places.
// Preconditions: p.growing held.
func (p *Pool) choose(n int, live extents, can func(number int) bool) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.areas.slabs()
	for i := range all {
		first := all[(i+int(hash(p.claims.id)%uint64(len(all))))%len(all)]
		if numbers, ok := p.group(first, n, live, can); ok {
			return numbers
		}
	}
	return nil
}

// group returns which slabs from first on have to be claimed so that n ranges
// fit; false when they do not fit, or are not to be had. Preconditions: p.mu
// held.
func (p *Pool) group(first, n int, live extents, can func(number int) bool) ([]int, bool) {
	var claim []int
	for number := first; n > 0; number++ {
		s := p.slab(number)
		if s == nil {
			s = p.fresh(number)
			s.resting = live.mask(number)
			claim = append(claim, number)
		}
		at, ok := fit(s.free(), min(n, slabRanges), 0)
		if !ok || number > first && at != 0 {
			return nil, false
		}
		n -= slabRanges
	}
	for _, number := range claim {
		if !can(number) {
			return nil, false
		}
	}
	return claim, len(claim) > 0
}

// claim makes slabs own, on disk and then in memory. Preconditions: p.growing
// and the lock of the claims are held.
func (p *Pool) claim(numbers []int, live extents, all map[int]claim) error {
	for _, number := range numbers {
		p.mu.Lock()
		ranges := ^p.fresh(number).outside
		p.mu.Unlock()
		write := p.claims.add
		if _, old := all[number]; old {
			write = p.claims.take
		}
		if err := write(number, ranges); err != nil {
			return err
		}
		p.mu.Lock()
		p.own(live, number)
		p.mu.Unlock()
	}
	return nil
}

func (p *Pool) exhausted(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.areas) == 0 {
		return fault.New(fault.Exhausted, "lease host ids", "", fmt.Sprintf("the lines of user %q in %s and %s have no whole range of 65536 aligned ids in common",
			poolUser, p.cfg.SubUID, p.cfg.SubGID), "give both the same ids, from a multiple of 65536 on")
	}
	first, last := p.areas[0].from, p.areas[len(p.areas)-1].to-1
	return fault.New(fault.Exhausted, "lease host ids", "",
		fmt.Sprintf("no %d neighbouring ids of %d…%d are free", n*rangeIDs, first, last),
		"remove containers, or give the pool more ids")
}

// ranges returns the ids that a lease keeps from others: whole ranges.
func ranges(l record.Lease) extent {
	from, to := uint64(l.Base), uint64(l.Base)+uint64(l.Size)
	return extent{from / rangeIDs * rangeIDs, (to + rangeIDs - 1) / rangeIDs * rangeIDs}
}

// hash is the same in every process: FNV-1a.
func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
