package idmap

import (
	"fmt"

	"fief/internal/words/fault"
)

// Size is the number of ids that m maps.
func (m Map) Size() uint32 {
	var n uint32 // cannot wrap: the spans are disjoint parts of 2^32-1 ids
	for _, s := range m.spans {
		n += s.N
	}
	return n
}

// MaxInside is the largest mapped inside id; false when m maps nothing.
func (m Map) MaxInside() (Inside, bool) {
	if len(m.spans) == 0 {
		return 0, false
	}
	last := m.spans[len(m.spans)-1]
	return last.In + Inside(last.N-1), true
}

// Contains reports whether an inside id is mapped.
func (m Map) Contains(id Inside) bool {
	_, ok := m.ToHost(id)
	return ok
}

// Covers reports whether all of the n inside ids from first on are mapped. No
// ids are always covered.
func (m Map) Covers(first Inside, n uint32) bool {
	next, end := uint64(first), uint64(first)+uint64(n)
	for _, s := range m.spans {
		if next >= end || uint64(s.In) > next {
			break
		}
		next = max(next, uint64(s.In)+uint64(s.N))
	}
	return next >= end
}

// HostOverlap returns the first span of m that touches one of the n host ids
// from base on.
func (m Map) HostOverlap(base Host, n uint32) (Span, bool) {
	for _, s := range m.spans {
		if uint64(s.Out) < uint64(base)+uint64(n) && uint64(base) < uint64(s.Out)+uint64(s.N) {
			return s, true
		}
	}
	return Span{}, false
}

// Overlaps reports whether some host id is mapped by both, whatever inside ids
// they give it.
func (m Map) Overlaps(o Map) bool {
	ours, theirs := m.byHost(), o.byHost()
	for len(ours) > 0 && len(theirs) > 0 {
		a, b := ours[0].hosts(), theirs[0].hosts()
		switch {
		case a.to <= b.from:
			ours = ours[1:]
		case b.to <= a.from:
			theirs = theirs[1:]
		default:
			return true
		}
	}
	return false
}

// byHost is the spans in the order of their host ids, to be read only.
func (m Map) byHost() []Span { return arranged(m.spans, hostOf) }

// Invert exchanges the two sides: what m maps from inside to host, the result
// maps from host to inside. It cannot fail: both sides obey the same rules, and
// exchanging the columns changes neither the number nor the length of lines.
func (m Map) Invert() Map {
	if m.IsZero() {
		return Map{}
	}
	out := make([]Span, len(m.spans))
	for i, s := range m.spans {
		out[i] = Span{Inside(s.Out), Host(s.In), s.N}
	}
	return Map{arranged(out, insideOf)}
}

// Compose returns the map of a namespace whose map m is written in the ids of
// a namespace with the map parent: what m calls a host id is an inside id of
// parent. Ids that parent does not map are left out, so that the result is
// smaller than m when m claims more than parent has; the kernel would refuse
// such an m with EPERM (user_namespaces(7)). The error is New's, for a result
// that is cut into too many spans.
func (m Map) Compose(parent Map) (Map, error) {
	out := make([]Span, 0, len(m.spans)+len(parent.spans))
	child, outer := m.byHost(), parent.spans
	for len(child) > 0 && len(outer) > 0 {
		s, p := child[0], outer[0]
		if shared := s.hosts().and(p.insides()); shared.from < shared.to {
			out = append(out, Span{
				In:  s.In + Inside(shared.from-uint64(s.Out)),
				Out: p.Out + Host(shared.from-uint64(p.In)),
				N:   uint32(shared.to - shared.from),
			})
		}
		if s.hosts().to <= p.insides().to {
			child = child[1:]
		} else {
			outer = outer[1:]
		}
	}
	composed := Map{merge(arranged(out, insideOf))}
	if err := composed.checkLimits(); err != nil {
		return Map{}, err
	}
	return composed, nil
}

// With returns m overridden by extra: extra's spans as they are, and of m what
// touches them on neither side. An inside id of extra no longer means what it
// meant in m, and a host id of extra is no longer known by the inside id that m
// gave it, which is then unmapped. The error is New's, for a result that is cut
// into too many spans.
func (m Map) With(extra Map) (Map, error) {
	entries := make([]entry, 0, len(m.spans)+len(extra.spans))
	for _, s := range m.spans {
		entries = append(entries, entry{span: s})
	}
	for _, s := range extra.spans {
		entries = append(entries, entry{span: s, over: true})
	}
	return own(lay(entries))
}

// With overrides both maps; see Map.With.
func (p Pair) With(extra Pair) (Pair, error) {
	uid, err := p.UID.With(extra.UID)
	if err != nil {
		return Pair{}, err
	}
	gid, err := p.GID.With(extra.GID)
	if err != nil {
		return Pair{}, err
	}
	return Pair{UID: uid, GID: gid}, nil
}

// CheckRoot refuses, with class Invalid, a pair that a container cannot have:
// its process 1 starts as uid 0 and gid 0, which both have to be mapped.
func (p Pair) CheckRoot() error {
	if err := p.UID.checkRoot("uid"); err != nil {
		return err
	}
	return p.GID.checkRoot("gid")
}

func (m Map) checkRoot(kind string) error {
	if m.Contains(0) {
		return nil
	}
	const hint = "add an entry that begins with 0, such as 0:100000:65536"
	if m.IsZero() {
		return fault.New(fault.Invalid, "use "+kind+" map", "", "it has no entries", hint)
	}
	return fault.New(fault.Invalid, "use "+kind+" map entry", m.spans[0].String(),
		fmt.Sprintf("it is the lowest and container id 0 stays unmapped: a container's first process has %s 0", kind), hint)
}
