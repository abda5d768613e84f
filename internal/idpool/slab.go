package idpool

import (
	"cmp"
	"math/bits"
	"slices"

	"fief/internal/words/idmap"
)

const (
	rangeIDs   = 1 << 16 // ids of a range
	slabRanges = 64      // ranges of a slab, as many as a uint64 has bits
	slabIDs    = slabRanges * rangeIDs
	allIDs     = 1 << 32
	// lastBase is the highest base of a range: devpts parses ids as signed
	// numbers (UIDS-GIDS.md of systemd), so ids stay below 2^31.
	lastBase = 1<<31 - rangeIDs

	defaultFirst = 0x00080000 // systemd's CONTAINER_UID_BASE_MIN
	defaultLast  = 0x6FFF0000 // systemd's CONTAINER_UID_BASE_MAX
)

// extent is the ids from from up to, not including, to.
type extent struct{ from, to uint64 }

// extents are disjoint and in order.
type extents []extent

// union puts extents of any order and overlap in order and joins those that
// touch.
func union(list []extent) extents {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b extent) int { return cmp.Compare(a.from, b.from) })
	var out extents
	for _, e := range sorted {
		if e.from >= e.to {
			continue
		}
		if n := len(out); n > 0 && e.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, e.to)
			continue
		}
		out = append(out, e)
	}
	return out
}

func (l extents) intersect(o extents) extents {
	var out extents
	for _, a := range l {
		for _, b := range o {
			if from, to := max(a.from, b.from), min(a.to, b.to); from < to {
				out = append(out, extent{from, to})
			}
		}
	}
	return out
}

// without returns what of l is not in o.
func (l extents) without(o extents) extents {
	var out extents
	for _, e := range l {
		for _, cut := range o {
			if cut.to <= e.from || e.to <= cut.from {
				continue
			}
			if e.from < cut.from {
				out = append(out, extent{e.from, cut.from})
			}
			e.from = min(cut.to, e.to)
		}
		if e.from < e.to {
			out = append(out, e)
		}
	}
	return out
}

// cover reports whether e lies in one of l.
func (l extents) cover(e extent) bool {
	i, found := slices.BinarySearchFunc(l, e.from, func(x extent, from uint64) int { return cmp.Compare(x.from, from) })
	if !found {
		i--
	}
	return i >= 0 && e.to <= l[i].to
}

// aligned shrinks every extent to whole ranges.
func (l extents) aligned() extents {
	var out extents
	for _, e := range l {
		from, to := (e.from+rangeIDs-1)/rangeIDs*rangeIDs, e.to/rangeIDs*rangeIDs
		if from < to {
			out = append(out, extent{from, to})
		}
	}
	return out
}

// mask has a bit for each range of a slab that some extent touches.
func (l extents) mask(number int) uint64 {
	base := uint64(number) * slabIDs
	end := base + slabIDs
	var out uint64
	for _, e := range l {
		from, to := max(e.from, base), min(e.to, end)
		if from >= to {
			continue
		}
		low, high := (from-base)/rangeIDs, (to-1-base)/rangeIDs
		out |= run(int(high-low+1)) << low
	}
	return out
}

// rangesOf returns the ranges of a slab that mask has, one by one.
func rangesOf(number int, mask uint64) extents {
	var out extents
	for ; mask != 0; mask &= mask - 1 {
		from := uint64(number)*slabIDs + uint64(bits.TrailingZeros64(mask))*rangeIDs
		out = append(out, extent{from, from + rangeIDs})
	}
	return out
}

// slabs returns the numbers of the slabs that the extents touch, in order.
func (l extents) slabs() []int {
	var out []int
	for _, e := range l {
		for n := e.from / slabIDs; n <= (e.to-1)/slabIDs; n++ {
			out = append(out, int(n))
		}
	}
	return slices.Compact(out)
}

// run is n ones, n from 0 to 64.
func run(n int) uint64 { return 1<<n - 1 }

// slab is 64 ranges, a bit for each in every mask.
type slab struct {
	number  int
	told    uint64 // what its claim on disk says may be leased
	outside uint64 // not for leasing
	taken   uint64 // a file of the host gives ids of it to somebody
	named   uint64 // a name service knows an id of it
	unasked uint64 // no name service has said whether it does
	granted uint64 // leased
	pinned  uint64 // used by an explicit map, or shared
	resting uint64 // leased once, or seen in use: processes are looked for before the next lease
	late    uint64 // of resting: since the last look began
	barred  uint64 // leased once: files are looked for before the next lease
}

// free are the ranges that can be leased.
func (s *slab) free() uint64 { return s.own() &^ (s.granted | s.pinned | s.resting | s.barred) }

// waiting are the ranges that could be leased, but for what may be left in them.
func (s *slab) waiting() uint64 { return s.own() & (s.resting | s.barred) &^ (s.granted | s.pinned) }

// own are the ranges that nobody else has.
func (s *slab) own() uint64 { return s.told &^ (s.outside | s.taken | s.named | s.unasked) }

// offer is what the claim of the slab has to say. What no name service was asked for
// is not in it, so that the next daemon asks.
func (s *slab) offer() uint64 { return ^(s.outside | s.unasked) | s.granted }

// rest makes ranges wait for a look at processes that begins after now.
func (s *slab) rest(ranges uint64) {
	s.resting |= ranges
	s.late |= ranges
}

func (s *slab) base() idmap.Host { return idmap.Host(s.number) * slabIDs }

// fit finds n neighbouring ones in free, the first from start on, else the
// first of all; false when there are none.
func fit(free uint64, n, start int) (int, bool) {
	for ; n > 1; n-- {
		free &= free >> 1 // a bit stays when the next range is free too
	}
	if free == 0 {
		return 0, false
	}
	if above := free &^ run(start); above != 0 {
		free = above
	}
	return bits.TrailingZeros64(free), true
}
