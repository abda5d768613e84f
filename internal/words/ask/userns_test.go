package ask

import (
	"reflect"
	"strings"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

func mapOf(t testing.TB, text string) idmap.Map {
	t.Helper()
	if text == "" {
		return idmap.Map{}
	}
	m, err := idmap.ParseList([]string{text})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func inside(id idmap.Inside) *idmap.Inside { return &id }

// Each mode, what it is, and what is typed to have the same again.
func TestUsernsModes(t *testing.T) {
	extra := idmap.Pair{UID: mapOf(t, "0:5:1,7:9:2"), GID: mapOf(t, "1:2:3")}
	for _, c := range []struct {
		mode string
		want Userns
		text string // empty: mode
	}{
		{"", UsernsDefault{}, ""},
		{"host", UsernsHost{}, ""},
		{"private", UsernsAuto{}, "auto"},
		{"auto", UsernsAuto{}, ""},
		{"auto:size=70000", UsernsAuto{Size: 70000}, ""},
		{"auto:size=4294967295", UsernsAuto{Size: 1<<32 - 1}, ""},
		{"auto:size=1,size=2", UsernsAuto{Size: 2}, "auto:size=2"},
		{"auto:uidmapping=7:@9:2,size=8,gidmapping=1:2:3,uidmapping=0:5:1", UsernsAuto{8, extra}, "auto:size=8,uidmapping=0:5:1,uidmapping=7:9:2,gidmapping=1:2:3"},
		{"auto:gidmapping=1:2:3", UsernsAuto{Extra: idmap.Pair{GID: extra.GID}}, ""},
		{"keep-id", UsernsKeepID{}, ""},
		{"keep-id:uid=1000,gid=1000", UsernsKeepID{UID: inside(1000), GID: inside(1000)}, ""},
		{"keep-id:uid=0", UsernsKeepID{UID: inside(0)}, ""},
		{"keep-id:gid=4294967294,size=5", UsernsKeepID{GID: inside(idmap.Max), Size: 5}, ""},
		{"nomap", UsernsNomap{}, ""},
		{"no-map", UsernsNomap{}, "nomap"},
		{"container:web", UsernsContainer{"web"}, ""},
		{"ns:/proc/1/ns/user", UsernsPath{"/proc/1/ns/user"}, ""},
		{"ns:/run/a:b", UsernsPath{"/run/a:b"}, ""},
	} {
		got, err := UsernsWords{Mode: c.mode}.Parse()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %#v, %v", c.mode, got, err)
			continue
		}
		if want := c.text; UsernsText(got) != want && UsernsText(got) != c.mode {
			t.Errorf("%q is asked for as %q, want %q", c.mode, UsernsText(got), want)
		}
	}
	if UsernsText(nil) != "" {
		t.Error("nothing said has a text")
	}
}

func TestBadUsernsModes(t *testing.T) {
	for mode, want := range map[string]string{
		"odd":                            `--userns: invalid USER mode: "odd"`,
		"pod":                            `invalid USER mode: "pod"`,
		"host:x":                         `invalid USER mode: "host:x"`,
		"Host":                           `invalid USER mode: "Host"`,
		" host":                          `invalid USER mode: " host"`,
		"nomap:":                         `invalid USER mode: "nomap:"`,
		"autox:size=1":                   `invalid USER mode: "autox:size=1"`,
		"auto:":                          `cannot use userns mode "auto:": invalid option specified: ""`,
		"auto:size":                      `invalid option specified: "size"`,
		"auto:size=0":                    `size "0" is not a number from 1 to 4294967295`,
		"auto:size=":                     `size "" is not a number`,
		"auto:size=-1":                   `size "-1" is not a number`,
		"auto:size=4294967296":           `size "4294967296" is not a number`,
		"auto:size=1,":                   `invalid option specified: ""`,
		"auto:uid=1":                     `unknown option specified: "uid"`,
		"auto:uidmapping=1":              `"auto:uidmapping=1": cannot use id map entry "1": it is not three numbers`,
		"auto:uidmapping=1:2":            `it is not three numbers`,
		"auto:gidmapping=+1:2:3":         `cannot use id map entry "+1:2:3": flags have no meaning here`,
		"auto:uidmapping=1:2:0":          `cannot use id map entry "1:2:0": length is zero`,
		"auto:uidmapping=1:@x:3":         `"x" is not a number`,
		"auto:gidmapping=0:1:5:":         `it is not three numbers`,
		"keep-id:":                       `invalid option specified: ""`,
		"keep-id:uid":                    `invalid option specified: "uid"`,
		"keep-id:uid=x":                  `"x" is not an id from 0 to 4294967294`,
		"keep-id:gid=4294967295":         `"4294967295" is not an id`,
		"keep-id:size=0":                 `size "0" is not a number`,
		"keep-id:uidmapping=0:1:1":       `unknown option specified: "uidmapping"`,
		"container:":                     `container: needs the name or id of a container`,
		"container":                      `container: needs the name or id of a container`,
		"ns:":                            `ns: needs the absolute path of a user namespace`,
		"ns:proc/1/ns/user":              `ns: needs the absolute path`,
		"ns:/a\x00b":                     `ns: needs the absolute path`,
		strings.Repeat("long", 1000):     `--userns: invalid USER mode: "longlong`,
		"auto:" + strings.Repeat("x", 9): `invalid option specified: "xxxxxxxxx"`,
	} {
		got, err := UsernsWords{Mode: mode}.Parse()
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || got != nil || len(err.Error()) > 500 {
			t.Errorf("%.80q: %v, want %s", mode, err, want)
		}
	}
	_, err := UsernsWords{Mode: "odd"}.Parse()
	for _, mode := range []string{"host", "private", "auto", "keep-id", "nomap", "container:", "ns:/"} {
		if !strings.Contains(fault.HintOf(err), mode) {
			t.Errorf("the hint does not say %s: %s", mode, fault.HintOf(err))
		}
	}
}

func TestUsernsMaps(t *testing.T) {
	for _, c := range []struct {
		w              UsernsWords
		uid, gid       string
		subUID, subGID string
	}{
		{UsernsWords{UIDMaps: []string{"0:1000:5"}}, "0:1000:5", "0:1000:5", "", ""},
		{UsernsWords{GIDMaps: []string{"0:1000:5", "7:1"}}, "0:1000:5,7:1:1", "0:1000:5,7:1:1", "", ""},
		{UsernsWords{UIDMaps: []string{"0:1:1"}, GIDMaps: []string{"0:2:1"}}, "0:1:1", "0:2:1", "", ""},
		{UsernsWords{Mode: "private", UIDMaps: []string{"0:5:9", "+1:100:1"}}, "0:5:1,1:100:1,2:7:7", "0:5:1,1:100:1,2:7:7", "", ""},
		{UsernsWords{UIDMaps: []string{"5:5:1"}}, "5:5:1", "5:5:1", "", ""}, // without 0: refused when a container is made
		{UsernsWords{UIDMaps: []string{"u0:5:1"}}, "0:5:1", "", "", ""},
		{UsernsWords{SubUID: "app"}, "", "", "app", "app"},
		{UsernsWords{SubGID: "app"}, "", "", "app", "app"},
		{UsernsWords{Mode: "private", SubUID: "a", SubGID: "b"}, "", "", "a", "b"},
		{UsernsWords{SubUID: "a", GIDMaps: []string{"70000:5:1"}}, "70000:5:1", "70000:5:1", "a", "a"},
	} {
		got, err := c.w.Parse()
		m, ok := got.(UsernsMap)
		if err != nil || !ok || m.Pair.UID.List() != c.uid || m.Pair.GID.List() != c.gid || m.SubUID != c.subUID || m.SubGID != c.subGID {
			t.Errorf("%+v: %+v, %v", c.w, got, err)
		}
		if UsernsText(got) != "private" {
			t.Errorf("%+v is asked for as %q", c.w, UsernsText(got))
		}
	}
	for _, w := range []UsernsWords{{UIDMaps: []string{""}}, {UIDMaps: []string{"0:1:2,1:9:1"}}, {UIDMaps: []string{"0:1:1"}, GIDMaps: []string{"x"}}} {
		if got, err := w.Parse(); !fault.Is(err, fault.Invalid) || got != nil {
			t.Errorf("%+v: %+v, %v", w, got, err)
		}
	}
}

func TestUsernsConflicts(t *testing.T) {
	for _, mode := range []string{"host", "auto", "auto:size=5", "keep-id", "nomap", "container:a", "ns:/a", "odd"} {
		for _, w := range []UsernsWords{{UIDMaps: []string{"0:1:1"}}, {GIDMaps: []string{"0:1:1"}}, {SubUID: "a"}, {SubGID: "a"}} {
			w.Mode = mode
			_, err := w.Parse()
			if !fault.Is(err, fault.Invalid) || err.Error() != "--userns and --uidmap/--gidmap/--subuidname/--subgidname are mutually exclusive" ||
				!strings.Contains(fault.HintOf(err), "--userns="+mode) {
				t.Errorf("%+v: %v (%s)", w, err, fault.HintOf(err))
			}
		}
	}
}

func FuzzUserns(f *testing.F) {
	for _, mode := range []string{"", "host", "auto:size=5,uidmapping=0:@1:2,gidmapping=5:6:7", "keep-id:uid=1,gid=2,size=3", "no-map", "container:a", "ns:/a", "private"} {
		f.Add(mode, "", "", "", "")
	}
	f.Add("private", "+u0:@1:2,g3:4", "0:0:1:2:2:2", "a", "")
	f.Fuzz(func(t *testing.T, mode, uid, gid, subUID, subGID string) {
		got, err := UsernsWords{Mode: mode}.Parse()
		if (err == nil) != (got != nil) {
			t.Fatalf("%q: %v, %v", mode, got, err)
		}
		if err == nil {
			again, err := UsernsWords{Mode: UsernsText(got)}.Parse()
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%q is %#v, asked for as %q, which is %#v, %v", mode, got, UsernsText(got), again, err)
			}
		}
		w := UsernsWords{Mode: mode, UIDMaps: []string{uid}, GIDMaps: []string{gid}, SubUID: subUID, SubGID: subGID}
		if got, err := w.Parse(); err == nil && UsernsText(got) != "private" {
			t.Errorf("%+v: %#v", w, got)
		}
	})
}
