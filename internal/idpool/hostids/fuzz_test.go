package hostids

import (
	"strings"
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

// check fails when claims are empty, reversed or past the last id.
func check(t *testing.T, text []byte, claims []Claim) {
	t.Helper()
	for _, c := range claims {
		if c.From >= c.To || c.To > allIDs {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func FuzzSubIDs(f *testing.F) {
	for _, seed := range []string{"ann:100000:65536\n", "1000:100000:65536", "a:0:1\n\nb::\n", "a:4294967295:4294967295\n", "#x:y\n", "a:1:1:1\n", ":1:1\n", "a:01:+1\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkLines(t, text, parseSub(text)) })
}

func checkLines(t *testing.T, text []byte, lines []subLine) {
	t.Helper()
	for _, l := range lines {
		if l.owner == "" || l.line < 1 || (l.wrong == "") != (l.from < l.to) || l.to > allIDs-1 {
			t.Errorf("%q: %+v", text, l)
		}
	}
	if m, err := layOut(lines, "ann", "subuid"); err == nil && len(lines) > 0 {
		sum := uint64(0)
		for _, l := range lines {
			sum += l.to - l.from
		}
		if _, root := m.HostOverlap(0, 1); root || uint64(m.Size()) != sum {
			t.Errorf("%q: %s", text, m.List())
		}
	}
}

func FuzzGetsubids(f *testing.F) {
	for _, seed := range []string{"0: ann 100000 65536\n1: ann 1000 1\n", "Error fetching ranges\n", "0: a b 1 1\n", "0:  1 1", "x: ann -1 0\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkLines(t, text, parseGetsubids(text)) })
}

func FuzzAccounts(f *testing.F) {
	for _, seed := range []string{"root:x:0:0:root:/root:/bin/sh\n", "staff:x:50:ann,bob\n", "+::::::\n", "a:x:-1:0\n", "a:x:4294967296:0\n", "a:x:1", "\x00:\x00:1:1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, a := range parseAccounts(text) {
			if a.name == "" || a.line < 1 {
				t.Errorf("%q: %+v", text, a)
			}
			if got, ok := lookup([]account{a}, a.name); ok && got != a {
				t.Errorf("%q: %+v, %+v", text, a, got)
			}
		}
	})
}

func FuzzMapped(f *testing.F) {
	for _, seed := range []string{"         0     524288      65536\n", "0 0 4294967295\n", "0 4294967295 1\n", "0 -1 1\n", "1 2\n3\n", "0 1 18446744073709551615\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { check(t, []byte(text), mapped(text)) })
}

func FuzzStorage(f *testing.F) {
	for _, seed := range []string{storageText, "[]", "", "{}", `[{"uidmap":[{"host_id":18446744073709551615,"size":1}]}]`, `[{"id":"\u0000","names":[""],"gidmap":[{}]}]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		claims, err := parseStorage(text)
		if err != nil && claims != nil {
			t.Errorf("%q: %v beside %v", text, claims, err)
		}
		check(t, text, claims)
	})
}

func FuzzPod(f *testing.F) {
	for _, seed := range []string{`{"uidMappings":[{"hostId":131072,"containerId":0,"length":65536}],"gidMappings":[]}`, "null", `{"uidMappings":[{"hostId":4294967295,"length":4294967295}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		claims, _ := parsePod(text)
		check(t, text, claims)
	})
}

func FuzzLXC(f *testing.F) {
	for _, seed := range []string{"lxc.idmap = u 0 100000 65536\n", "lxc.idmap=b 0 1 18446744073709551615\n", "lxc.id_map = g 0 0 1", "lxc.idmap =\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		claims := parseLXC(text)
		check(t, []byte(text), claims)
		if len(claims) > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %v", text, claims)
		}
	})
}

func FuzzNSSwitch(f *testing.F) {
	for _, seed := range []string{"passwd: files sss [NOTFOUND=return] ldap # x\n", "subid: sss\nsubid: files\n", "a:[", "PASSWD:\tfiles", "x: [a] b] c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for database, services := range parseNSSwitch(text) {
			for _, s := range services {
				if database == "" || s == "" || strings.ContainsAny(s, " \n[#") {
					t.Errorf("%q: %q %q", text, database, s)
				}
			}
		}
	})
}

func FuzzStorageConf(f *testing.F) {
	for _, seed := range []string{"[storage]\ngraphroot = \"/srv\" # x\nrunroot='/run'\n", "graphroot=\"", "=\"/\"", "a = '/b\"\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for key, value := range parseStorageConf(text) {
			if !strings.HasPrefix(value, "/") || !strings.Contains(text, value) || strings.ContainsAny(key, "=\n") {
				t.Errorf("%q: %q is %q", text, key, value)
			}
		}
	})
}
