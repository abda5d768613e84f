package wire_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// samples has every type of ask.Userns, with every field set somewhere.
func samples(t testing.TB) []ask.Userns {
	t.Helper()
	m, err := idmap.New(idmap.Span{In: 0, Out: 1000, N: 1}, idmap.Span{In: 1, Out: 5000, N: 10})
	if err != nil {
		t.Fatal(err)
	}
	pair := idmap.Pair{UID: m, GID: m}
	zero, seven := idmap.Inside(0), idmap.Inside(7)
	return []ask.Userns{
		ask.UsernsDefault{}, ask.UsernsHost{}, ask.UsernsNomap{},
		ask.UsernsAuto{}, ask.UsernsAuto{Size: 7}, ask.UsernsAuto{Size: 1<<32 - 1, Extra: pair}, ask.UsernsAuto{Extra: idmap.Pair{GID: m}},
		ask.UsernsMap{Pair: pair}, ask.UsernsMap{Pair: idmap.Pair{UID: m}}, ask.UsernsMap{SubUID: "alice"}, ask.UsernsMap{Pair: pair, SubUID: "alice", SubGID: "bob"},
		ask.UsernsKeepID{}, ask.UsernsKeepID{UID: &zero}, ask.UsernsKeepID{UID: &seven, GID: &zero, Size: 9},
		ask.UsernsContainer{Container: "box"}, ask.UsernsPath{Path: "/proc/1/ns/user"},
	}
}

// sent is c after the way over the socket.
func sent(t *testing.T, c ask.Container) (ask.Container, error) {
	t.Helper()
	raw, err := json.Marshal(wire.PackContainer(c))
	if err != nil {
		t.Fatal(err)
	}
	var packed wire.Container
	if err := json.Unmarshal(raw, &packed); err != nil {
		t.Fatal(err)
	}
	return packed.Unpack()
}

func TestContainerSurvivesJSON(t *testing.T) {
	for _, u := range samples(t) {
		c := ask.Container{
			Image: "x", Userns: u, PID: ask.Space{Mode: ask.SpaceHost}, IPC: ask.Space{Mode: ask.SpacePrivate}, Network: "container:web",
			UTS: ask.Space{Mode: ask.SpaceContainer, Container: "box"}, Privileged: true, Caller: &ask.Caller{UID: 1000, GID: 100},
		}
		if got, err := sent(t, c); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%#v: got %#v, %v", u, got, err)
		}
	}
	if got, err := sent(t, ask.Container{}); err != nil || got.Userns != (ask.UsernsDefault{}) {
		t.Errorf("no user namespace: %#v, %v", got.Userns, err)
	}
}

// TestEveryUsernsIsSampled reads the declarations: a type that is added to
// ask.Userns has to be added to samples, and so to the wire.
func TestEveryUsernsIsSampled(t *testing.T) {
	names, err := filepath.Glob("../../../words/ask/*.go")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	have := map[string]bool{}
	for _, u := range samples(t) {
		have[reflect.TypeOf(u).Name()] = true
	}
	found := 0
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok || f.Name.Name != "userns" || f.Recv == nil {
				return true
			}
			found++
			if name := f.Recv.List[0].Type.(*ast.Ident).Name; !have[name] {
				t.Errorf("ask.%s is not sampled: can the wire carry it?", name)
			}
			return true
		})
	}
	if found != len(have) {
		t.Errorf("%d types declared, %d sampled", found, len(have))
	}
}

func TestUnpackRefuses(t *testing.T) {
	for body, want := range map[string]string{
		`{"Userns":{"Kind":"map","UID":[{"N":0}]}}`:                  "length is zero",
		`{"Userns":{"Kind":"auto","GID":[{"N":1},{"N":1}]}}`:         "overlap",
		`{"Userns":{"Kind":"map"}}`:                                  "maps nothing",
		`{"Userns":{"Kind":"container"}}`:                            "names none",
		`{"Userns":{"Kind":"ns"}}`:                                   "names none",
		`{"Userns":{"Kind":"of a type that cannot be sent"}}`:        "unknown kind",
		`{"Userns":{"Kind":"` + strings.Repeat("k", 300_000) + `"}}`: "unknown kind",
		`{"PID":{"Mode":"shareable"}}`:                               "invalid PID mode",
		`{"UTS":{"Mode":"container"}}`:                               "needs the name or id",
		`{"IPC":{"Mode":"` + strings.Repeat("k", 300_000) + `"}}`:    "invalid IPC mode",
		`{"Cgroupns":{"Mode":"odd"}}`:                                "invalid CGROUP mode",
	} {
		var c wire.Container
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			t.Fatal(err)
		}
		_, err := c.Unpack()
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%.80s: %.300v", body, err)
		}
	}
}

// What Unpack takes, it takes again unchanged: nothing that gets in is read
// differently behind the door.
func FuzzUnpack(f *testing.F) {
	for _, u := range samples(f) {
		raw, err := json.Marshal(wire.PackContainer(ask.Container{Userns: u, PID: ask.Space{Mode: ask.SpaceContainer, Container: "a:b"}}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"Userns":{"Kind":"map","UID":[{"In":4294967295,"Out":4294967295,"N":4294967295}]},"IPC":{"Mode":"none","Container":"x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var packed wire.Container
		if json.Unmarshal(raw, &packed) != nil {
			return
		}
		c, err := packed.Unpack()
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("class of %v", err)
			}
			return
		}
		again, err := wire.PackContainer(c).Unpack()
		if c.Userns == nil || err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%#v became %#v, %v", c, again, err)
		}
	})
}
