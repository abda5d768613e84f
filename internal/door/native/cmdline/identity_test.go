package cmdline_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fief/internal/door/native/cmdline"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

var sameMaps = cmp.Comparer(func(a, b idmap.Map) bool { return a.Equal(b) })

func TestIdentity(t *testing.T) {
	uid, gid := idmap.Inside(7), idmap.Inside(8)
	for words, want := range map[string]ask.Userns{
		"":                         ask.UsernsDefault{},
		"--userns host":            ask.UsernsHost{},
		"--userns auto":            ask.UsernsAuto{},
		"--userns auto:size=70000": ask.UsernsAuto{Size: 70000},
		"--userns keep-id":         ask.UsernsKeepID{},
		"--userns keep-id:uid=7,gid=8,size=70000": ask.UsernsKeepID{UID: &uid, GID: &gid, Size: 70000},
		"--userns nomap":                      ask.UsernsNomap{},
		"--userns container:web":              ask.UsernsContainer{Container: "web"},
		"--userns ns:/run/ns/a":               ask.UsernsPath{Path: "/run/ns/a"},
		"--userns host --userns auto":         ask.UsernsAuto{},
		"--subuidname alice":                  ask.UsernsMap{SubUID: "alice", SubGID: "alice"},
		"--subuidname alice --subgidname bob": ask.UsernsMap{SubUID: "alice", SubGID: "bob"},
	} {
		if got := run(t, strings.Fields(words)...).Ask.Userns; !cmp.Equal(got, want, sameMaps) {
			t.Errorf("%q: %#v", words, got)
		}
	}
	u := run(t, "--uidmap", "0:1000:1,1:5000:10", "--uidmap", "100:9000:5").Ask.Userns.(ask.UsernsMap)
	if want := "0 1000 1\n1 5000 10\n100 9000 5\n"; u.Pair.UID.String() != want || u.Pair.GID.String() != want {
		t.Errorf("uid %q gid %q", u.Pair.UID, u.Pair.GID)
	}
	u = run(t, "--uidmap", "0:1000:1", "--gidmap", "0:2000:2,u5:1:1,+g1:@3000").Ask.Userns.(ask.UsernsMap)
	if u.Pair.UID.String() != "0 1000 1\n" || u.Pair.GID.String() != "0 2000 1\n1 3000 1\n" {
		t.Errorf("uid %q gid %q", u.Pair.UID, u.Pair.GID)
	}
}

func TestSpaces(t *testing.T) {
	web := ask.Space{Mode: ask.SpaceContainer, Container: "web"}
	for words, want := range map[string]ask.Container{
		"": {Network: ask.NetBridge},
		"--pid private --ipc private --uts private --cgroupns private": {IPC: ask.Space{Mode: ask.SpacePrivate}, Network: ask.NetBridge},
		"--pid= --ipc= --uts= --cgroupns= --network=":                  {Network: ask.NetBridge},
		"--pid host --net host":                                        {PID: ask.Space{Mode: ask.SpaceHost}, Network: ask.NetHost},
		"--ipc host --uts host --cgroupns host": {IPC: ask.Space{Mode: ask.SpaceHost}, UTS: ask.Space{Mode: ask.SpaceHost},
			Cgroupns: ask.Space{Mode: ask.SpaceHost}, Network: ask.NetBridge},
		"--pid container:web --ipc=container:web --uts=container:web --cgroupns=container:web --network container:web": {
			PID: web, IPC: web, UTS: web, Cgroupns: web, Network: "container:web"},
		"--ipc shareable":                    {Network: ask.NetBridge},
		"--ipc none":                         {IPC: ask.Space{Mode: ask.SpaceNone}, Network: ask.NetBridge},
		"--privileged --userns host":         {Privileged: true, Network: ask.NetBridge},
		"--privileged":                       {Privileged: true, Network: ask.NetBridge},
		"--privileged=false -h a":            {Network: ask.NetBridge},
		"--network container:web --pid host": {PID: ask.Space{Mode: ask.SpaceHost}, Network: "container:web"},
	} {
		a := run(t, strings.Fields(words)...).Ask
		if a.PID != want.PID || a.IPC != want.IPC || a.UTS != want.UTS || a.Cgroupns != want.Cgroupns || a.Network != want.Network || a.Privileged != want.Privileged {
			t.Errorf("%q: %+v", words, a)
		}
	}
}

func TestIdentityRefusals(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	for _, tc := range []struct{ words, want string }{
		{"--userns keep", "keep"},
		{"--userns host\x00", ""},
		{"--userns höst", ""},
		{"--userns " + long, ""},
		{"--userns auto:size=" + long, ""},
		{"--userns auto:size=0", ""},
		{"--userns auto:size=-1", ""},
		{"--userns auto:size=4294967296", ""},
		{"--userns auto:size", ""},
		{"--userns auto:", ""},
		{"--userns keep-id:uid=-1", ""},
		{"--userns keep-id:uid=４", ""},
		{"--userns keep-id:gid=4294967295", ""},
		{"--userns container:", ""},
		{"--userns ns:", ""},
		{"--uidmap 0:0:0", "0:0:0"},
		{"--uidmap 0:-1:1", "id map entry"},
		{"--uidmap " + long, "id map entry"},
		{"--uidmap " + strings.Repeat("0:1:1,", 50_000), ""},
		{"--uidmap 0:1:1 --userns host", "--uidmap"},
		{"--gidmap 0:1:1 --userns keep-id", "--uidmap"},
		{"--subuidname a --userns auto", "--subuidname"},
		{"--pid odd", `--pid: invalid PID mode: "odd"`},
		{"--pid shareable", `--pid: invalid PID mode: "shareable"`},
		{"--pid container:", "--pid: invalid PID mode"},
		{"--pid " + long, "--pid: invalid PID mode"},
		{"--ipc HOST", `--ipc: invalid IPC mode: "HOST"`},
		{"--ipc container", `--ipc: invalid IPC mode: "container"`},
		{"--uts none", `--uts: invalid UTS mode: "none"`},
		{"--cgroupns -1", `--cgroupns: invalid CGROUP mode: "-1"`},
		{"--cgroupns host\x00", `--cgroupns: invalid CGROUP mode: "host\x00"`},
		{"--network container:", "invalid network mode: invalid container format container:<name|id>"},
		{"--net container", "invalid network mode: invalid container format container:<name|id>"},
		{"--network container:a --hostname b", "conflicting options: hostname and the network mode"},
		{"--uts host --hostname b", "conflicting options: hostname and the UTS mode"},
		{"--uts container:a -h b", "conflicting options: hostname and the UTS mode"},
		{"--uts host --domainname b", "conflicting options: domainname and the UTS mode"},
		{"--privileged=maybe", "invalid"},
	} {
		_, err := cmdline.ParseRun(append(strings.Split(tc.words, " "), "img"), client(t))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tc.want) || fault.ExitCodeOf(err) != 125 || len(err.Error()) > 1000 {
			t.Errorf("%.60q: %.300v", tc.words, err)
		}
	}
}

// TestCaller: whose ids sudo(8) was called with is told where it matters, and
// what is no id is not.
func TestCaller(t *testing.T) {
	for _, tc := range []struct {
		words string
		env   map[string]string
		want  *ask.Caller
	}{
		{"--userns keep-id", map[string]string{"SUDO_UID": "1000", "SUDO_GID": "100"}, &ask.Caller{UID: 1000, GID: 100}},
		{"--userns keep-id:uid=5", map[string]string{"SUDO_UID": "4294967294", "SUDO_GID": "0"}, &ask.Caller{UID: 4294967294}},
		{"--userns nomap", map[string]string{"SUDO_UID": "1000", "SUDO_GID": "100"}, &ask.Caller{UID: 1000, GID: 100}},
		{"", map[string]string{"SUDO_UID": "1000", "SUDO_GID": "100"}, nil},
		{"--userns auto", map[string]string{"SUDO_UID": "1000", "SUDO_GID": "100"}, nil},
		{"--userns keep-id", nil, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "1000"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_GID": "1000"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "0", "SUDO_GID": "0"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "-1", "SUDO_GID": "100"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "4294967295", "SUDO_GID": "100"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "1000", "SUDO_GID": "4294967295"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "1000 ", "SUDO_GID": "100"}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "", "SUDO_GID": ""}, nil},
		{"--userns keep-id", map[string]string{"SUDO_UID": "root", "SUDO_GID": "0x10"}, nil},
	} {
		c := cmdline.Client{Dir: "/", Lookup: func(n string) (string, bool) { v, ok := tc.env[n]; return v, ok }}
		r, err := cmdline.ParseRun(append(strings.Fields(tc.words), "img"), c)
		if err != nil || !reflect.DeepEqual(r.Ask.Caller, tc.want) {
			t.Errorf("%q %v: %+v, %v", tc.words, tc.env, r.Ask.Caller, err)
		}
	}
}
