package engine

import (
	"context"
	"slices"
	"strings"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func inside(n uint32) *idmap.Inside {
	id := idmap.Inside(n)
	return &id
}

func spans(t *testing.T, text ...string) []idmap.Span {
	t.Helper()
	m, err := idmap.ParseList(text)
	if err != nil {
		t.Fatal(err)
	}
	return m.Spans()
}

// made creates containers from named asks, one after the other, and returns
// the last record.
func made(t *testing.T, e *Engine, asks ...func(*ask.Container)) record.Container {
	t.Helper()
	var id string
	for _, edit := range asks {
		c, err := e.Create(context.Background(), wanted(edit))
		if err != nil {
			t.Fatal(err)
		}
		id = c.ID
	}
	rec, err := e.Inspect(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestEveryAskHasItsMap(t *testing.T) {
	pair, err := idmap.ParsePair([]string{"0:700000:10"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	extra, err := idmap.ParsePair([]string{"5:1000:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	high := pair
	if high.UID, err = idmap.ParseList([]string{"70000:1:1"}); err != nil {
		t.Fatal(err)
	}
	alice := &ask.Caller{UID: 1000, GID: 1000}
	for name, c := range map[string]struct {
		edit func(*ask.Container)
		mode string
		uid  []string
		user string
	}{
		"default":                {nil, "auto", []string{"0:524288:65536"}, ""},
		"auto":                   {func(a *ask.Container) { a.Userns = ask.UsernsAuto{} }, "auto", []string{"0:524288:65536"}, ""},
		"auto, sized":            {func(a *ask.Container) { a.Userns = ask.UsernsAuto{Size: 100} }, "auto", []string{"0:524288:100"}, ""},
		"auto, for a high user":  {func(a *ask.Container) { a.User = "70000:90000" }, "auto", []string{"0:524288:90001"}, "70000:90000"},
		"auto, for a high group": {func(a *ask.Container) { a.Groups = []string{"100000", "audio"} }, "auto", []string{"0:524288:100001"}, ""},
		"auto with extra":        {func(a *ask.Container) { a.Userns = ask.UsernsAuto{Extra: extra} }, "auto", []string{"0:524288:5", "5:1000:1", "6:524294:65530"}, ""},
		"nomap":                  {func(a *ask.Container) { a.Userns = ask.UsernsNomap{} }, "nomap", []string{"0:524288:65536"}, ""},
		"host":                   {func(a *ask.Container) { a.Userns = ask.UsernsHost{} }, "host", nil, ""},
		"map":                    {func(a *ask.Container) { a.Userns = ask.UsernsMap{Pair: pair} }, "map", []string{"0:700000:10"}, ""},
		"names":                  {func(a *ask.Container) { a.Userns = ask.UsernsMap{SubUID: "alice", SubGID: "alice"} }, "map", []string{"0:100000:65536"}, ""},
		"names and a map":        {func(a *ask.Container) { a.Userns = ask.UsernsMap{Pair: high, SubUID: "alice", SubGID: "alice"} }, "", nil, ""},
		"keep-id of a user":      {func(a *ask.Container) { a.Userns, a.Caller = ask.UsernsKeepID{}, alice }, "keep-id", []string{"0:524288:1000", "1000:1000:1", "1001:525289:64535"}, "1000:1000"},
		"keep-id of a user as 0": {func(a *ask.Container) { a.Userns, a.Caller = ask.UsernsKeepID{UID: inside(0), GID: inside(0)}, alice }, "keep-id", []string{"0:1000:1", "1:524289:65535"}, "0:0"},
		"keep-id, with a user":   {func(a *ask.Container) { a.Userns, a.Caller, a.User = ask.UsernsKeepID{}, alice, "daemon" }, "keep-id", []string{"0:524288:1000", "1000:1000:1", "1001:525289:64535"}, "daemon"},
		"keep-id for root":       {func(a *ask.Container) { a.Userns = ask.UsernsKeepID{UID: inside(33), GID: inside(33)} }, "keep-id", []string{"0:524288:33", "33:33:1", "34:524322:65502"}, "33:33"},
		"keep-id of root":        {func(a *ask.Container) { a.Userns = ask.UsernsKeepID{} }, "", nil, ""},
		"keep-id, root by uid":   {func(a *ask.Container) { a.Userns = ask.UsernsKeepID{UID: inside(0), GID: inside(0)} }, "", nil, ""},
		"path":                   {func(a *ask.Container) { a.Userns = ask.UsernsPath{Path: "/ns"} }, "ns", []string{"0:900000:1000"}, ""},
		"no such path":           {func(a *ask.Container) { a.Userns = ask.UsernsPath{Path: "/none"} }, "", nil, ""},
		"no such container":      {func(a *ask.Container) { a.Userns = ask.UsernsContainer{Container: "none"} }, "", nil, ""},
		"no such name":           {func(a *ask.Container) { a.Userns = ask.UsernsMap{SubUID: "bob", SubGID: "bob"} }, "", nil, ""},
		"privileged, mapped":     {func(a *ask.Container) { a.Privileged = true }, "", nil, ""},
		"privileged":             {func(a *ask.Container) { a.Userns, a.Privileged = ask.UsernsHost{}, true }, "host", nil, ""},
		"host processes, mapped": {func(a *ask.Container) { a.PID.Mode = ask.SpaceHost }, "", nil, ""},
		"host ipc, uts, cgroupns": {func(a *ask.Container) {
			a.IPC.Mode, a.UTS.Mode, a.Cgroupns.Mode = ask.SpaceHost, ask.SpaceHost, ask.SpaceHost
		}, "auto", []string{"0:524288:65536"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRooms()
			r.images["busybox"] = busybox
			e := r.engine(t)
			created, err := e.Create(context.Background(), wanted(c.edit))
			if c.mode == "" {
				if err == nil || r.left() != 0 {
					t.Fatalf("error %v, %d things left", err, r.left())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			rec, _ := e.Inspect(context.Background(), created.ID)
			if rec.Identity.Mode != c.mode || !slices.Equal(rec.Identity.UID, spans(t, c.uid...)) {
				t.Errorf("mode %s, uids %v", rec.Identity.Mode, rec.Identity.UID)
			}
			if c.user != "" && rec.User != c.user {
				t.Errorf("runs as %q, want %q", rec.User, c.user)
			}
			if rec.Identity.Since.IsZero() {
				t.Error("since when is not noted")
			}
		})
	}
}

// An image that names users beyond the usual range gets a longer one, without
// being mounted.
func TestSizedByWhatWasNotedAtUnpack(t *testing.T) {
	img := busybox
	img.Layers = []record.Layer{{DiffID: "a", MaxUID: 70000}, {DiffID: "b", PasswdGID: 80000}}
	rec := record.Container{User: "root"}
	if n, err := needed(0, &rec, img); n != 80001 || err != nil {
		t.Errorf("%d ids, %v", n, err)
	}
	if n, err := needed(10, &rec, img); n != 10 || err != nil {
		t.Errorf("asked for 10, %d ids, %v", n, err)
	}
	img.Layers[0].MaxUID = idmap.Max
	if _, err := needed(0, &rec, img); !fault.Is(err, fault.Unsupported) {
		t.Errorf("an image with id 4294967294: %v", err)
	}
}

func named(name string, edit func(*ask.Container)) func(*ask.Container) {
	return func(a *ask.Container) {
		a.Name = name
		if edit != nil {
			edit(a)
		}
	}
}

func TestDonorsUserNamespace(t *testing.T) {
	host := func(a *ask.Container) { a.Userns = ask.UsernsHost{} }
	net := func(name string) func(*ask.Container) {
		return func(a *ask.Container) { a.Network = ask.Network("container:" + name) }
	}
	both := func(a *ask.Container) {
		a.Network, a.IPC = "container:one", ask.Space{Mode: ask.SpaceContainer, Container: "two"}
	}
	for name, c := range map[string]struct {
		asks   []func(*ask.Container)
		mode   string
		joined bool
	}{
		"a mapped donor's":       {[]func(*ask.Container){named("one", nil), net("one")}, "container", true},
		"an unmapped donor":      {[]func(*ask.Container){named("one", host), net("one")}, "auto", false},
		"unmapped with a mapped": {[]func(*ask.Container){named("one", nil), func(a *ask.Container) { net("one")(a); host(a) }}, "host", false},
		"own range":              {[]func(*ask.Container){named("one", nil), func(a *ask.Container) { net("one")(a); a.Userns = ask.UsernsAuto{} }}, "auto", false},
		"asked for":              {[]func(*ask.Container){named("one", nil), func(a *ask.Container) { a.Userns = ask.UsernsContainer{Container: "one"} }}, "container", true},
		"two in one":             {[]func(*ask.Container){named("one", nil), named("two", net("one")), both}, "container", true},
		"two, one unmapped":      {[]func(*ask.Container){named("one", host), named("two", nil), both}, "container", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRooms()
			r.images["busybox"] = busybox
			rec := made(t, r.engine(t), c.asks...)
			if rec.Identity.Mode != c.mode || (rec.Identity.Joined != "") != c.joined {
				t.Errorf("mode %s, joined %q", rec.Identity.Mode, rec.Identity.Joined)
			}
		})
	}
}

func TestSharingRefused(t *testing.T) {
	for name, c := range map[string]struct {
		donors []func(*ask.Container)
		edit   func(*ask.Container)
		words  string
	}{
		"two user namespaces": {
			[]func(*ask.Container){named("one", nil), named("two", nil)},
			func(a *ask.Container) {
				a.Network, a.IPC = "container:one", ask.Space{Mode: ask.SpaceContainer, Container: "two"}
			}, "different user namespaces",
		},
		"private ipc": {
			[]func(*ask.Container){named("one", func(a *ask.Container) { a.IPC.Mode = ask.SpacePrivate })},
			func(a *ask.Container) { a.IPC = ask.Space{Mode: ask.SpaceContainer, Container: "one"} }, "non-shareable IPC",
		},
		"the host's user namespace by a container": {
			[]func(*ask.Container){named("one", func(a *ask.Container) { a.Userns = ask.UsernsHost{} })},
			func(a *ask.Container) { a.Userns = ask.UsernsContainer{Container: "one"} }, "it has none of its own",
		},
		"the host's network by a container": {
			[]func(*ask.Container){named("one", func(a *ask.Container) { a.Userns, a.Network = ask.UsernsHost{}, ask.NetHost })},
			func(a *ask.Container) { a.Network = "container:one" }, "cannot share the host's network namespace when user namespaces are enabled",
		},
		"the host's processes by a container": {
			[]func(*ask.Container){named("one", func(a *ask.Container) { a.Userns, a.PID.Mode = ask.UsernsHost{}, ask.SpaceHost })},
			func(a *ask.Container) { a.PID = ask.Space{Mode: ask.SpaceContainer, Container: "one"} }, "cannot share the host PID namespace when user namespaces are enabled",
		},
		"nobody": {
			nil, func(a *ask.Container) { a.UTS = ask.Space{Mode: ask.SpaceContainer, Container: "none"} }, "No such container: none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRooms()
			r.images["busybox"] = busybox
			e := r.engine(t)
			for _, d := range c.donors {
				made(t, e, d)
			}
			before := r.left()
			_, err := e.Create(context.Background(), wanted(c.edit))
			if err == nil || !strings.Contains(err.Error(), c.words) || r.left() != before {
				t.Errorf("%v, %d more things held", err, r.left()-before)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e := r.engine(t)
	rec := made(t, e, named("box", nil))
	pair := pairFrom(t, 0)
	next, err := e.Update(context.Background(), "box", ask.UsernsMap{Pair: pair}, nil)
	if err != nil || next.Identity.Mode != "map" || next.Identity.Lease != nil {
		t.Fatalf("%+v, %v", next.Identity, err)
	}
	if _, held := r.leases[rec.ID]; held || len(r.leases) != 0 {
		t.Errorf("leases left: %v", r.leases)
	}
	if _, err := e.Update(context.Background(), "box", ask.UsernsContainer{Container: "none"}, nil); err == nil {
		t.Error("updated to the ids of nobody")
	}
	r.storeErr = fault.New(fault.Exhausted, "write", "", "no space left on device", "")
	if _, err := e.Update(context.Background(), "box", ask.UsernsAuto{}, nil); !fault.Is(err, fault.Exhausted) {
		t.Errorf("full disk: %v", err)
	}
	if now, _ := e.Inspect(context.Background(), "box"); now.Identity.Mode != "map" || len(r.leases) != 0 {
		t.Errorf("after a failure: %+v, leases %v", now.Identity, r.leases)
	}
}

func TestWho(t *testing.T) {
	r := newRooms()
	r.images["busybox"] = busybox
	e := r.engine(t)
	rec := made(t, e, named("web", nil))
	uid := uint32(524288 + 101)
	w, err := e.Who(context.Background(), ask.Who{Asked: "524389", UID: &uid})
	if err != nil || w.UID == nil || w.UID.Container != rec.ID || w.UID.Inside != 101 || w.UID.Name != "web" || len(w.UID.Claims) != 1 {
		t.Errorf("%+v, %v", w.UID, err)
	}
	alice := uint32(1000)
	if w, err = e.Who(context.Background(), ask.Who{Asked: "1000", UID: &alice, GID: &alice}); err != nil || w.UID.HostName != "alice" || w.UID.Container != "" || w.GID == nil {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err = e.Who(context.Background(), ask.Who{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("nothing asked: %v", err)
	}
}
