// Package idmap holds the map between the ids that processes inside a user
// namespace know and the ids that the host knows. Inside and Host are
// different types, so that a call with the two exchanged does not compile.
package idmap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"fief/internal/words/fault"
)

// Host is an id as the initial user namespace knows it.
type Host uint32

// Inside is an id as a process in the container knows it.
type Inside uint32

// Max is the largest id that can be mapped: 2^32-1 is "no id" to the kernel
// (user_namespaces(7)), so the largest extent is 0 0 4294967295.
const Max = 1<<32 - 2

// MaxExtents is the kernel's limit on lines in uid_map and gid_map since
// Linux 4.15 (user_namespaces(7)).
const MaxExtents = 340

// MaxText is the most bytes of text that one write to uid_map may carry: it
// must stay below the page size (user_namespaces(7)), here the smallest one of
// any architecture.
const MaxText = 4095

// Span maps n ids, half-open on both sides: [In, In+N) ↔ [Out, Out+N).
type Span struct {
	In  Inside
	Out Host
	N   uint32
}

// Map is an immutable set of spans, sorted by In, merged, without overlap on
// either side. The zero Map maps nothing.
type Map struct{ spans []Span }

// Pair is a uid map and a gid map, which always travel together.
type Pair struct{ UID, GID Map }

// New makes a map of the given spans, in any order. Adjacent spans that
// continue each other on both sides become one. Errors are of class Invalid
// and name the span: zero length, wrap past Max, overlap on either side, more
// than MaxExtents spans, more text than the kernel reads.
func New(spans ...Span) (Map, error) {
	m, err := join(spans)
	if err != nil {
		return Map{}, err
	}
	if err := m.checkLimits(); err != nil {
		return Map{}, err
	}
	return m, nil
}

// join is New without the limits of a write to the kernel.
func join(spans []Span) (Map, error) {
	sorted := slices.Clone(spans)
	for _, s := range sorted {
		if err := s.check(); err != nil {
			return Map{}, err
		}
	}
	if err := overlapOutside(sorted); err != nil {
		return Map{}, err
	}
	slices.SortStableFunc(sorted, func(a, b Span) int { return cmp.Compare(a.In, b.In) })
	for i := 1; i < len(sorted); i++ {
		if last := sorted[i-1]; uint64(last.In)+uint64(last.N) > uint64(sorted[i].In) {
			return Map{}, bad(sorted[i], "container ids overlap those of "+last.String())
		}
	}
	return Map{merge(sorted)}, nil
}

// merge joins neighbours of a list sorted by In that continue each other on
// both sides.
func merge(sorted []Span) []Span {
	var out []Span
	for _, s := range sorted {
		if len(out) > 0 {
			last := &out[len(out)-1]
			if uint64(last.In)+uint64(last.N) == uint64(s.In) && uint64(last.Out)+uint64(last.N) == uint64(s.Out) {
				last.N += s.N
				continue
			}
		}
		out = append(out, s)
	}
	return out
}

// checkLimits names the first span that does not fit into one write to
// uid_map. Linux kernel/user_namespace.c, map_write: EINVAL for a count of
// PAGE_SIZE bytes or more and for more than UID_GID_MAP_MAX_EXTENTS lines.
func (m Map) checkLimits() error {
	if len(m.spans) > MaxExtents {
		return bad(m.spans[MaxExtents], fmt.Sprintf("it is entry %d and the kernel takes at most %d", MaxExtents+1, MaxExtents))
	}
	text := 0
	for i, s := range m.spans {
		text += len(s.line())
		if text > MaxText {
			return bad(s, fmt.Sprintf("entries 1 to %d are %d bytes as text and the kernel takes at most %d", i+1, text, MaxText))
		}
	}
	return nil
}

// Range is the pair that maps [0, n) to [base, base+n) for uids and gids.
func Range(base Host, n uint32) (Pair, error) {
	m, err := New(Span{0, base, n})
	return Pair{m, m}, err
}

func (s Span) check() error {
	if s.N == 0 {
		return bad(s, "length is zero")
	}
	if uint64(s.In)+uint64(s.N)-1 > Max {
		return bad(s, "container ids wrap past 4294967294")
	}
	if uint64(s.Out)+uint64(s.N)-1 > Max {
		return bad(s, "host ids wrap past 4294967294")
	}
	return nil
}

func bad(s Span, why string) error {
	return fault.New(fault.Invalid, "use id map entry", s.String(), why, "entries are CONTAINER_ID:HOST_ID:LENGTH")
}

func overlapOutside(spans []Span) error {
	byHost := slices.Clone(spans)
	slices.SortStableFunc(byHost, func(a, b Span) int { return cmp.Compare(a.Out, b.Out) })
	for i := 1; i < len(byHost); i++ {
		if uint64(byHost[i-1].Out)+uint64(byHost[i-1].N) > uint64(byHost[i].Out) {
			return bad(byHost[i], "host ids overlap those of "+byHost[i-1].String())
		}
	}
	return nil
}

// String prints the span as CONTAINER_ID:HOST_ID:LENGTH.
func (s Span) String() string { return fmt.Sprintf("%d:%d:%d", s.In, s.Out, s.N) }

func (s Span) line() string { return fmt.Sprintf("%d %d %d\n", s.In, s.Out, s.N) }

// Spans returns a copy of the map's spans, sorted by In.
func (m Map) Spans() []Span { return slices.Clone(m.spans) }

// IsZero reports whether the map maps nothing.
func (m Map) IsZero() bool { return len(m.spans) == 0 }

// IsZero reports whether neither map maps anything.
func (p Pair) IsZero() bool { return p.UID.IsZero() && p.GID.IsZero() }

// Equal reports whether both map the same ids to the same ids.
func (m Map) Equal(o Map) bool { return slices.Equal(m.spans, o.spans) }

// Equal reports whether both maps of both pairs are equal.
func (p Pair) Equal(o Pair) bool { return p.UID.Equal(o.UID) && p.GID.Equal(o.GID) }

// ToHost translates an inside id; false when it is not mapped.
func (m Map) ToHost(id Inside) (Host, bool) {
	for _, s := range m.spans {
		if id >= s.In && uint32(id-s.In) < s.N {
			return s.Out + Host(id-s.In), true
		}
	}
	return 0, false
}

// ToInside translates a host id; false when it is not mapped.
func (m Map) ToInside(id Host) (Inside, bool) {
	for _, s := range m.spans {
		if id >= s.Out && uint32(id-s.Out) < s.N {
			return s.In + Inside(id-s.Out), true
		}
	}
	return 0, false
}

// String prints the map as the kernel takes it: a line "IN OUT N" per span
// (user_namespaces(7)).
func (m Map) String() string {
	var b strings.Builder
	for _, s := range m.spans {
		b.WriteString(s.line())
	}
	return b.String()
}
