package docker

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

var sameMaps = cmp.Comparer(func(a, b idmap.Map) bool { return a.Equal(b) })

func usernsOf(mode string, opts []string, notes map[string]string) (ask.Userns, error) {
	sec, err := parseSecurity(opts)
	if err != nil {
		return nil, err
	}
	return usernsAsked(mode, sec, notes)
}

// TestUsernsChannels: what one channel can say, the others can.
func TestUsernsChannels(t *testing.T) {
	m, err := idmap.New(idmap.Span{In: 0, Out: 100000, N: 1000}, idmap.Span{In: 1000, Out: 5000, N: 1})
	if err != nil {
		t.Fatal(err)
	}
	uid := idmap.Inside(5)
	both := ask.UsernsMap{Pair: idmap.Pair{UID: m, GID: m}}
	for mode, want := range map[string]ask.Userns{
		"":                         ask.UsernsDefault{},
		"host":                     ask.UsernsHost{},
		"auto":                     ask.UsernsAuto{},
		"auto:size=70000":          ask.UsernsAuto{Size: 70000},
		"keep-id":                  ask.UsernsKeepID{},
		"keep-id:uid=5,size=70000": ask.UsernsKeepID{UID: &uid, Size: 70000},
		"nomap":                    ask.UsernsNomap{},
		"container:web":            ask.UsernsContainer{Container: "web"},
		"ns:/run/ns/a":             ask.UsernsPath{Path: "/run/ns/a"},
	} {
		for channel, how := range map[string]func() (ask.Userns, error){
			"mode":       func() (ask.Userns, error) { return usernsOf(mode, nil, nil) },
			"option":     func() (ask.Userns, error) { return usernsOf("", []string{"userns=" + mode}, nil) },
			"annotation": func() (ask.Userns, error) { return usernsOf("", nil, map[string]string{annotationUserns: mode}) },
			"podman":     func() (ask.Userns, error) { return usernsOf("", nil, map[string]string{annotationPodman: mode}) },
			"all": func() (ask.Userns, error) {
				return usernsOf(mode, []string{"userns=" + mode}, map[string]string{annotationUserns: mode, annotationPodman: mode})
			},
		} {
			if got, err := how(); err != nil || !cmp.Equal(want, got, sameMaps) {
				t.Errorf("%s by %s: %#v, %v", mode, channel, got, err)
			}
		}
	}
	for name, how := range map[string]func() (ask.Userns, error){
		"options": func() (ask.Userns, error) {
			return usernsOf("", []string{"uidmap=0:100000:1000", "uidmap=1000:5000:1", "gidmap=0:100000:1000,1000:5000:1"}, nil)
		},
		"one kind": func() (ask.Userns, error) { return usernsOf("", []string{"gidmap=0:100000:1000,1000:5000"}, nil) },
		"annotation": func() (ask.Userns, error) {
			return usernsOf("", nil, map[string]string{annotationUIDMap: "0:100000:1000,1000:5000:1"})
		},
		"both": func() (ask.Userns, error) {
			return usernsOf("", []string{"uidmap=0:100000:1000", "uidmap=1000:5000:1"}, map[string]string{annotationUIDMap: "0:100000:1000,1000:5000:1"})
		},
	} {
		if got, err := how(); err != nil || !cmp.Equal(got, ask.Userns(both), sameMaps) {
			t.Errorf("map by %s: %#v, %v", name, got, err)
		}
	}
	for _, how := range []func() (ask.Userns, error){
		func() (ask.Userns, error) { return usernsOf("", []string{"subuidname=alice", "subgidname=bob"}, nil) },
		func() (ask.Userns, error) {
			return usernsOf("", []string{"subuidname=alice"}, map[string]string{annotationSubUID: "alice", annotationSubGID: "bob"})
		},
	} {
		if got, err := how(); err != nil || got.(ask.UsernsMap).SubUID != "alice" || got.(ask.UsernsMap).SubGID != "bob" {
			t.Errorf("names: %#v, %v", got, err)
		}
	}
}

func TestUsernsRefusals(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	for _, tc := range []struct {
		mode  string
		opts  []string
		notes map[string]string
		bad   string
	}{
		{"host", []string{"userns=auto"}, nil, "asked for twice"},
		{"", []string{"userns=auto", "userns=host"}, nil, "asked for twice"},
		{"keep-id", nil, map[string]string{annotationPodman: "nomap"}, "asked for twice"},
		{"", []string{"uidmap=0:1:1"}, map[string]string{annotationUIDMap: "0:2:1"}, "asked for twice"},
		{"", []string{"subuidname=a"}, map[string]string{annotationSubUID: "b"}, "asked for twice"},
		{"host", []string{"uidmap=0:1:1"}, nil, ""},
		{"host", []string{"subuidname=a"}, nil, ""},
		{"auto:size=0", nil, nil, ""},
		{"auto:size=-1", nil, nil, ""},
		{"keep-id:uid=-1", nil, nil, ""},
		{"keep-id:uid=4294967295", nil, nil, ""},
		{"auto:uidmapping=1", nil, nil, ""},
		{"container:", nil, nil, ""},
		{"ns:", nil, nil, ""},
		{"odd", nil, nil, ""},
		{"höst", nil, nil, ""},
		{"host\x00", nil, nil, ""},
		{"keep-id:uid=１", nil, nil, ""},
		{long, nil, nil, ""},
		{"auto:size=" + long, nil, nil, ""},
		{"auto", []string{"userns=" + long}, nil, "asked for twice"},
		{"", []string{"uidmap=" + long}, nil, ""},
		{"", []string{"uidmap=" + strings.Repeat("0:1:1,", 50_000) + "0:1:1"}, nil, ""},
		{"", nil, map[string]string{annotationUserns: long}, ""},
		{"", []string{"uidmap=0"}, nil, "id map entry"},
		{"", []string{"uidmap=0:1:-1"}, nil, "id map entry"},
		{"", []string{"uidmap=0:1:2,1:9:1"}, nil, "overlap"},
	} {
		_, err := usernsOf(tc.mode, tc.opts, tc.notes)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tc.bad) || len(message(err)) > 1000 {
			t.Errorf("%.60q %.60q %v: %.300v", tc.mode, tc.opts, len(tc.notes), err)
		}
	}
}

// again is what a client asks for that makes a new container of what inspect
// shows, as watchtower and compose do.
func again(t *testing.T, c record.Container) ask.Container {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"Image": "busybox", "HostConfig": inspectOf(c).HostConfig})
	if err != nil {
		t.Fatal(err)
	}
	var body createBody
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	a, _, err := body.ask("", "")
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return a
}

// TestInspectIdentityRoundTrip: a container made of what inspect shows asks for
// the same ids again, whichever channel asked for them.
func TestInspectIdentityRoundTrip(t *testing.T) {
	spans := []idmap.Span{{In: 0, Out: 1000, N: 1}, {In: 1, Out: 5000, N: 10}}
	m, err := idmap.New(spans...)
	if err != nil {
		t.Fatal(err)
	}
	mapped := record.Identity{Mode: "map", UID: spans, GID: spans, Asked: "private"}
	both := ask.UsernsMap{Pair: idmap.Pair{UID: m, GID: m}}
	for name, tc := range map[string]struct {
		id    record.Identity
		notes map[string]string
		want  ask.Userns
	}{
		"default":           {record.Identity{Mode: "remap", UID: spans, GID: spans}, nil, ask.UsernsDefault{}},
		"host":              {record.Identity{Mode: "host", Asked: "host"}, nil, ask.UsernsHost{}},
		"auto":              {record.Identity{Mode: "auto", UID: spans, GID: spans, Asked: "auto:size=70000"}, nil, ask.UsernsAuto{Size: 70000}},
		"map":               {mapped, nil, both},
		"annotated map":     {mapped, map[string]string{annotationUIDMap: m.List()}, both},
		"keep-id":           {record.Identity{Mode: "keep-id", UID: spans, GID: spans, Asked: "keep-id"}, nil, ask.UsernsKeepID{}},
		"annotated keep-id": {record.Identity{Mode: "keep-id", Asked: "keep-id"}, map[string]string{annotationPodman: "keep-id"}, ask.UsernsKeepID{}},
		"nomap":             {record.Identity{Mode: "nomap", Asked: "nomap"}, nil, ask.UsernsNomap{}},
		"container":         {record.Identity{Mode: "container", Asked: "container:web", Joined: "abc"}, nil, ask.UsernsContainer{Container: "abc"}},
		"annotated container": {record.Identity{Mode: "container", Asked: "container:web", Joined: "abc"},
			map[string]string{annotationUserns: "container:web"}, ask.UsernsContainer{Container: "web"}},
		"joined by its network": {record.Identity{Mode: "container", Joined: "abc"}, nil, ask.UsernsDefault{}},
		"ns":                    {record.Identity{Mode: "ns", Asked: "ns:/run/a", Joined: "/run/a"}, nil, ask.UsernsPath{Path: "/run/a"}},
	} {
		a := again(t, record.Container{Identity: tc.id, Annotations: tc.notes})
		if !cmp.Equal(a.Userns, tc.want, sameMaps) || !maps.Equal(a.Annotations, tc.notes) {
			t.Errorf("%s: %#v %v", name, a.Userns, a.Annotations)
		}
	}
}

func TestInspectShowsIDMappings(t *testing.T) {
	c := record.Container{Identity: record.Identity{
		Mode: "auto", UID: []idmap.Span{{In: 0, Out: 1000, N: 1}, {In: 1, Out: 5000, N: 10}}, GID: []idmap.Span{{In: 0, Out: 2000, N: 9}},
	}}
	raw, err := json.Marshal(inspectOf(c))
	if err != nil {
		t.Fatal(err)
	}
	if want := `"IDMappings":{"UidMap":["0:1000:1","1:5000:10"],"GidMap":["0:2000:9"]}`; !strings.Contains(string(raw), want) || strings.Count(string(raw), `"HostConfig"`) != 1 {
		t.Errorf("no %s in %s", want, raw)
	}
	raw, err = json.Marshal(inspectOf(record.Container{Identity: record.Identity{Mode: "host"}}))
	if err != nil || strings.Contains(string(raw), "IDMappings") {
		t.Errorf("%s, %v", raw, err)
	}
}

// What a bind was asked to be mapped by is told back, so that a tool that makes the
// container again asks for the same, or is refused.
func TestInspectShowsIDMapping(t *testing.T) {
	for want, m := range map[string]record.MountMap{
		`"IDMapping":{"Source":"match-user","User":"999:999"}`: {Kind: "match-user", User: "999:999"},
		`"IDMapping":{"Source":"userns"}`:                      {Kind: "userns"},
		`"IDMapping":{"Source":"custom"}`:                      {Kind: "custom"},
	} {
		c := record.Container{Mounts: []record.Mount{{Kind: "bind", Source: "/a", Target: "/b", Recursive: true, Map: &m}}}
		raw, err := json.Marshal(inspectOf(c))
		if err != nil || !strings.Contains(string(raw), want) {
			t.Errorf("no %s in %s, %v", want, raw, err)
		}
		var back struct{ HostConfig hostBody }
		if err := json.Unmarshal(raw, &back); err != nil || len(back.HostConfig.Mounts) != 1 {
			t.Fatalf("%v, %+v", err, back)
		}
		asked, err := back.HostConfig.Mounts[0].ask()
		switch {
		case m.Kind == "custom":
			if err == nil {
				t.Error("a map that the API cannot say is left out")
			}
		case err != nil || asked.Map == nil || asked.Source != "/a":
			t.Errorf("%s: asked for again it is %+v, %v", want, asked, err)
		}
	}
}
