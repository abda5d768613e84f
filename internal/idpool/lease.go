package idpool

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

const maxRanges = (lastBase + rangeIDs) / rangeIDs

// Lease grants size ids, 65536 when size is 0, from a multiple of 65536 on.
// What it sets aside are whole ranges. An owner that has a lease of that size
// already gets the same one again; with another size that is a Conflict. Class
// Exhausted, within 10 ms, when no ids are left. Slabs that nobody has claimed
// are claimed first, which takes what the disk takes.
//
// The first choice among the free ranges follows from the owner's name. The
// pool does not store the lease: until the owner's record is, only the running
// processes of the owner keep the ids from being leased by a later Open.
func (p *Pool) Lease(owner string, size uint32) (record.Lease, error) {
	if size == 0 {
		size = rangeIDs
	}
	n := int((uint64(size) + rangeIDs - 1) / rangeIDs)
	if n > maxRanges {
		return record.Lease{}, fault.New(fault.Exhausted, "lease host ids", "for "+owner,
			fmt.Sprintf("%d are more than there can be", size), "ask for fewer than 2147418112 ids")
	}
	if err := p.follow(); err != nil {
		return record.Lease{}, err
	}
	deadline := time.Now().Add(answerWithin)
	for {
		lease, err := p.find(owner, size, n)
		if err != nil || lease.Size > 0 {
			return lease, err
		}
		if err := p.makeRoom(n, deadline); err != nil {
			return record.Lease{}, err
		}
	}
}

// find leases what is free in the own slabs. The lease has no size when nothing
// is.
func (p *Pool) find(owner string, size uint32, n int) (record.Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lease, ok := p.leases[owner]; ok {
		if lease.Size == size {
			return lease, nil
		}
		return record.Lease{}, fault.New(fault.Conflict, "lease host ids", "for "+owner,
			fmt.Sprintf("it has a lease of %d ids, not %d", lease.Size, size), "")
	}
	base, ok := p.room(owner, n)
	if !ok {
		return record.Lease{}, nil
	}
	lease := record.Lease{Base: base, Size: size}
	p.grant(owner, lease)
	p.prepare()
	return lease, nil
}

// grant marks a lease. Preconditions: p.mu held, the ranges are free.
func (p *Pool) grant(owner string, lease record.Lease) {
	p.leases[owner] = lease
	p.each(ranges(lease), func(s *slab, ranges uint64) { s.granted |= ranges })
}

// room returns the base of n free neighbouring ranges. Preconditions: p.mu held.
func (p *Pool) room(owner string, n int) (idmap.Host, bool) {
	if n > slabRanges {
		return p.wideRoom(n)
	}
	if len(p.slabs) == 0 {
		return 0, false
	}
	first := hash(owner)
	for i := range p.slabs {
		s := p.slabs[(uint64(i)+first/slabRanges)%uint64(len(p.slabs))]
		if at, ok := fit(s.free(), n, int(first%slabRanges)); ok {
			return s.base() + idmap.Host(at)*rangeIDs, true
		}
	}
	return 0, false
}

// wideRoom is room for more ranges than a slab has: neighbouring slabs, from
// the beginning of the first on.
func (p *Pool) wideRoom(n int) (idmap.Host, bool) {
	for i := range p.slabs {
		rest := n
		for j := i; j < len(p.slabs) && p.slabs[j].number == p.slabs[i].number+j-i; j++ {
			want := run(min(rest, slabRanges))
			if p.slabs[j].free()&want != want {
				break
			}
			if rest -= slabRanges; rest <= 0 {
				return p.slabs[i].base(), true
			}
		}
	}
	return 0, false
}

// Release ends the lease of an owner and what its explicit maps use. The ranges
// are leased again when no process is in them any longer and no file that
// belongs to them is left in left: host directories, or single files, that the
// owner could write to with its own ids, by absolute paths without a symbolic
// link at the end. They are searched in the background, other mounts below them
// not, as often as there is need, also after a restart. It takes microseconds.
// An owner without any ids is none.
func (p *Pool) Release(owner string, left ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []extent
	if lease, ok := p.leases[owner]; ok {
		delete(p.leases, owner)
		e := ranges(lease)
		all = append(all, e)
		p.each(e, func(s *slab, ranges uint64) { s.granted &^= ranges })
	}
	if pin, ok := p.pins[owner]; ok {
		delete(p.pins, owner)
		all = append(all, pin.all()...)
		p.repin()
	}
	if len(all) == 0 {
		return
	}
	for _, e := range all {
		p.each(e, func(s *slab, ranges uint64) { s.rest(ranges) })
	}
	p.bar(owner, union(all), left)
	p.changes++
	p.looks.pause = 0
	wait := lookSoon
	if p.freeRanges() < lowWater {
		wait = lookNow
	}
	p.looks.after(wait)
	p.wakeKeeper()
}

// Rename gives what one owner has to another, such as a lease made ahead of
// need to its container. Nothing happens when the new owner has something
// already.
func (p *Pool) Rename(old, new string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, leased := p.leases[new]
	_, pinned := p.pins[new]
	if leased || pinned || old == new {
		return
	}
	if lease, ok := p.leases[old]; ok {
		delete(p.leases, old)
		p.leases[new] = lease
	}
	if pins, ok := p.pins[old]; ok {
		delete(p.pins, old)
		p.pins[new] = pins
	}
}

// takeOver claims and grants what the containers found at start have.
// Preconditions: the pool is not shared yet.
func (p *Pool) takeOver(held []Held) error {
	live, err := p.host.live()
	if err != nil {
		return err
	}
	all, unlock, err := p.claims.locked()
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.recognise(all, live); err != nil {
		return err
	}
	for _, h := range held {
		ok, err := p.adopt(h, all, live)
		if err != nil {
			return err
		}
		if !ok {
			p.lost = append(p.lost, h)
		}
	}
	return p.confirm(all)
}

// recognise takes up the claims of this data root, and drops those of a former
// data root in the same place. Name services were asked when the slabs were
// claimed, and are asked again in the background: see askNames.
func (p *Pool) recognise(all map[int]claim, live extents) error {
	var mine []int
	for _, number := range slices.Sorted(maps.Keys(all)) {
		c := all[number]
		switch {
		case p.claims.mine(c):
			mine = append(mine, number)
		case c.root == p.claims.root:
			if err := p.claims.drop(number); err != nil {
				return err
			}
			delete(all, number)
		}
	}
	for _, number := range mine {
		s := p.fresh(number)
		s.told = all[number].ranges
		s.unasked = ^s.told
		p.own(s, live, nil)
	}
	return nil
}

// adopt grants a held lease; false when that cannot be.
func (p *Pool) adopt(h Held, all map[int]claim, live extents) (bool, error) {
	e := ranges(h.Lease)
	if h.Lease.Size == 0 || e.to > allIDs {
		return false, nil
	}
	if _, twice := p.leases[h.Owner]; twice {
		return false, nil
	}
	var missing []int
	for _, number := range (extents{e}).slabs() {
		s := p.slab(number)
		if s != nil && s.granted&(extents{e}).mask(number) != 0 {
			return false, nil
		}
		if c, claimed := all[number]; s == nil && claimed && !c.vanished() {
			return false, nil
		}
		if s == nil {
			missing = append(missing, number)
		}
	}
	if err := p.claimUnasked(missing, live, all); err != nil {
		return false, err
	}
	p.grant(h.Owner, h.Lease)
	return true, nil
}

// ranges returns the ids that a lease keeps from others: whole ranges.
func ranges(l record.Lease) extent {
	from, to := uint64(l.Base), uint64(l.Base)+uint64(l.Size)
	return extent{from / rangeIDs * rangeIDs, (to + rangeIDs - 1) / rangeIDs * rangeIDs}
}
