package idmap

import (
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

func TestBadPodmanEntries(t *testing.T) {
	for _, entry := range []string{"5", "0:1:2:3", ":1:1", "a1:2:3", "+:1:1", "1x:2:3", "0::1", "0:x:1", "0:1:x", "0:1:4294967296", "0:1:0", "0:@@1:1", ""} {
		_, err := ParsePair([]string{entry}, nil)
		if !fault.Is(err, fault.Invalid) || entry != "" && !strings.Contains(err.Error(), strings.TrimPrefix(entry, "+")) {
			t.Errorf("%q: %v", entry, err)
		}
	}
	if _, err := ParsePair([]string{"0:10:5", "3:20:5"}, nil); err == nil {
		t.Error("entries that overlap without +")
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

func FuzzParsePair(f *testing.F) {
	f.Add("+u0:@1:2,g3:4", "0:0:1:2:2:2")
	f.Add("", "++uu:::")
	f.Fuzz(func(t *testing.T, uid, gid string) {
		p, err := ParsePair([]string{uid}, []string{gid})
		if err != nil {
			return
		}
		if back, err := ParseList([]string{p.UID.List()}); !p.UID.IsZero() && (err != nil || !back.Equal(p.UID)) {
			t.Errorf("%q gives %q", uid, p.UID.List())
		}
	})
}
