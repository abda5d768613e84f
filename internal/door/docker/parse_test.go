package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func TestEveryClassHasAStatus(t *testing.T) {
	want := map[fault.Class]int{
		fault.Internal: 500, fault.Invalid: 400, fault.NotFound: 404, fault.Exists: 409, fault.Conflict: 409, fault.Busy: 409,
		fault.Denied: 403, fault.Unsupported: 501, fault.Exhausted: 507, fault.Unavailable: 503, fault.Canceled: 499,
		fault.Corrupt: 500, fault.NotModified: 304,
	}
	for class := fault.Internal; class <= fault.NotModified; class++ {
		if got := statusOf(fault.Say(class, "x")); got != want[class] {
			t.Errorf("%v: %d, want %d", class, got, want[class])
		}
	}
	if got := statusOf(errors.New("plain")); got != 500 {
		t.Error(got)
	}
	if got := statusOf(context.Canceled); got != 499 {
		t.Error(got)
	}
	if got := message(fault.New(fault.Invalid, "do", "it", "why", "do that")); got != "cannot do it: why\ndo that" {
		t.Error(got)
	}
}

func TestParseBind(t *testing.T) {
	bind := func(m ask.Mount) ask.Mount {
		m.Kind, m.Recursive, m.CreateSrc = ask.Bind, true, true
		return m
	}
	for raw, want := range map[string]ask.Mount{
		"/a:/b":             bind(ask.Mount{Source: "/a", Target: "/b"}),
		"/a/../c:/b/":       bind(ask.Mount{Source: "/c", Target: "/b"}),
		"/a:/b:ro,rslave,z": bind(ask.Mount{Source: "/a", Target: "/b", ReadOnly: true, Propagation: "rslave"}),
		"/a:/b:rw,cached":   bind(ask.Mount{Source: "/a", Target: "/b"}),
		"/a:/b:U,idmap":     bind(ask.Mount{Source: "/a", Target: "/b", Chown: true, Map: &record.MountMap{Kind: "userns"}}),
		"/a:/b:rro,noexec":  bind(ask.Mount{Source: "/a", Target: "/b", ReadOnly: true, NoExec: true}),
		"/b":                {Kind: ask.Volume, Target: "/b"},
		"vol:/b":            {Kind: ask.Volume, Short: true, Source: "vol", Target: "/b"},
		"vol:/b:nocopy,ro":  {Kind: ask.Volume, Short: true, Source: "vol", Target: "/b", ReadOnly: true, NoCopy: true},
	} {
		got, err := parseBind(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", raw, got, err)
		}
	}
	for raw, want := range map[string]string{
		"":               "mount path must be absolute",
		"/a:ro":          "invalid volume specification",
		"/a:rel":         "mount path must be absolute",
		"/a:/":           "destination can't be '/'",
		"/a:/b/..":       "destination can't be '/'",
		"/a:/b:ro,rw":    "invalid mode: ro,rw",
		"/a:/b:":         "invalid mode: ",
		"/a:/b:U,U":      "the 'U' option can only be set once",
		"/a:/b:odd":      "invalid mode: odd",
		"/a:/b:idmap=x":  "cannot use idmap x",
		"v:/b":           "volume name is too short",
		"/a:/b:nocopy":   "invalid mode: nocopy",
		"vol:/b:rshared": "invalid mode: rshared",
		":/b":            "invalid volume specification",
		"a:b:c:d":        "invalid volume specification",
		"v/w:/b":         "invalid characters for a local volume name",
	} {
		_, err := parseBind(raw)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// What is wrong with an entry of HostConfig.Mounts, in dockerd's words.
func TestMountRefusals(t *testing.T) {
	for body, want := range map[string]string{
		`{"Type":"bind","Target":"/b"}`:                                                     `invalid mount config for type "bind": field Source must not be empty`,
		`{"Type":"bind","Source":"a","Target":"/b"}`:                                        `invalid mount config for type "bind": invalid mount path: 'a' mount path must be absolute`,
		`{"Type":"bind","Source":"/a"}`:                                                     `invalid mount config for type "bind": field Target must not be empty`,
		`{"Type":"bind","Source":"/a","Target":"b"}`:                                        `invalid mount config for type "bind": invalid mount path: 'b' mount path must be absolute`,
		`{"Type":"bind","Source":"/a","Target":"/"}`:                                        `invalid mount config for type "bind": invalid specification: destination can't be '/'`,
		`{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"odd"}}`:   `invalid mount config for type "bind": invalid propagation mode: odd`,
		`{"Type":"odd","Target":"/b"}`:                                                      `invalid mount config for type "odd": mount type unknown`,
		`{"Type":"tmpfs","Source":"a","Target":"/b"}`:                                       `invalid mount config for type "tmpfs": field Source must not be specified`,
		`{"Type":"image","Target":"/b"}`:                                                    `invalid mount config for type "image": field Source must not be empty`,
		`{"Type":"image","Source":"i","Target":"/b","ImageOptions":{"Subpath":"/x"}}`:       `invalid mount config for type "image": Subpath: must be a relative path within the image`,
		`{"Type":"volume","Target":"/b","VolumeOptions":{"Subpath":"x"}}`:                   `invalid mount config for type "volume": must not set Subpath when using anonymous volumes`,
		`{"Type":"volume","Source":"vol","Target":"/b","VolumeOptions":{"Subpath":"../x"}}`: `invalid mount config for type "volume": Subpath: must be a relative path within the volume`,
		`{"Type":"volume","Source":"v/l","Target":"/b"}`:                                    `invalid mount config for type "volume": "v/l" includes invalid characters`,
	} {
		var b mountBody
		if err := json.Unmarshal([]byte(body), &b); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ask(); !fault.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", body, err, want)
		}
	}
}

func TestTmpfs(t *testing.T) {
	got, err := parseTmpfs("/run/", "rw,noexec,nosuid,size=64m,mode=1770")
	if want := (ask.Mount{Kind: ask.Tmpfs, Target: "/run", TmpfsSize: 64 << 20, TmpfsMode: 0o1770}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"size=x", "mode=9", "mode=77777", "odd", "suid", "uid=x", "uid=1k", "huge=yes"} {
		if m, err := parseTmpfs("/run", bad); err == nil {
			t.Errorf("%s: %+v", bad, m)
		}
	}
}

func TestSecurityOptions(t *testing.T) {
	s, err := parseSecurity([]string{"no-new-privileges", "seccomp=unconfined", "label=disable", "apparmor=unconfined"})
	if err != nil || !s.noNewPrivs || s.seccomp.Mode != ask.SeccompUnconfined {
		t.Errorf("%+v %v", s, err)
	}
	s, err = parseSecurity([]string{"no-new-privileges:true", `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`})
	if err != nil || !s.noNewPrivs || s.seccomp.Mode != ask.SeccompProfile || len(s.seccomp.Profile) == 0 {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{"odd", "odd=x", "no-new-privileges:maybe", "seccomp=/etc/p.json", "label=type:x", "apparmor=p", "writable-cgroups=true"} {
		if _, err := parseSecurity([]string{bad}); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-@,x": "\x00x", "ctrl-[,ctrl-_": "\x1b\x1f"} {
		if got, err := parseDetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-A", "ab", "a,", "ctrl-p,,a"} {
		if got, err := parseDetachKeys(bad); err == nil {
			t.Errorf("%q: %q", bad, got)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Now()
	for in, want := range map[string]time.Time{
		"": {}, "0": {}, "0.000000000": {}, "1136073845": time.Unix(1136073845, 0), "1136073845.000000001": time.Unix(1136073845, 1),
		"1136073845.5": time.Unix(1136073845, 500_000_000), "2006-01-02T15:04:05Z": time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
	} {
		if got, err := parseTime("since", in); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
	if got, err := parseTime("since", "10m"); err != nil || now.Sub(got) < 9*time.Minute || now.Sub(got) > 11*time.Minute {
		t.Errorf("10m: %v %v", got, err)
	}
	for _, bad := range []string{"x", "1.1234567890", "1.x"} {
		if got, err := parseTime("since", bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestRegistryAuth(t *testing.T) {
	enc := func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) }
	want := ask.RegistryAuth{Username: "u", Password: "p?>", ServerAddress: "s"}
	for _, header := range []string{
		enc(`{"username":"u","password":"p?>","serveraddress":"s"}`),
		strings.TrimRight(enc(`{"username":"u","password":"p?>","serveraddress":"s"}`), "="),
		base64.StdEncoding.EncodeToString([]byte(`{"username":"u","password":"p?>","serveraddress":"s"}`)),
		enc(`{"auth":"` + base64.StdEncoding.EncodeToString([]byte("u:p?>")) + `","serveraddress":"s"}`),
	} {
		if got := registryAuth(header); got != want {
			t.Errorf("%s: %+v", header, got)
		}
	}
	for _, junk := range []string{"", "e30=", "%%%", enc("no json"), enc("null")} {
		if got := registryAuth(junk); got != (ask.RegistryAuth{}) {
			t.Errorf("%s: %+v", junk, got)
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"busybox", ""}: "docker.io/library/busybox", {"busybox", "1"}: "docker.io/library/busybox:1", {"busybox:2", "1"}: "docker.io/library/busybox:1",
		{"localhost:5000/a/b", "x"}: "localhost:5000/a/b:x", {"busybox:", ""}: "docker.io/library/busybox",
		{"busybox", "sha256:" + strings.Repeat("ab", 32)}: "docker.io/library/busybox@sha256:" + strings.Repeat("ab", 32),
	} {
		if got, err := normalName(in[0], in[1]); err != nil || got.String() != want {
			t.Errorf("%v: %v %v", in, got, err)
		}
	}
	if _, err := normalName("UPPER", ""); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	for pattern, want := range map[string]bool{"busybox": true, "busy*": true, "busybox:latest": true, "busybox:*": true, "b": false, "*/busybox": false} {
		if got := familiarMatch(pattern, "busybox:latest"); got != want {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}

func TestContainerFilters(t *testing.T) {
	c := record.Container{
		ID: "abcdef", Name: "web-1", Network: "none", Labels: map[string]string{"a": "b", "c": ""},
		Mounts: []record.Mount{{Kind: "bind", Target: "/data"}}, State: record.State{Status: record.Exited, ExitCode: 3},
	}
	for text, want := range map[string]bool{
		``: true, `{}`: true, `{"name":["web"]}`: true, `{"name":["^/web-1$"]}`: true, `{"name":["^web$"]}`: false, `{"name":["("]}`: false,
		`{"id":["abc"]}`: true, `{"label":["a=b","c"]}`: true, `{"label":["a=x"]}`: false, `{"label":{"a":true}}`: true, `{"label":{"z":false}}`: true,
		`{"status":["running","exited"]}`: true, `{"exited":["3"]}`: true, `{"exited":["0"]}`: false, `{"volume":["/data"]}`: true,
		`{"network":["none"]}`: true, `{"network":["host"]}`: false, `{"publish":["80"]}`: false, `{"health":["none"]}`: true, `{"is-task":["false"]}`: true,
	} {
		f, err := parseFilters(text, listFilters)
		if err == nil {
			err = f.checkList()
		}
		if err != nil || f.container(c) != want {
			t.Errorf("%s: want %v, %v", text, want, err)
		}
	}
	for _, bad := range []string{`{"status":["odd"]}`, `{"exited":["x"]}`, `{"health":["x"]}`, `{"odd":["x"]}`, `{"name":5}`, `[]`, `{`} {
		f, err := parseFilters(bad, listFilters)
		if err == nil {
			err = f.checkList()
		}
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestInspectRoundTrip: a container made of what inspect shows asks for the
// same again.
func TestInspectRoundTrip(t *testing.T) {
	c := record.Container{
		Image: "busybox", Path: "sh", Cmd: []string{"sh"}, Env: []string{"A=b"}, Network: "host", ReadOnly: true, ShmSize: 5 << 20,
		CapAdd: []string{"CAP_NET_ADMIN"}, SecurityOpt: []string{"no-new-privileges"}, Ulimits: []record.Ulimit{{Name: "nofile", Soft: 5, Hard: 6}},
		Mounts: []record.Mount{
			{Kind: "bind", Source: "/a", Target: "/b", ReadOnly: true, Recursive: true, Propagation: "rslave"},
			{Kind: "bind", Source: "/a:b", Target: "/c", Propagation: "private"},
			{Kind: "tmpfs", Target: "/u", TmpfsSize: 4096, TmpfsMode: 0o700, TmpfsExec: true},
		},
		Log: record.Log{Driver: "json-file", Options: map[string]string{"max-file": "2"}}, Identity: record.Identity{Mode: "map", UID: []idmap.Span{{In: 0, Out: 1000, N: 1}}, GID: []idmap.Span{{In: 0, Out: 2000, N: 1}, {In: 5, Out: 9, N: 1}}},
	}
	seen := inspectOf(c)
	raw, err := json.Marshal(map[string]any{"Image": c.Image, "Cmd": c.Cmd, "Env": c.Env, "HostConfig": seen.HostConfig})
	if err != nil {
		t.Fatal(err)
	}
	var body createBody
	if err := json.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	a, _, err := body.ask("", "")
	if err != nil {
		t.Fatal(err)
	}
	if u, explicit := a.Userns.(ask.UsernsMap); !explicit || u.Pair.UID.String() != "0 1000 1\n" || u.Pair.GID.String() != "0 2000 1\n5 9 1\n" {
		t.Errorf("%+v", a.Userns)
	}
	if a.Network != ask.NetHost || !a.ReadOnly || a.ShmSize != 5<<20 || !a.NoNewPrivs || len(a.Ulimits) != 1 || a.Log.Driver != "json-file" || a.Log.Options["max-file"] != "2" {
		t.Errorf("%+v", a)
	}
	want := []ask.Mount{
		{Kind: ask.Bind, Source: "/a", Target: "/b", ReadOnly: true, Recursive: true, CreateSrc: true, Propagation: "rslave"},
		{Kind: ask.Bind, Source: "/a:b", Target: "/c", Propagation: "private"},
		{Kind: ask.Tmpfs, Target: "/u", TmpfsSize: 4096, TmpfsMode: 0o700, TmpfsExec: true},
	}
	if diff := cmp.Diff(want, a.Mounts); diff != "" {
		t.Error(diff)
	}
}
