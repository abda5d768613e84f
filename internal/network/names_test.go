package network

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"fief/internal/words/record"
)

// empty is a bucket without records.
type empty struct{}

func (empty) Put(string, any) error                 { return nil }
func (empty) Delete(string) error                   { return nil }
func (empty) Each(func(string, []byte) error) error { return nil }

// TestHosts: who is known by which names, in which order, and that everything
// that changes it is told of.
func TestHosts(t *testing.T) {
	r, err := Open(Config{Networks: empty{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.names.Shutdown()
	seen := r.Version()
	changed := func(what string) {
		t.Helper()
		if v := r.Version(); v == seen {
			t.Errorf("nobody is told of %s", what)
		}
		seen = r.Version()
	}
	nets := map[string]*network{}
	for _, n := range []record.Network{{Name: "inner", Internal: true}, {Name: "outer"}, {Name: "zone"}, {Name: "other"}} {
		n.ID, n.Driver = FixedID(n.Name), driverBridge
		nets[n.Name] = r.add(n)
	}
	nets["bridge"] = r.named(DefaultName)
	adopt := func(id, name string, eps ...record.Endpoint) record.Net {
		for i := range eps {
			eps[i].NetworkID, eps[i].ID = FixedID(eps[i].Network), id+eps[i].Network
		}
		n := record.Net{Endpoints: eps}
		r.Adopt(Who{id, name, "h-" + name}, n)
		changed(name)
		return n
	}
	four := func(s string) netip.Prefix { return netip.MustParsePrefix(s + "/24") }
	adopt("111111111111111", "db", record.Endpoint{Network: "zone", IP4: four("10.3.0.5"), Aliases: []string{"sql"}})
	adopt("222222222222222", "far", record.Endpoint{Network: "other", IP4: four("10.4.0.5")})
	adopt("333333333333333", "plain", record.Endpoint{Network: "bridge", IP4: four("10.5.0.5")})
	net := adopt("aaaaaaaaaaaaaaa", "web",
		record.Endpoint{Network: "bridge", IP4: four("10.5.0.2")},
		record.Endpoint{Network: "inner", IP4: four("10.1.0.2")},
		record.Endpoint{Network: "outer", IP4: four("10.2.0.2"), IP6: netip.MustParsePrefix("fd02::2/64")},
		record.Endpoint{Network: "zone", IP4: four("10.3.0.2"), GwPriority: 1, Links: []string{"db:store", "db:sql", "db:db", "nobody:x"}})
	show := func(container string) string {
		var out []string
		for _, h := range r.Hosts(container) {
			line := h.Network + ": " + strings.Join(h.Names, " ")
			for _, a := range h.Addrs {
				line += " " + a.String()
			}
			out = append(out, line)
		}
		return strings.Join(out, "\n")
	}
	list := strings.Split(show("aaaaaaaaaaaaaaa"), "\n")
	zone := list[:min(3, len(list))]
	slices.Sort(zone)
	want := []string{
		"zone: db sql 111111111111 h-db 10.3.0.5",
		"zone: store 10.3.0.5",
		"zone: web aaaaaaaaaaaa h-web 10.3.0.2",
		"outer: web aaaaaaaaaaaa h-web 10.2.0.2 fd02::2",
		"inner: web aaaaaaaaaaaa h-web 10.1.0.2",
	}
	if !slices.Equal(list, want) {
		t.Errorf("%s", strings.Join(list, "\n"))
	}
	if got := show("333333333333333"); got != "" {
		t.Errorf("on the default network: %s", got)
	}
	if got := show("111111111111111"); strings.Contains(got, "store") || !strings.Contains(got, "web") {
		t.Errorf("db knows %s", got)
	}
	r.Rename("111111111111111", "base")
	changed("a name")
	if got := show("aaaaaaaaaaaaaaa"); !strings.Contains(got, "base sql") {
		t.Errorf("renamed: %s", got)
	}
	if up, needed := r.upstream("aaaaaaaaaaaaaaa"); !needed || up.Closed {
		t.Errorf("%v, %v", up, needed)
	}
	r.Detach(record.Net{Endpoints: net.Endpoints[2:]})
	changed("a network that was left")
	if up, needed := r.upstream("aaaaaaaaaaaaaaa"); !needed || up.Closed {
		t.Errorf("it is on the default network and an internal one: %v, %v", up, needed)
	}
	r.Detach(record.Net{Endpoints: net.Endpoints[:1]})
	if up, needed := r.upstream("aaaaaaaaaaaaaaa"); !needed || !up.Closed {
		t.Errorf("it is on an internal network alone: %v, %v", up, needed)
	}
	r.Detach(record.Net{Endpoints: net.Endpoints[1:2]})
	if up, needed := r.upstream("aaaaaaaaaaaaaaa"); needed {
		t.Errorf("it is on no network: %v", up)
	}
}

func TestResolvNamed(t *testing.T) {
	host := []byte("nameserver 127.0.0.53\nsearch corp.example\noptions edns0 trust-ad\n")
	for _, c := range []struct {
		net  record.Net
		want string
	}{
		{record.Net{}, "nameserver 127.0.0.11\nsearch corp.example\noptions edns0 trust-ad ndots:0\n"},
		{record.Net{DNS: []string{"9.9.9.9"}, DNSSearch: []string{"."}, DNSOptions: []string{"ndots:3"}}, "nameserver 127.0.0.11\noptions ndots:3\n"},
		{record.Net{DNSOptions: []string{"ndots:x"}}, "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:x ndots:0\n"},
	} {
		if got := string(resolvNamed(host, c.net)); got != c.want {
			t.Errorf("%+v: %q", c.net, got)
		}
	}
	if Resolves(record.Net{Endpoints: []record.Endpoint{{NetworkID: FixedID(DefaultName)}}}) || Resolves(record.Net{}) ||
		!Resolves(record.Net{Endpoints: []record.Endpoint{{NetworkID: FixedID(DefaultName)}, {NetworkID: "x"}}}) {
		t.Error("who has a resolver")
	}
}
