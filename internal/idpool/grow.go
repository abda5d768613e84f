package idpool

import (
	"fmt"
	"hash/fnv"
	"math/bits"
	"slices"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

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

// claimFor makes room: first by freeing ranges that nobody uses any longer,
// then by claiming slabs, those of vanished data roots last. Class Exhausted
// when there is nothing left to claim.
func (p *Pool) claimFor(t *attempt) error {
	all, err := p.claims.list()
	if err == nil {
		t.hope = p.hopeful(t.n, all)
	}
	close(t.listed)
	if err != nil {
		return err
	}
	live, err := p.sweep(t)
	if err != nil || p.does(t.enough) {
		return err
	}
	p.growing.Lock()
	defer p.growing.Unlock()
	all, unlock, err := p.claims.locked()
	if err != nil {
		return err
	}
	defer unlock()
	unknown := p.lines()
	p.askUnasked()
	if err := p.confirm(all); err != nil || p.does(t.enough) {
		return err
	}
	if unknown != nil {
		return unknown
	}
	claimed := make(map[int]bool, len(all))
	for number := range all {
		claimed[number] = true
	}
	for _, others := range []map[int]bool{claimed, standing(all)} {
		if numbers := p.choose(t.n, live, others); len(numbers) > 0 {
			return p.claim(numbers, live, all)
		}
	}
	return p.exhausted(t.n)
}

func (p *Pool) does(enough func() bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return enough()
}

// hopeful reports whether there is something to claim, or a claim to correct.
func (p *Pool) hopeful(n int, all map[int]claim) bool {
	p.mu.Lock()
	stale := slices.ContainsFunc(p.slabs, func(s *slab) bool { return s.told != s.offer() || s.unasked&^s.outside != 0 })
	p.mu.Unlock()
	return stale || len(p.choose(n, nil, standing(all))) > 0
}

// confirm makes the claims on disk say what the own slabs offer, also where
// somebody has removed them, and stops leasing from slabs that another daemon
// has claimed since. Preconditions: p.growing and the lock of the claims are
// held.
func (p *Pool) confirm(all map[int]claim) error {
	p.mu.Lock()
	slabs := slices.Clone(p.slabs)
	p.mu.Unlock()
	for _, s := range slabs {
		p.mu.Lock()
		offer := s.offer()
		p.mu.Unlock()
		c, claimed := all[s.number]
		var err error
		switch {
		case !claimed:
			err = p.claims.add(s.number, offer)
		case !p.claims.mine(c):
			p.mu.Lock()
			p.slabs = slices.DeleteFunc(p.slabs, func(o *slab) bool { return o == s })
			p.mu.Unlock()
			continue
		case c.ranges != offer:
			err = p.claims.take(s.number, offer)
		}
		if err != nil {
			return err
		}
		all[s.number] = claim{p.claims.id, p.claims.root, offer}
		p.mu.Lock()
		s.told = offer
		p.mu.Unlock()
	}
	return nil
}

// choose returns the numbers of neighbouring slabs to claim for n neighbouring
// ranges, none of them of others. Different data roots begin to look at
// different places.
func (p *Pool) choose(n int, live extents, others map[int]bool) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.areas.slabs()
	for i := range all {
		first := all[(i+int(hash(p.claims.id)%uint64(len(all))))%len(all)]
		if numbers, ok := p.group(first, n, live, others); ok {
			return numbers
		}
	}
	return nil
}

// group returns which slabs from first on have to be claimed so that n ranges
// fit; false when they do not fit, or are others'. Preconditions: p.mu held.
func (p *Pool) group(first, n int, live extents, others map[int]bool) ([]int, bool) {
	var claim []int
	for number := first; n > 0; number++ {
		s := p.slab(number)
		if s == nil {
			if others[number] {
				return nil, false
			}
			s = p.fresh(number)
			s.rest(live.mask(number))
			claim = append(claim, number)
		}
		at, ok := fit(s.free(), min(n, slabRanges), 0)
		if !ok || number > first && at != 0 {
			return nil, false
		}
		n -= slabRanges
	}
	return claim, len(claim) > 0
}

// lines asks again for lines of the pool's user that are not known: what is outside
// them is not the pool's to claim.
func (p *Pool) lines() error {
	unknown := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.facts.unknown
	}
	if unknown() == nil {
		return nil
	}
	if err := p.reread(); err != nil {
		return err
	}
	if err := unknown(); err != nil {
		return p.host.silent(err)
	}
	return nil
}

// namesOf are the bases of slabs to be claimed that name services give away. One
// that does not say so may give away any, and one that does not say whether the
// pool's user has lines all: nothing is claimed then, unless the files have lines.
func (p *Pool) namesOf(numbers []int) (extents, error) {
	p.mu.Lock()
	named, unknown := p.facts.named, p.facts.unknown
	p.mu.Unlock()
	if unknown != nil {
		return nil, p.host.silent(unknown)
	}
	names, err := p.host.nss(bases(numbers...))
	if err == nil {
		return names, nil
	}
	if !named {
		return nil, p.host.silent(err)
	}
	p.host.warn(err.Error())
	return names, nil
}

// askUnasked asks for the slabs that name services were not asked for, or in vain.
func (p *Pool) askUnasked() {
	p.mu.Lock()
	slabs := slices.Clone(p.slabs)
	p.mu.Unlock()
	for _, s := range slabs {
		p.mu.Lock()
		needed := s.unasked&^s.outside != 0
		p.mu.Unlock()
		if !needed {
			continue
		}
		names, err := p.namesOf([]int{s.number})
		if err != nil {
			p.host.warn(err.Error())
			return
		}
		p.asked(s, names)
	}
}

// asked notes what name services have said of a slab.
func (p *Pool) asked(s *slab, names extents) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.named |= names.mask(s.number)
	if s.unasked&^s.outside != 0 {
		p.changes++
	}
	s.unasked = 0
}

// claimUnasked is claim for what is in use already, or was asked for by its
// numbers: a name service that does not answer keeps nobody from it, but nothing
// else of the slabs is leased.
func (p *Pool) claimUnasked(numbers []int, live extents, all map[int]claim) error {
	names, err := extents(nil), error(nil)
	unasked := uint64(0)
	if len(numbers) > 0 {
		names, err = p.namesOf(numbers)
	}
	if err != nil {
		p.host.warn(err.Error())
		unasked = ^uint64(0)
	}
	return p.take(numbers, live, all, slabNames{names, unasked})
}

// claim makes slabs own, on disk and then in memory. Preconditions: p.growing
// and the lock of the claims are held.
func (p *Pool) claim(numbers []int, live extents, all map[int]claim) error {
	if len(numbers) == 0 {
		return nil
	}
	names, err := p.namesOf(numbers)
	if err != nil {
		return err
	}
	return p.take(numbers, live, all, slabNames{names: names})
}

// slabNames is what is known of name services about slabs to be claimed.
type slabNames struct {
	names   extents
	unasked uint64
}

// take is claim of slabs of which it is known what name services say.
func (p *Pool) take(numbers []int, live extents, all map[int]claim, known slabNames) error {
	for _, number := range numbers {
		p.mu.Lock()
		s := p.fresh(number)
		s.unasked = known.unasked
		s.told = s.offer()
		p.mu.Unlock()
		write := p.claims.add
		if _, old := all[number]; old {
			write = p.claims.take
		}
		if err := write(number, s.told); err != nil {
			return err
		}
		all[number] = claim{p.claims.id, p.claims.root, s.told}
		p.claims.steps.at("claimed on disk")
		p.own(s, live, known.names)
	}
	return nil
}

// own adds a slab. Ranges that a process uses rest until none does.
func (p *Pool) own(s *slab, live, names extents) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark(s) // the host's files may have been read again
	s.named = names.mask(s.number)
	s.rest(live.mask(s.number))
	p.slabs = append(p.slabs, s)
	slices.SortFunc(p.slabs, func(a, b *slab) int { return a.number - b.number })
	p.changes++
	p.repin()
	p.rebar()
	p.wakeKeeper()
}

// bases are the first ids of the ranges of slabs.
func bases(numbers ...int) []idmap.Host {
	var out []idmap.Host
	for _, number := range numbers {
		for i := range slabRanges {
			out = append(out, idmap.Host(number*slabIDs+i*rangeIDs))
		}
	}
	return out
}

func (p *Pool) exhausted(n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.areas) == 0 {
		return fault.New(fault.Exhausted, "lease host ids", "", fmt.Sprintf("the lines of user %q in %s and %s have no whole range of 65536 aligned ids in common",
			poolUser, p.cfg.SubUID, p.cfg.SubGID), "give both the same ids, from a multiple of 65536 on")
	}
	hint := "remove containers, or give the pool more ids"
	if waiting := p.waitingRanges(); waiting > 0 {
		hint += fmt.Sprintf("; %d released ranges wait until no process or file of theirs is left (see fief ids)", waiting)
	}
	first, last := p.areas[0].from, p.areas[len(p.areas)-1].to-1
	return fault.New(fault.Exhausted, "lease host ids", "",
		fmt.Sprintf("no %d neighbouring ids of %d…%d are free", n*rangeIDs, first, last), hint)
}

func (p *Pool) waitingRanges() int {
	n := 0
	for _, s := range p.slabs {
		n += bits.OnesCount64(s.waiting())
	}
	return n
}

// hash is the same in every process: FNV-1a.
func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
