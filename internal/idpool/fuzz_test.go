package idpool

import (
	"testing"

	"fief/internal/words/idmap"
)

func idsOf(first, n uint32) []uint32 {
	var out []uint32
	for i := range n {
		out = append(out, first+i)
	}
	return out
}

func insideOf(i int) idmap.Inside { return idmap.Inside(i) }

func FuzzSubIDs(f *testing.F) {
	for _, seed := range []string{"ann:100000:65536\n", "1000:100000:65536", "a:0:1\n\nb::\n", "a:4294967295:4294967295\n", "#x:y\n", "a:1:1:1\n", ":1:1\n", "a:01:+1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var ids []extent
		for _, line := range parseSub(text) {
			if line.owner == "" || line.line < 1 || (line.wrong == "") != (line.ids.from < line.ids.to) || line.ids.to > allIDs-1 {
				t.Errorf("%q: %+v", text, line)
			}
			ids = append(ids, line.ids)
		}
		checkUnion(t, ids)
	})
}

// checkUnion fails when extents are not disjoint, in order and complete, or
// when a slab's mask is not what its ranges say.
func checkUnion(t *testing.T, list []extent) {
	t.Helper()
	all := union(list)
	for i, e := range all {
		if e.from >= e.to || i > 0 && e.from <= all[i-1].to {
			t.Errorf("%v is not in order: %v", list, all)
		}
	}
	for _, e := range list {
		if e.from < e.to && len(all.intersect(extents{e})) != 1 {
			t.Errorf("%v is not in %v", e, all)
		}
	}
	if len(all) == 0 {
		return
	}
	for _, number := range []int{int(all[0].from / slabIDs), int((all[len(all)-1].to - 1) / slabIDs)} {
		mask := all.mask(number)
		for i := range uint64(slabRanges) {
			from := uint64(number)*slabIDs + i*rangeIDs
			touched := len(all.intersect(extents{{from, from + rangeIDs}})) > 0
			if touched != (mask>>i&1 == 1) {
				t.Errorf("%v: range %d of slab %d", all, i, number)
			}
		}
	}
}

func FuzzAccounts(f *testing.F) {
	for _, seed := range []string{"root:x:0:0:root:/root:/bin/sh\n", "staff:x:50:ann,bob\n", "+::::::\n", "a:x:-1:0\n", "a:x:4294967296:0\n", "a:x:1", "\x00:\x00:1:1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, a := range parseAccounts(text) {
			if a.name == "" {
				t.Errorf("%q: %+v", text, a)
			}
			if got, ok := lookup([]account{a}, a.name); ok && got != a {
				t.Errorf("%q: %+v, %+v", text, a, got)
			}
		}
	})
}

func FuzzClaim(f *testing.F) {
	f.Add([]byte(claim{"0123456789abcdef0123456789abcdef", "/var/lib/fief", 1<<63 + 5}.String()))
	f.Add([]byte(claim{"0123456789abcdef0123456789abcdef", "/a \"b\"\n\xffc", 0}.String()))
	f.Add([]byte("fief-ids 2\nid \nroot \"/\"\nranges 0\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, ok := parseClaim(text)
		if !ok {
			if c.vanished() || c.ranges != ^uint64(0) {
				t.Errorf("%q is for the taking", text)
			}
			return
		}
		if again, ok := parseClaim([]byte(c.String())); !ok || again != c {
			t.Errorf("%q: %+v reads back as %+v", text, c, again)
		}
	})
}

func FuzzClaimName(f *testing.F) {
	for _, seed := range []string{"slab-0", "slab-4194304", "slab-04194304", "slab-1", "lock", ".new", "slab-4294967296"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		number, ok := slabOf(name)
		if ok && (claims{}).path(number) != name {
			t.Errorf("%q is %q", name, (claims{}).path(number))
		}
	})
}

func FuzzMapped(f *testing.F) {
	for _, seed := range []string{"         0     524288      65536\n", "0 0 4294967295\n", "0 4294967295 1\n", "0 -1 1\n", "1 2\n3\n", "0 1 18446744073709551615\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := mapped(text)
		for _, e := range list {
			if e.to > allIDs {
				t.Errorf("%q: %v", text, e)
			}
		}
		checkUnion(t, list)
	})
}
