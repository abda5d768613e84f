package idmap

import (
	"fmt"
	"strings"
)

// ParsePair reads the values of repeated --uidmap and --gidmap flags in
// Podman's grammar (podman-run(1), "--uidmap"): entries
//
//	[+][u][g]CONTAINER_ID:[@]HOST_ID[:LENGTH]
//
// separated by commas, or joined by colons in threes. Kinds that were not given
// get the other kind's entries. u and g keep an entry to one kind; + cuts out of
// all entries before it what it overlaps on either side; @ says that the id is
// one of the host, which for root every id is. A missing LENGTH is 1. Errors
// are of class Invalid and name the entry.
func ParsePair(uids, gids []string) (Pair, error) {
	if len(uids) == 0 {
		uids = gids
	}
	if len(gids) == 0 {
		gids = uids
	}
	uid, err := parseKind(uids, 'u')
	if err != nil {
		return Pair{}, err
	}
	gid, err := parseKind(gids, 'g')
	return Pair{UID: uid, GID: gid}, err
}

// parseKind reads the entries that are for one kind.
func parseKind(values []string, kind byte) (Map, error) {
	var spans []Span
	for _, value := range values {
		for group := range strings.SplitSeq(value, ",") {
			for _, entry := range triples(group) {
				e, err := parseFlagged(entry)
				if err != nil {
					return Map{}, err
				}
				if e.kinds != "" && !strings.Contains(e.kinds, string(kind)) {
					continue
				}
				if e.insert {
					spans = cutAll(spans, e.span)
				}
				spans = append(spans, e.span)
			}
		}
	}
	return New(spans...)
}

// triples splits entries that are joined by colons: their number of fields is a
// multiple of three then.
func triples(group string) (out []string) {
	fields := strings.Split(group, ":")
	if len(fields) <= 3 || len(fields)%3 != 0 {
		return []string{group}
	}
	for ; len(fields) > 0; fields = fields[3:] {
		out = append(out, strings.Join(fields[:3], ":"))
	}
	return out
}

// flagged is an entry with what stood before it.
type flagged struct {
	span   Span
	insert bool   // +
	kinds  string // of u and g, those given
}

func parseFlagged(entry string) (e flagged, err error) {
	plain := strings.TrimLeft(entry, "+ug")
	for _, c := range entry[:len(entry)-len(plain)] {
		if c == '+' {
			e.insert = true
			continue
		}
		e.kinds += string(c)
	}
	in, out, ok := strings.Cut(plain, ":")
	if ok {
		plain = in + ":" + strings.TrimPrefix(out, "@")
	}
	if e.span, err = parseSpan(plain); err != nil {
		return e, badEntry(entry, fmt.Sprint(causeOf(err)))
	}
	return e, e.span.check()
}

// cutAll removes from every span the ids that s has, on either side.
func cutAll(spans []Span, s Span) (out []Span) {
	for _, old := range spans {
		in := overlapAt(uint64(old.In), uint64(s.In), old.N, s.N)
		host := overlapAt(uint64(old.Out), uint64(s.Out), old.N, s.N)
		for _, piece := range remaining(old.N, in, host) {
			out = append(out, Span{old.In + Inside(piece.from), old.Out + Host(piece.from), piece.to - piece.from})
		}
	}
	return out
}

// part is the offsets [from, to) of a span.
type part struct{ from, to uint32 }

// overlapAt is the part of n ids from start on that lies in the m ids from
// other on; empty when none does.
func overlapAt(start, other uint64, n, m uint32) part {
	from, to := max(start, other), min(start+uint64(n), other+uint64(m))
	if from >= to {
		return part{}
	}
	return part{uint32(from - start), uint32(to - start)}
}

// remaining is what is left of [0, n) without a and b, in order.
func remaining(n uint32, a, b part) (out []part) {
	if a.from > b.from {
		a, b = b, a
	}
	next := uint32(0)
	for _, gone := range []part{a, b} {
		if gone.from >= gone.to {
			continue
		}
		if gone.from > next {
			out = append(out, part{next, gone.from})
		}
		next = max(next, gone.to)
	}
	if next < n {
		out = append(out, part{next, n})
	}
	return out
}
