package resolver_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fief/internal/kernel/link"
	"fief/internal/network/resolver"
)

// neighbours is a container that is on two networks, with others.
func neighbours() map[string][]resolver.Host {
	return map[string][]resolver.Host{"one": {
		{Network: "front", Names: []string{"Web.1", "web", "0123456789ab"}, Addrs: addrs("10.77.0.3", "fd77::3")},
		{Network: "front", Names: []string{"web2", "web"}, Addrs: addrs("10.77.0.4")},
		{Network: "front", Names: []string{"one"}, Addrs: addrs("10.77.0.2")},
		{Network: "back.end", Names: []string{"db", "web"}, Addrs: addrs("10.78.0.5", "fd78::5")},
	}}
}

// TestContainer asks as programs of a container do, while one of them has port 53
// on all its addresses.
func TestContainer(t *testing.T) {
	s := newSpace(t)
	opened(t, new(directory).say(neighbours()), s, "one", resolver.Upstream{})
	err := link.Within(s.File, func() error {
		c, err := net.ListenPacket("udp4", "0.0.0.0:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		l, err := net.Listen("tcp4", "0.0.0.0:53")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatalf("a name server of the container's: %v", err)
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name string
			kind uint16
			want string
		}{
			{"web.1.", dns.TypeA, "10.77.0.3"},
			{"wEB.1.", dns.TypeAAAA, "fd77::3"},
			{"web2.", dns.TypeAAAA, ""},
			{"web.1.front.", dns.TypeA, "10.77.0.3"},
			{"0123456789ab.", dns.TypeA, "10.77.0.3"},
			{"web.back.end.", dns.TypeA, "10.78.0.5"},
			{"web.BACK.end.", dns.TypeAAAA, "fd78::5"},
			{"db.", dns.TypeMX, ""},
			{"db.", dns.TypeHTTPS, ""},
			{"db.", dns.TypeANY, "10.78.0.5"},
			{"4.0.77.10.in-addr.arpa.", dns.TypePTR, "web2.front."},
			{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.7.d.f.ip6.arpa.", dns.TypePTR, "db.back.end."},
		} {
			m := s.ask(t, network, question(c.name, c.kind))
			if got := addresses(m); got != c.want || m.Rcode != dns.RcodeSuccess || !m.RecursionAvailable {
				t.Errorf("%s %s: %s %q, not %q", network, c.name, dns.RcodeToString[m.Rcode], got, c.want)
			}
			if len(m.Answer) > 0 && (m.Answer[0].Header().Ttl != 600 || m.Answer[0].Header().Name != c.name) {
				t.Errorf("%s: %v", c.name, m.Answer[0])
			}
		}
	}
	if m := s.ask(t, "udp", question("nobody.", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that nobody can be asked for: %v", m)
	}
	first := map[string]bool{}
	for range 40 {
		both := strings.Fields(addresses(s.ask(t, "udp", question("web.", dns.TypeA))))
		if len(both) != 2 {
			t.Fatalf("web is %v, not the two of the first network", both)
		}
		first[both[0]] = true
	}
	if len(first) != 2 {
		t.Errorf("the first is always %v", first)
	}
	got, err := s.goResolver().LookupHost(context.Background(), "web.1.")
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{"10.77.0.3", "fd77::3"}) {
		t.Errorf("Go's resolver: %v, %v", got, err)
	}
	names, err := s.goResolver().LookupAddr(context.Background(), "10.77.0.4")
	if err != nil || !slices.Equal(names, []string{"web2.front."}) {
		t.Errorf("Go's resolver: %v, %v", names, err)
	}
}

func TestNslookup(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("tool: no busybox")
	}
	s := newSpace(t)
	opened(t, new(directory).say(neighbours()), s, "one", resolver.Upstream{})
	for name, want := range map[string]string{"web2": "10.77.0.4", "db.back.end": "fd78::5", "10.77.0.4": "web2.front"} {
		if out := s.run(t, "busybox nslookup "+name+" 127.0.0.11"); !strings.Contains(out, want) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestChanges: a name is there, and no more there, as soon as the directory says
// so; what another container may know is none of one's business.
func TestChanges(t *testing.T) {
	s := newSpace(t)
	d := new(directory).say(neighbours())
	opened(t, d, s, "one", resolver.Upstream{})
	hosts := neighbours()
	hosts["other"], hosts["one"] = hosts["one"], []resolver.Host{{Network: "front", Names: []string{"new"}, Addrs: addrs("10.77.0.9")}}
	d.say(hosts)
	if got := addresses(s.ask(t, "udp", question("new.", dns.TypeA))); got != "10.77.0.9" {
		t.Errorf("new is %q", got)
	}
	if m := s.ask(t, "udp", question("db.", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("db is still there: %v", m)
	}
}

// TestNextDaemon: what an earlier daemon has left in the namespace is taken up,
// and a program that has the resolver's port is in nobody's way.
func TestNextDaemon(t *testing.T) {
	s := newSpace(t)
	d := new(directory).say(neighbours())
	first := opened(t, d, s, "one", resolver.Upstream{})
	if got := addresses(s.ask(t, "tcp", question("web2.", dns.TypeA))); got != "10.77.0.4" {
		t.Fatalf("web2 is %q", got)
	}
	first.Shutdown()
	if m, err := s.exchange("udp", question("web2.", dns.TypeA)); err == nil {
		t.Errorf("nobody answers: %v", m)
	}
	second := opened(t, d, s, "one", resolver.Upstream{})
	for _, network := range []string{"udp", "tcp"} {
		if got := addresses(s.ask(t, network, question("web2.", dns.TypeA))); got != "10.77.0.4" {
			t.Errorf("web2 is %q", got)
		}
	}
	second.Close("one")
	err := link.Within(s.File, func() error {
		c, err := net.ListenPacket("udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), resolver.Port("one")).String())
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	open(t, second, s, "one", resolver.Upstream{})
	if got := addresses(s.ask(t, "udp", question("web2.", dns.TypeA))); got != "10.77.0.4" {
		t.Errorf("web2 is %q", got)
	}
}

// TestNothingHeld: a closed resolver does not keep the namespace alive, not even
// with connections and with questions that are on their way.
func TestNothingHeld(t *testing.T) {
	inside, outside := wired(t)
	up := resolver.Upstream{Servers: []resolver.Server{{Addr: netip.MustParseAddrPort("10.77.0.9:53")}}} // nobody has it
	r := resolver.New(new(directory).say(neighbours()), slog.New(slog.DiscardHandler))
	defer r.Shutdown()
	open(t, r, inside, "one", up)
	for _, network := range []string{"udp", "tcp"} {
		conn, err := inside.dial(network, "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		c := &dns.Conn{Conn: conn}
		if err := c.WriteMsg(question("example.com.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		time.AfterFunc(time.Second, func() { conn.Close() }) // else it is this process that holds it
	}
	before := time.Now()
	r.Close("one")
	if took := time.Since(before); took > 9*time.Second {
		t.Errorf("it took %v", took)
	}
	inside.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if out, err := outside.try("ip link show up0"); err != nil && strings.Contains(out, "does not exist") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the namespace is still there")
		}
	}
}

// TestSlowStreams: connections that say nothing, or half of something, are
// bounded and end, and keep nobody from being answered by datagram.
func TestSlowStreams(t *testing.T) {
	s := newSpace(t)
	r := opened(t, new(directory).say(neighbours()), s, "one", resolver.Upstream{})
	var conns []net.Conn
	for range 80 {
		c, err := s.dial("tcp", "127.0.0.11:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{0, 200, 1, 2, 3})
		conns = append(conns, c)
	}
	if got := addresses(s.ask(t, "udp", question("web2.", dns.TypeA))); got != "10.77.0.4" {
		t.Errorf("web2 is %q", got)
	}
	ended := func(c net.Conn, wait time.Duration) bool {
		c.SetReadDeadline(time.Now().Add(wait))
		_, err := c.Read(make([]byte, 1))
		return err != nil && !os.IsTimeout(err)
	}
	if !ended(conns[len(conns)-1], 30*time.Second) {
		t.Error("there is no bound to connections")
	}
	if !ended(conns[0], time.Minute) {
		t.Error("a connection that says nothing is never ended")
	}
	r.Close("one")
}
