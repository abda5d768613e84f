// Package idmap holds the map between the ids that processes inside a user
// namespace know and the ids that the host knows. Inside and Host are
// different types, so that a call with the two exchanged does not compile.
package idmap

import (
	"fmt"
	"slices"
	"strconv"

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
func New(spans ...Span) (Map, error) { return own(slices.Clone(spans)) }

// own is New for a list that nobody else keeps, which it may change.
func own(spans []Span) (Map, error) {
	m, err := join(spans)
	if err != nil {
		return Map{}, err
	}
	if err := m.checkLimits(); err != nil {
		return Map{}, err
	}
	return m, nil
}

// join is own without the limits of a write to the kernel.
func join(spans []Span) (Map, error) {
	for _, s := range spans {
		if err := s.check(); err != nil {
			return Map{}, err
		}
	}
	byHost := arranged(spans, hostOf)
	for i := 1; i < len(byHost); i++ {
		if last := byHost[i-1]; last.hosts().to > uint64(byHost[i].Out) {
			return Map{}, bad(byHost[i], "host ids overlap those of "+last.String())
		}
	}
	spans = arranged(spans, insideOf)
	for i := 1; i < len(spans); i++ {
		if last := spans[i-1]; last.insides().to > uint64(spans[i].In) {
			return Map{}, bad(spans[i], "container ids overlap those of "+last.String())
		}
	}
	return Map{merge(spans)}, nil
}

func hostOf(s Span) uint32 { return uint32(s.Out) }

func insideOf(s Span) uint32 { return uint32(s.In) }

// arranged returns spans by ascending key, those of one key in the order they
// have: spans itself when that is its order, else a new list. Sorting numbers,
// each key with the index it came from, takes a third of the time of sorting
// spans by a function.
func arranged(spans []Span, key func(Span) uint32) []Span {
	var few [MaxExtents]uint64
	keys, sorted := few[:0], true
	for i, s := range spans {
		k := uint64(key(s))<<32 | uint64(i)
		sorted = sorted && (i == 0 || keys[i-1] < k)
		keys = append(keys, k)
	}
	if sorted {
		return spans
	}
	slices.Sort(keys)
	out := make([]Span, len(spans))
	for i, k := range keys {
		out[i] = spans[uint32(k)]
	}
	return out
}

// merge joins, in place, neighbours of a list sorted by In that continue each
// other on both sides.
func merge(sorted []Span) []Span {
	if len(sorted) == 0 {
		return nil // maps that map nothing are one value
	}
	out := sorted[:0]
	for _, s := range sorted {
		if len(out) > 0 {
			last := &out[len(out)-1]
			if last.insides().to == uint64(s.In) && last.hosts().to == uint64(s.Out) {
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
		text += digits(uint32(s.In)) + digits(uint32(s.Out)) + digits(s.N) + len("  \n")
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
	return fault.New(fault.Invalid, "use id map entry", s.String(), why, plainEntries)
}

// String prints the span as CONTAINER_ID:HOST_ID:LENGTH.
func (s Span) String() string { return string(s.appendTo(nil, ':')) }

func (s Span) appendTo(b []byte, between byte) []byte {
	b = strconv.AppendUint(b, uint64(s.In), 10)
	b = append(b, between)
	b = strconv.AppendUint(b, uint64(s.Out), 10)
	b = append(b, between)
	return strconv.AppendUint(b, uint64(s.N), 10)
}

// digits is the number of them that n is printed with.
func digits(n uint32) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

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
	from, to := 0, len(m.spans) // the spans that may be the last one to begin at or before id
	for from < to {
		middle := int(uint(from+to) / 2)
		if m.spans[middle].In > id {
			to = middle
		} else {
			from = middle + 1
		}
	}
	if from == 0 {
		return 0, false
	}
	s := m.spans[from-1]
	if uint32(id-s.In) >= s.N {
		return 0, false
	}
	return s.Out + Host(id-s.In), true
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
func (m Map) String() string { return Extents(m.spans).String() }
