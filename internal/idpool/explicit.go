package idpool

import (
	"fmt"
	"slices"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// maxPinned bounds the slabs that one explicit map makes the pool claim.
const maxPinned = 16

// CheckExplicit refuses a pair that a user wrote and whose host ids belong to
// somebody's lease: those of another owner in this pool, with class Conflict,
// and those that another fief daemon may lease, with class Conflict too. Explicit maps
// may share ids among each other, and may use those of /etc/subuid.
//
// Host id 0 is refused with class Denied unless the map has an entry of its own
// for it, CONTAINER_ID:0:1: the host's root is given away by name or not at all.
func (p *Pool) CheckExplicit(pair idmap.Pair) error { return p.checkExplicit("", pair) }

// Hold is CheckExplicit, and keeps the ids of the pair from being leased until
// Release(owner). What the owner itself has leased is no obstacle. Slabs that
// the pair touches and nobody has claimed are claimed, so that no other daemon
// leases them; a pair that touches more than 16 of them is refused with class
// Invalid. Nothing is held on failure. It is not stored: after Open it has to
// be called again for the containers that have explicit maps.
func (p *Pool) Hold(owner string, pair idmap.Pair) error {
	if err := p.follow(); err != nil {
		return err
	}
	if err := p.checkExplicit(owner, pair); err != nil {
		return err
	}
	// Until the ids are kept, leases can still be made: look once more.
	return p.pin(owner, pair, func() error { return p.checkOwn(owner, pair) })
}

// Share keeps the ids of a pair from being leased until Release(owner), whoever
// has leased them now: for a container in the user namespace of another one,
// which may outlive it, and for ids that many containers have in common. Slabs
// are claimed as for Hold; ids that another daemon could lease are a Conflict.
// Nothing is kept on failure. It is not stored: after Open it has to be called
// again.
func (p *Pool) Share(owner string, pair idmap.Pair) error {
	if err := p.follow(); err != nil {
		return err
	}
	return p.pin(owner, pair, func() error { return nil })
}

// pin keeps the ids of a pair unless refuse, called with p.mu held, fails.
func (p *Pool) pin(owner string, pair idmap.Pair, refuse func() error) error {
	used := pinOf(pair)
	p.growing.Lock()
	defer p.growing.Unlock()
	if err := p.claimUnder(used.all()); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := refuse(); err != nil {
		return err
	}
	p.pins[owner] = p.pins[owner].and(used)
	for _, e := range used.all() {
		p.each(e, func(s *slab, ranges uint64) { s.pinned |= ranges })
	}
	return nil
}

// pin is what a map uses.
type pin struct{ uids, gids extents }

func pinOf(pair idmap.Pair) pin { return pin{hostIDs(pair.UID), hostIDs(pair.GID)} }

func (a pin) and(b pin) pin {
	return pin{union(slices.Concat(a.uids, b.uids)), union(slices.Concat(a.gids, b.gids))}
}

func (a pin) all() extents { return union(slices.Concat(a.uids, a.gids)) }

func hostIDs(m idmap.Map) extents {
	var out []extent
	for _, s := range m.Spans() {
		out = append(out, extent{uint64(s.Out), uint64(s.Out) + uint64(s.N)})
	}
	return union(out)
}

// claimUnder claims the slabs below ids of the pool that nobody has claimed.
// Preconditions: p.growing held.
func (p *Pool) claimUnder(used extents) error {
	p.mu.Lock()
	var missing []int
	for _, number := range used.intersect(p.areas).slabs() {
		if p.slab(number) == nil {
			missing = append(missing, number)
		}
	}
	taken := p.taken
	p.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	if len(missing) > maxPinned {
		return fault.New(fault.Invalid, "use id map", "", fmt.Sprintf("it touches %d blocks of 4194304 ids that containers are given ranges of, more than %d", len(missing), maxPinned),
			"map fewer host ids, or ids outside of the pool that info shows")
	}
	live, err := p.host.live()
	if err != nil {
		return err
	}
	all, unlock, err := p.claims.locked()
	if err != nil {
		return err
	}
	defer unlock()
	var free []int
	for _, number := range missing {
		c, claimed := all[number]
		if !claimed || c.vanished() {
			free = append(free, number)
			continue
		}
		// It has the slab, but may not be able to lease these ids.
		if used.mask(number)&c.ranges&^taken.mask(number) != 0 {
			return foreign(c, number)
		}
	}
	return p.claimUnasked(free, live, all)
}

func (p *Pool) checkExplicit(owner string, pair idmap.Pair) error {
	for kind, m := range both(pair) {
		for _, s := range m.Spans() {
			if s.Out == 0 && s.N > 1 {
				return fault.New(fault.Denied, "use "+kind+" map entry", s.String(), "it maps host id 0, root, among others",
					"to give host root away, write an entry for it alone, such as 0:0:1; to map nothing at all, use --userns=host")
			}
		}
	}
	p.mu.Lock()
	err := p.checkOwn(owner, pair)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	all, err := p.claims.list()
	if err != nil {
		return err
	}
	used := pinOf(pair).all()
	for number, c := range all {
		if !p.claims.mine(c) && used.mask(number)&c.ranges != 0 && !c.vanished() {
			return foreign(c, number)
		}
	}
	return nil
}

// checkOwn looks for ids that others have leased. Preconditions: p.mu held.
func (p *Pool) checkOwn(owner string, pair idmap.Pair) error {
	for kind, m := range both(pair) {
		for other, lease := range p.leases {
			e := ranges(lease)
			s, overlap := m.HostOverlap(idmap.Host(e.from), uint32(e.to-e.from))
			if overlap && other != owner {
				return fault.New(fault.Conflict, "use "+kind+" map entry", s.String(),
					fmt.Sprintf("host ids %d…%d are leased to %s", e.from, e.to-1, other),
					"choose other host ids, or leave the choice to --userns=auto")
			}
		}
	}
	return nil
}

func foreign(c claim, number int) error {
	root := c.root
	if root == "" {
		root = "an unknown data root"
	}
	from := number * slabIDs
	return fault.New(fault.Conflict, "use id map", "", fmt.Sprintf("host ids of %d…%d belong to the fief daemon of %s", from, from+slabIDs-1, root),
		"choose other host ids, or leave the choice to --userns=auto")
}

// both yields the two maps of a pair with their names.
func both(pair idmap.Pair) func(yield func(string, idmap.Map) bool) {
	return func(yield func(string, idmap.Map) bool) {
		_ = yield("uid", pair.UID) && yield("gid", pair.GID)
	}
}

// repin marks the ranges that explicit maps use. Preconditions: p.mu held.
func (p *Pool) repin() {
	for _, s := range p.slabs {
		s.pinned = 0
	}
	for _, used := range p.pins {
		ids := used.all()
		for _, s := range p.slabs {
			s.pinned |= ids.mask(s.number)
		}
	}
}
