package idmap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fief/internal/words/fault"
)

// TestPodmansVectors are the cases of Podman's own parser test that root can
// meet (podman, pkg/util/utils_test.go): inputs and results.
func TestPodmansVectors(t *testing.T) {
	for _, c := range []struct{ uids, gids, uid, gid string }{
		{"0:2000:100000 +1:100:1", "", "0:2000:1,1:100:1,2:2002:99998", "0:2000:1,1:100:1,2:2002:99998"},
		{"0:0:20 24:24:6 +7:1000:2 +12:2000:3 +18:3000:7", "",
			"0:0:7,7:1000:2,9:9:3,12:2000:3,15:15:3,18:3000:7,25:25:5", "0:0:7,7:1000:2,9:9:3,12:2000:3,15:15:3,18:3000:7,25:25:5"},
		{"0:0:20 +10:1:1", "", "0:0:1,2:2:8,10:1:1,11:11:9", "0:0:1,2:2:8,10:1:1,11:11:9"},
		{"0:20:10 15:35:10 +8:23:16", "", "0:20:3,8:23:16,24:44:1", "0:20:3,8:23:16,24:44:1"},
		{"u1:3:1 g2:4:2", "", "1:3:1", "2:4:2"},
		{"ug1:3:1", "", "1:3:1", "1:3:1"},
		{"1000:1000:1 +2:2:1", "", "2:2:1,1000:1000:1", "2:2:1,1000:1000:1"},
		{"1000:1001:2 +2:3:2", "", "2:3:2,1000:1001:2", "2:3:2,1000:1001:2"},
		{"2:3:2 +1000:1001:2", "", "2:3:2,1000:1001:2", "2:3:2,1000:1001:2"},
		{"4:5:4 +1:1:3", "", "1:1:3,4:5:4", "1:1:3,4:5:4"},
		{"1:1:3 4:4:4", "", "1:1:7", "1:1:7"},
		{"", "0:0:65000 +100000:1:1", "0:0:1,2:2:64998,100000:1:1", "0:0:1,2:2:64998,100000:1:1"},
		{"", "0:0:1000 g2000:2000:1", "0:0:1000", "0:0:1000,2000:2000:1"},
		{"0:1:2:3:4:5", "", "0:1:2,3:4:5", "0:1:2,3:4:5"},
		{"+0:@100000:65536", "0:7:1", "0:100000:65536", "0:7:1"},
		{"", "0:5", "0:5:1", "0:5:1"},
	} {
		p, err := ParsePair(strings.Fields(c.uids), strings.Fields(c.gids))
		if err != nil || p.UID.List() != c.uid || p.GID.List() != c.gid {
			t.Errorf("%q %q: %s, %s, %v", c.uids, c.gids, p.UID.List(), p.GID.List(), err)
		}
	}
}

// Each row of Podman's errors, and what Podman lets pass or finds out too late.
func TestBadPodmanEntries(t *testing.T) {
	user := Grammar{Parent: &Pair{mapOf(t, "0:1000:1,1:100000:65536"), mapOf(t, "0:1000:1,1:100000:65536")}}
	for _, c := range []struct {
		g           Grammar
		entry, want string
	}{
		{Grammar{}, "5", `"5": it has 1 parts`},
		{Grammar{}, "", `"": it has 1 parts`},
		{Grammar{}, "0:1:2:3", `"0:1:2:3": it has 4 parts`},
		{Grammar{}, ":1:1", `":1:1": it has no container id`},
		{Grammar{}, "a1:2:3", `"a1:2:3": unknown flag 'a'`},
		{Grammar{}, "ua1:2:3", `"ua1:2:3": unknown flag 'a'`},
		{Grammar{}, "+:1:1", `"+:1:1": it has no container id`},
		{Grammar{}, "1x:2:3", `"1x:2:3": "1x" is not a number`},
		{Grammar{}, "0::1", `"0::1": it has no host id`},
		{Grammar{}, "0:@:1", `"0:@:1": it has no host id`},
		{Grammar{}, "0:@@1:1", `"0:@@1:1": "@1" is not a number`},
		{Grammar{}, "0:x:1", `"0:x:1": "x" is not a number`},
		{Grammar{}, "0:1:x", `"0:1:x": "x" is not a number`},
		{Grammar{}, "0:1:", `"0:1:": "" is not a number`},
		{Grammar{}, "0:1:4294967296", `"0:1:4294967296": "4294967296" is not a number from 0 to 4294967295`},
		{Grammar{}, "0:1:99999999999999999999999", `is not a number from 0 to 4294967295`},
		{Grammar{}, "+u0:1:0", `"+u0:1:0": length is zero`},
		{Grammar{}, "+u4000000000:1:294967296", `"+u4000000000:1:294967296": container ids wrap past 4294967294`},
		{Grammar{}, "0:@4294967295:1", `"0:@4294967295:1": host ids wrap past 4294967294`},
		{Grammar{}, "0:10:5,3:20:5", "3:20:5: container ids overlap those of 0:10:5"},
		{Grammar{}, strings.Repeat("+0:0:1,", maxEntries) + "7:7:1", `"7:7:1": more than 5440 entries come before it`},
		{user, "0:@7:1", `"0:@7:1": parent ID UID 7 is not mapped/delegated`},
		{user, "+0:@99999:10", `"+0:@99999:10": parent ID UID 99999 is not mapped/delegated`},
		{user, "+0:@165535:2", `"+0:@165535:2": parent ID UID 165536 is not mapped/delegated`},
		{user, "g0:@1000:2", `"g0:@1000:2": parent ID GID 1001 is not mapped/delegated`},
	} {
		p, err := c.g.ParsePair([]string{c.entry}, nil)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || fault.HintOf(err) == "" || !p.IsZero() {
			t.Errorf("%.80q: %v, want %s", c.entry, err, c.want)
		}
	}
}

// The cases of Podman's tests for users without privileges: @ through a parent,
// and what is filled up.
func TestPodmansVectorsForUsers(t *testing.T) {
	const own = "0:1000:1,1:100000:65536"
	for _, c := range []struct{ uids, gids, parent, uid, gid string }{
		{"100000:@1002:1", "", "20:1002:1", "100000:20:1", "100000:20:1"},
		{"100000:@1002", "", "20:1002:1", "100000:20:1", "100000:20:1"},
		{"+100000:@1002:1", "", "20:1002:1", "100000:20:1", "100000:20:1"},
		{"0:@100000:65536", "", own, "0:1:65536", "0:1:65536"},
		{"+0:@100000:65536", "", own, "0:1:65536,65536:0:1", "0:1:65536,65536:0:1"},
		{"", "+g100000:@1000", own, "0:0:65537", "0:1:65536,100000:0:1"},
		{"0:0:1 +5:1:1", "", own, "0:0:1,5:1:1", "0:0:1,5:1:1"},
		{"0:@3:6", "", "10:5:4,40:3:2", "0:40:2,2:10:4", "0:40:2,2:10:4"},
	} {
		parent := mapOf(t, c.parent)
		p, err := Grammar{&Pair{parent, parent}}.ParsePair(strings.Fields(c.uids), strings.Fields(c.gids))
		if err != nil || p.UID.List() != c.uid || p.GID.List() != c.gid {
			t.Errorf("%q %q: %s, %s, %v", c.uids, c.gids, p.UID.List(), p.GID.List(), err)
		}
	}
	if p, err := (Grammar{&Pair{}}).ParsePair(nil, nil); err != nil || !p.IsZero() {
		t.Errorf("nothing asked: %v, %v", p, err)
	}
}

// Podman's TestFillIDMap and TestGetAvailableIDRanges.
func TestFill(t *testing.T) {
	got, err := New(fill(mapOf(t, "1:1000:10,30:2000:20").Spans(), ranges{{0, 10}, {10000, 20000}})...)
	if want := "0:0:1,1:1000:10,11:1:9,20:10000:10,30:2000:20,50:10010:9990"; err != nil || got.List() != want {
		t.Errorf("%s, want %s (%v)", got.List(), want, err)
	}
	free := ranges{{0, 30}, {50, 70}}.minus(ranges{{2, 4}, {25, 55}})
	if !slices.Equal(free, ranges{{0, 2}, {4, 25}, {55, 70}}) {
		t.Errorf("free: %v", free)
	}
	whole, err := New(fill([]Span{{7, 9, 1}}, ranges{{0, 9}, {10, Max + 1}})...)
	if err != nil || whole.Size() != 1<<32-1 {
		t.Errorf("everything: %s, %v", whole.List(), err)
	}
}

func TestTriples(t *testing.T) {
	user := Grammar{&Pair{mapOf(t, "0:1000:1,1:100000:65536"), mapOf(t, "0:2000:1")}}
	for _, c := range []struct {
		g      Grammar
		kind   Kind
		values []string
		want   string
	}{
		{Grammar{}, UID, []string{"3:4:5"}, "3:4:5"},
		{user, UID, []string{"100:@100000:1"}, "100:1:1"},
		{user, GID, []string{"100:@2000:1"}, "100:0:1"},
		{Grammar{}, GID, []string{"3:4:5", "8:@9:2"}, "3:4:7"},
		{Grammar{}, UID, nil, ""},
	} {
		if m, err := c.g.ParseTriples(c.kind, c.values); err != nil || m.List() != c.want {
			t.Errorf("%v: %s, %v", c.values, m.List(), err)
		}
	}
	for _, value := range []string{"", "1", "1:2", "1:2:3:4", "+1:2:3", "u1:2:3", "1:2:0", "1:2:3,4:5:6", "a:b:c"} {
		if m, err := (Grammar{}).ParseTriples(UID, []string{value}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), value) {
			t.Errorf("%q: %s, %v", value, m.List(), err)
		}
	}
	if _, err := (Grammar{}).ParseTriples(UID, []string{"0:5:2", "1:9:1"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("entries that overlap: %v", err)
	}
}

// Podman's TestMaybeSplitMappings, with parents as the kernel prints them. The
// third is an error here; Podman leaves it to the kernel.
func TestPodmansSplits(t *testing.T) {
	for _, c := range []struct{ m, parent, want string }{
		{"0:0:2", "1 1000000 65536\n0 1000 1\n", "0 0 1\n1 1 1\n"},
		{"0:0:2", "0 1000000 65536\n", "0 0 2\n"},
		{"0:0:1", "10000 10000 65536\n", ""},
		{"0:0:4", "0 0 1\n1 1 1\n2 2 1\n3 3 1\n", "0 0 1\n1 1 1\n2 2 1\n3 3 1\n"},
	} {
		parent, err := ParseExtents([]byte(c.parent))
		if err != nil {
			t.Fatal(err)
		}
		got, err := mapOf(t, c.m).SplitAt(parent)
		if got.String() != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s at %q: %q, %v", c.m, c.parent, got, err)
		}
		if err != nil && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "0:0:1: this process has no id 0")) {
			t.Error(err)
		}
	}
	var parent Extents
	for i := range uint32(341) {
		parent = append(parent, Span{Inside(i), Host(i), 1})
	}
	if got, err := mapOf(t, "0:0:341").SplitAt(parent); !fault.Is(err, fault.Invalid) {
		t.Errorf("341 lines: %v, %v", got, err)
	}
}

// Podman's TestGetRootlessKeepIDMapping.
func TestPodmansKeepID(t *testing.T) {
	for _, c := range []struct {
		id           Inside
		subIDs, size uint32
		want         string
	}{
		{1000, 0, 0, "1000:0:1"},
		{0, 65536, 0, "0:0:1,1:1:65536"},
		{0, 65536, 1024, "0:0:1,1:1:1023"},
		{0, 65536, 1, "0:0:1"},
		{0, 65536, 2, "0:0:1,1:1:1"},
		{1000, 0, 1000000, "1000:0:1"},
		{1000, 65536, 0, "0:1:1000,1000:0:1,1001:1001:64536"},
		{1000, 500, 0, "0:1:500,1000:0:1"},
		{1000, 65536, 101, "0:1:100,1000:0:1"},
	} {
		got, err := KeepID(c.id, c.subIDs, c.size)
		if err != nil || !got.Equal(mapOf(t, c.want)) {
			t.Errorf("%+v: %s, %v", c, got.List(), err)
		}
	}
	for _, id := range []Inside{Max, Max + 1} {
		if got, err := KeepID(id, 1<<32-1, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d: %s, %v", id, got.List(), err)
		}
	}
}

// An inserted entry holds whole, and of the ones before it just what it does
// not touch, by a plain table of ids.
func TestInsertAgainstATable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.Custom(func(t *rapid.T) Span {
			return Span{Inside(rapid.IntRange(0, 40).Draw(t, "in")), Host(rapid.IntRange(0, 40).Draw(t, "out")), uint32(rapid.IntRange(1, 30).Draw(t, "n"))}
		})
		var values []string
		table := map[Inside]Host{}
		for _, s := range rapid.SliceOfN(span, 1, 6).Draw(t, "spans") {
			values = append(values, "+"+s.String())
			for in, out := range table {
				if in >= s.In && uint32(in-s.In) < s.N || out >= s.Out && uint32(out-s.Out) < s.N {
					delete(table, in)
				}
			}
			for i := range s.N {
				table[s.In+Inside(i)] = s.Out + Host(i)
			}
		}
		p, err := ParsePair(values, nil)
		if err != nil {
			t.Fatal(err)
		}
		for in := range Inside(80) {
			got, ok := p.UID.ToHost(in)
			if want, there := table[in]; ok != there || got != want {
				t.Fatalf("%v: %d is %d %v, want %d %v", values, in, got, ok, want, there)
			}
		}
	})
}

// Of an id of the host stands the same in the map as when each id of the entry
// was translated alone.
func TestHostIDsAgainstOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parent, _ := draw(t, "parent")
		first := Host(rapid.IntRange(0, world-1).Draw(t, "first"))
		n := uint32(rapid.IntRange(1, 300).Draw(t, "n"))
		p, err := Grammar{&Pair{parent, parent}}.ParsePair([]string{fmt.Sprintf("7:@%d:%d", first, n)}, nil)
		for i := range n {
			middle, ok := parent.ToInside(first + Host(i))
			if !ok {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("parent ID UID %d ", first+Host(i))) {
					t.Fatalf("%s has no %d: %v", parent.List(), first+Host(i), err)
				}
				return
			}
			if got, ok := p.UID.ToHost(7 + Inside(i)); err == nil && (!ok || got != Host(middle)) {
				t.Fatalf("%d is %d %v, want %d (%v)", 7+i, got, ok, middle, err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParsePair(f *testing.F) {
	f.Add("+u0:@1:2,g3:4", "0:0:1:2:2:2")
	f.Add("", "++uu:::")
	f.Add("+100000:@1002:1", "g0:@1000:5")
	parent, err := ParseList([]string{"0:1000:1,1:100000:65536,70000:2:7"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, uid, gid string) {
		for _, g := range []Grammar{{}, {&Pair{parent, parent}}} {
			p, err := g.ParsePair([]string{uid}, []string{gid})
			if err != nil {
				continue
			}
			for _, m := range []Map{p.UID, p.GID} {
				checkInvariants(t, m)
				back, err := ParsePair([]string{m.List()}, nil)
				if !m.IsZero() && (err != nil || !back.UID.Equal(m) || !back.GID.Equal(m)) {
					t.Errorf("%q, %q: %q reads back as %q, %v", uid, gid, m.List(), back.UID.List(), err)
				}
			}
		}
		m, err := Grammar{}.ParseTriples(UID, []string{uid})
		if err != nil {
			return
		}
		if p, err := ParsePair([]string{uid}, nil); err != nil || !p.UID.Equal(m) {
			t.Errorf("%q: %q as a triple, %q as a flag, %v", uid, m.List(), p.UID.List(), err)
		}
	})
}
