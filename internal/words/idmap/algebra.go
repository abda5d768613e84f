package idmap

import (
	"cmp"
	"fmt"
	"slices"

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
	return slices.ContainsFunc(o.spans, func(s Span) bool {
		_, yes := m.HostOverlap(s.Out, s.N)
		return yes
	})
}

// Invert exchanges the two sides: what m maps from inside to host, the result
// maps from host to inside. It cannot fail: both sides obey the same rules, and
// exchanging the columns changes neither the number nor the length of lines.
func (m Map) Invert() Map {
	out := slices.Clone(m.spans)
	for i, s := range m.spans {
		out[i] = Span{Inside(s.Out), Host(s.In), s.N}
	}
	slices.SortFunc(out, func(a, b Span) int { return cmp.Compare(a.In, b.In) })
	return Map{out}
}

// Compose returns the map of a namespace whose map m is written in the ids of
// a namespace with the map parent: what m calls a host id is an inside id of
// parent. Ids that parent does not map are left out, so that the result is
// smaller than m when m claims more than parent has; the kernel would refuse
// such an m with EPERM (user_namespaces(7)). The error is New's, for a result
// that is cut into too many spans.
func (m Map) Compose(parent Map) (Map, error) {
	var out []Span
	for _, s := range m.spans {
		for _, p := range parent.spans {
			from := max(uint64(s.Out), uint64(p.In))
			to := min(uint64(s.Out)+uint64(s.N), uint64(p.In)+uint64(p.N))
			if from >= to {
				continue
			}
			out = append(out, Span{
				In:  s.In + Inside(from-uint64(s.Out)),
				Out: p.Out + Host(from-uint64(p.In)),
				N:   uint32(to - from),
			})
		}
	}
	return New(out...)
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
