package idmap

import "slices"

// bounds are the numbers [from, to). They have 64 bits because to may be 2^32-1
// and one more.
type bounds struct{ from, to uint64 }

func (s Span) insides() bounds { return bounds{uint64(s.In), uint64(s.In) + uint64(s.N)} }

func (s Span) hosts() bounds { return bounds{uint64(s.Out), uint64(s.Out) + uint64(s.N)} }

// part is the ids of s that have the n numbers from offset on.
func (s Span) part(offset uint64, n uint64) Span {
	return Span{s.In + Inside(offset), s.Out + Host(offset), uint32(n)}
}

// and is what both hold; from is not below to when that is nothing.
func (b bounds) and(o bounds) bounds { return bounds{max(b.from, o.from), min(b.to, o.to)} }

// ranges is a set of numbers: sorted, and none touches another.
type ranges []bounds

// from returns the index of the first range that ends at to or later.
func (r ranges) from(to uint64) int {
	low, high := 0, len(r)
	for low < high {
		if middle := int(uint(low+high) / 2); r[middle].to < to {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// add puts b into the set and returns it; r is no longer good.
func (r ranges) add(b bounds) ranges {
	first := r.from(b.from)
	last := first
	for last < len(r) && r[last].from <= b.to {
		b = bounds{min(b.from, r[last].from), max(b.to, r[last].to)}
		last++
	}
	if first == last {
		return slices.Insert(r, first, b)
	}
	r[first] = b
	return slices.Delete(r, first+1, last)
}

// gaps appends to out what of b the set does not hold, lowest first.
func (r ranges) gaps(b bounds, out []bounds) []bounds {
	next := b.from
	for _, x := range r[r.from(b.from+1):] {
		if x.from >= b.to {
			break
		}
		if x.from > next {
			out = append(out, bounds{next, x.from})
		}
		next = x.to
	}
	if next < b.to {
		out = append(out, bounds{next, b.to})
	}
	return out
}

// minus is what r holds and used does not.
func (r ranges) minus(used ranges) (out ranges) {
	for _, b := range r {
		out = used.gaps(b, out)
	}
	return out
}

// entry is a span and whether it takes from those before it.
type entry struct {
	span Span
	over bool
}

// lay returns what is left of each span when the entries are laid down in
// order and those with over take away, on either side, all they touch. It goes
// backwards, since what an entry takes from those before it is the same
// whatever happens to it later: the cost is that of sorting, not of comparing
// every entry with every other.
func lay(entries []entry) []Span {
	left := make([]Span, 0, len(entries))
	var insides, hosts ranges // that later entries take
	var byInside, byHost []bounds
	for _, e := range slices.Backward(entries) {
		if len(insides) == 0 && !e.over { // the most of all lists
			left = append(left, e.span)
			continue
		}
		byInside = insides.gaps(e.span.insides(), byInside[:0])
		for _, b := range byInside {
			s := e.span.part(b.from-uint64(e.span.In), b.to-b.from)
			byHost = hosts.gaps(s.hosts(), byHost[:0])
			for _, h := range byHost {
				left = append(left, s.part(h.from-uint64(s.Out), h.to-h.from))
			}
		}
		if e.over {
			if insides == nil {
				insides, hosts = make(ranges, 0, len(entries)), make(ranges, 0, len(entries))
			}
			insides, hosts = insides.add(e.span.insides()), hosts.add(e.span.hosts())
		}
	}
	slices.Reverse(left)
	return left
}

// fill appends spans that give the free ids, lowest first, to the inside ids
// that spans leave, from 0 on, until there are no more.
func fill(spans []Span, free ranges) []Span {
	var taken ranges
	for _, s := range spans {
		taken = taken.add(s.insides())
	}
	for _, hole := range taken.gaps(bounds{0, Max + 1}, nil) {
		for len(free) > 0 && hole.from < hole.to {
			n := min(hole.to-hole.from, free[0].to-free[0].from)
			spans = append(spans, Span{Inside(hole.from), Host(free[0].from), uint32(n)})
			hole.from += n
			if free[0].from += n; free[0].from == free[0].to {
				free = free[1:]
			}
		}
	}
	return spans
}
