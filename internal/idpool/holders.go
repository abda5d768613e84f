package idpool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fief/internal/idpool/hostids"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// readyPrefix begins the owners of leases that are made ahead of need.
const readyPrefix = "berth-"

// Holders returns who has which host ids, as far as it is known: what this
// daemon has leased, shares, holds for explicit maps and has in quarantine, the
// slabs of other daemons, what the host's files give away, what processes use
// that none of this daemon's own explains, and what is free. Holder is the
// owner. It reads /proc and the claims of all daemons.
func (p *Pool) Holders() ([]record.IDRange, error) {
	if err := p.follow(); err != nil {
		return nil, err
	}
	processes, err := p.host.liveClaims()
	if err != nil {
		return nil, err
	}
	daemons, err := p.claims.list()
	if err != nil {
		return nil, err
	}
	c := census{claimed: daemons, processes: processes}
	c.take(p)
	c.addOwn()
	c.addDaemons(p.claims)
	c.addHost()
	c.addProcesses()
	c.addFree()
	slices.SortFunc(c.out, byFirst)
	contest(c.out)
	return c.out, nil
}

func byFirst(a, b record.IDRange) int {
	return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(b.Last, a.Last), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Holder, b.Holder))
}

// census is one count of all who have ids.
type census struct {
	claimed   map[int]claim
	processes []hostids.Claim

	leases map[string]record.Lease
	pins   map[string]pin
	rests  []rest
	slabs  []slab
	lost   []Held
	host   []hostids.Claim
	fresh  map[int]uint64 // what is free of slabs that nobody has claimed

	out []record.IDRange
	own []extent // what this daemon's own explains
}

// take copies what the pool knows.
func (c *census) take(p *Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.leases, c.pins, c.lost = maps.Clone(p.leases), maps.Clone(p.pins), slices.Clone(p.lost)
	for _, r := range p.rests {
		c.rests = append(c.rests, *r)
	}
	for _, s := range p.slabs {
		c.slabs = append(c.slabs, *s)
	}
	c.host = p.facts.claims
	c.fresh = map[int]uint64{}
	for _, number := range p.areas.slabs() {
		if _, claimed := c.claimed[number]; !claimed && p.slab(number) == nil {
			c.fresh[number] = p.fresh(number).free()
		}
	}
}

// add notes a claim on whole extents of user and group ids.
func (c *census) add(ids extents, like record.IDRange) {
	for _, e := range ids {
		like.First, like.Last = idmap.Host(e.from), idmap.Host(e.to-1)
		c.out = append(c.out, like)
	}
}

func (c *census) addOwn() {
	for owner, l := range c.leases {
		e := ranges(l)
		c.own = append(c.own, e)
		c.add(extents{e}, leaseOf(owner))
	}
	for _, h := range c.lost {
		c.add(extents{ranges(h.Lease)}, leaseOf(h.Owner))
	}
	for owner, used := range c.pins {
		c.own = append(c.own, used.all()...)
		both := used.uids.intersect(used.gids)
		c.add(both, record.IDRange{UID: true, GID: true, Kind: record.IDMap, Holder: owner})
		c.add(used.uids.without(both), record.IDRange{UID: true, Kind: record.IDMap, Holder: owner})
		c.add(used.gids.without(both), record.IDRange{GID: true, Kind: record.IDMap, Holder: owner})
	}
	for _, r := range c.rests {
		c.own = append(c.own, r.IDs...)
		why := cmp.Or(r.Why, "files may be left below "+strings.Join(r.Left, ", "))
		c.add(r.IDs, record.IDRange{UID: true, GID: true, Kind: record.IDQuarantine, Holder: r.Owner, Since: r.Since, Why: why})
	}
	for _, s := range c.slabs {
		for _, e := range rangesOf(s.number, s.waiting()&^s.barred) {
			c.own = append(c.own, e)
			c.add(extents{e}, record.IDRange{UID: true, GID: true, Kind: record.IDQuarantine, Why: c.whoIsIn(e)})
		}
	}
}

func leaseOf(owner string) record.IDRange {
	kind := record.IDLease
	if strings.HasPrefix(owner, readyPrefix) {
		kind = record.IDReady
	}
	return record.IDRange{UID: true, GID: true, Kind: kind, Holder: owner}
}

// whoIsIn says why ids rest.
func (c *census) whoIsIn(e extent) string {
	for _, p := range c.processes {
		if p.From < e.to && e.from < p.To {
			return fmt.Sprintf("in use by %s (%s)", p.Holder, p.Source)
		}
	}
	return "processes are looked for"
}

func (c *census) addDaemons(own claims) {
	for _, number := range slices.Sorted(maps.Keys(c.claimed)) {
		other := c.claimed[number]
		if own.mine(other) {
			continue
		}
		source := cmp.Or(other.root, own.path(number)) // without a root: something newer
		c.add(union(rangesOf(number, other.ranges)), record.IDRange{UID: true, GID: true, Kind: record.IDDaemon, Holder: poolUser, Source: source})
	}
}

func (c *census) addHost() {
	for _, h := range c.host {
		c.out = append(c.out, ofHost(h))
	}
}

func ofHost(h hostids.Claim) record.IDRange {
	return record.IDRange{First: idmap.Host(h.From), Last: idmap.Host(h.To - 1), UID: h.UID, GID: h.GID, Kind: h.Kind, Holder: h.Holder, Source: h.Source}
}

// addProcesses notes what processes use, each ids once. Those of users of the
// host, and what is this daemon's own, are explained.
func (c *census) addProcesses() {
	known := c.own
	for _, h := range c.host {
		if h.Kind == record.IDUser {
			known = append(known, extent{h.From, h.To})
		}
	}
	explained := union(known)
	type ids struct {
		from, to uint64
		uid, gid bool
	}
	seen := map[ids]bool{}
	for _, p := range c.processes {
		key := ids{p.From, p.To, p.UID, p.GID}
		if seen[key] || explained.cover(extent{p.From, p.To}) {
			continue
		}
		seen[key] = true
		c.out = append(c.out, ofHost(p))
	}
}

func (c *census) addFree() {
	var used []extent
	for _, p := range c.processes {
		used = append(used, extent{p.From, p.To})
	}
	live := union(used)
	var free []extent
	for _, s := range c.slabs {
		free = append(free, rangesOf(s.number, s.free())...)
	}
	for number, mask := range c.fresh {
		free = append(free, rangesOf(number, mask&^live.mask(number))...)
	}
	c.add(union(free), record.IDRange{UID: true, GID: true, Kind: record.IDFree})
}

// contest fills in who else has ids of a lease though nobody should, for both
// sides. What a container's own processes, maps and shares use is not contested,
// nor what the lines of the pool's user say. Preconditions: all is by First.
func contest(all []record.IDRange) {
	var leases, others []int // that reach to where the sweep is
	for i := range all {
		r := &all[i]
		isLease := r.Kind == record.IDLease || r.Kind == record.IDReady
		if !isLease && !rivals(r) {
			continue
		}
		past := func(j int) bool { return all[j].Last < r.First }
		leases = slices.DeleteFunc(leases, past)
		others = slices.DeleteFunc(others, past)
		for _, j := range leases {
			dispute(r, &all[j])
		}
		if !isLease {
			others = append(others, i)
			continue
		}
		for _, j := range others {
			dispute(r, &all[j])
		}
		leases = append(leases, i)
	}
	for i := range all {
		slices.Sort(all[i].Overlaps)
		all[i].Overlaps = slices.Compact(all[i].Overlaps)
	}
}

// rivals reports whether a claim that is no lease should not be on leased ids.
func rivals(r *record.IDRange) bool {
	switch r.Kind {
	case record.IDUser, record.IDEngine, record.IDDaemon, record.IDProcess:
		return true
	case record.IDSub:
		return r.Holder != poolUser
	}
	return false
}

func dispute(a, b *record.IDRange) {
	if a.UID && b.UID || a.GID && b.GID {
		a.Overlaps = append(a.Overlaps, b.Holder)
		b.Overlaps = append(b.Overlaps, a.Holder)
	}
}
