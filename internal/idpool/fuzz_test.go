package idpool

import "testing"

func FuzzUnion(f *testing.F) {
	f.Add(uint64(0), uint64(65536), uint64(65536), uint64(65537), uint64(1), uint64(1))
	f.Add(uint64(524288), uint64(4294967296), uint64(70000), uint64(600000), uint64(9), uint64(5))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g uint64) {
		checkUnion(t, []extent{{a % allIDs, b % (allIDs + 1)}, {c % allIDs, d % (allIDs + 1)}, {e % allIDs, g % (allIDs + 1)}})
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
