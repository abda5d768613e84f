package nft_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/link/linktest"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
)

func TestMain(m *testing.M) { os.Exit(linktest.Main(m)) }

// table is the tests' table.
const table = nft.Table("fief-test")

func addr(s string) link.Addr {
	p := netip.MustParsePrefix(s)
	return link.Addr{IP: p.Addr().AsSlice(), Bits: uint8(p.Bits())}
}

func via(s string) link.Route { return link.Route{Via: netip.MustParseAddr(s).AsSlice()} }

// bridge makes a bridge and tells it back when the test ends.
func bridge(t *testing.T, name string, addrs ...string) int32 {
	t.Helper()
	b := link.Bridge{Name: name, MAC: [6]byte{2, 0, 0, 0, 0, byte(len(name))}, Settings: []string{"ipv4/conf/" + name + "/route_localnet=1"}}
	for _, a := range addrs {
		b.Addrs = append(b.Addrs, addr(a))
	}
	index, err := b.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { link.Delete(name) })
	return index
}

// wire makes a namespace with eth0 on a bridge.
func wire(t *testing.T, p link.Port) linktest.Space {
	t.Helper()
	s := linktest.New(t)
	p.Name = "eth0"
	var w link.Wiring
	w.Connect(p)
	if err := w.Apply(s.File); err != nil {
		t.Fatal(err)
	}
	s.Up(t, "lo")
	return s
}

func publish(proto uint8, host, to string) nft.Port {
	return nft.Port{Proto: proto, Host: netip.MustParseAddrPort(host), To: netip.MustParseAddrPort(to)}
}

// TestPackets sends packets through a table with three networks: one as usual,
// one of the same kind, and an internal one.
func TestPackets(t *testing.T) {
	linktest.Alone(t)
	for _, s := range []string{"ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"} {
		if err := link.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	// Where bridges ask the tables about what they pass on themselves, a
	// rewritten packet never leaves the bridge and keeps its sender.
	neighbour, bridged := "10.91.1.1", link.Get("bridge/bridge-nf-call-iptables") == "1"
	if bridged {
		neighbour = "10.91.1.3"
	}
	one := bridge(t, "fi1", "10.91.1.1/24", "fd91:1::1/64")
	two := bridge(t, "fi22", "10.91.2.1/24")
	shut := bridge(t, "fi333", "10.91.3.1/24")
	outer := bridge(t, "outer0", "192.0.2.1/24", "2001:db8::1/64") // the world: no bridge of fief's

	a := wire(t, link.Port{Host: "va", Master: one, Hairpin: bridged, Addrs: []link.Addr{addr("10.91.1.2/24"), addr("fd91:1::2/64")}, Routes: []link.Route{via("10.91.1.1"), via("fd91:1::1")}})
	b := wire(t, link.Port{Host: "vb", Master: one, Addrs: []link.Addr{addr("10.91.1.3/24")}, Routes: []link.Route{via("10.91.1.1")}})
	c := wire(t, link.Port{Host: "vc", Master: two, Addrs: []link.Addr{addr("10.91.2.2/24")}, Routes: []link.Route{via("10.91.2.1")}})
	d := wire(t, link.Port{Host: "vd", Master: shut, Addrs: []link.Addr{addr("10.91.3.2/24")}, Routes: []link.Route{via("10.91.3.1")}})
	world := wire(t, link.Port{Host: "vw", Master: outer, Addrs: []link.Addr{addr("192.0.2.2/24"), addr("2001:db8::2/64")}, Routes: []link.Route{via("192.0.2.1"), via("2001:db8::1")}})

	state := nft.State{
		Bridges: []nft.Bridge{{Name: "fi1", Masquerade: true}, {Name: "fi22", Masquerade: true}, {Name: "fi333", Internal: true, Masquerade: true}},
		Ports: []nft.Port{
			publish(unix.IPPROTO_TCP, "0.0.0.0:8080", "10.91.1.2:80"), publish(unix.IPPROTO_TCP, "127.0.0.1:8081", "10.91.1.2:80"),
			publish(unix.IPPROTO_TCP, "[::]:8080", "[fd91:1::2]:80"),
		},
		Published: []netip.Addr{netip.MustParseAddr("10.91.1.2"), netip.MustParseAddr("fd91:1::2")},
	}
	if err := table.Replace(state); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Drop(); err != nil {
			t.Error(err)
		}
	})
	if ok, err := table.Intact(state); !ok || err != nil {
		t.Fatalf("intact %v, %v", ok, err)
	}
	for _, s := range []linktest.Space{a, b, c, d, world} {
		s.Serve(t, "80")
	}
	secret := linktest.Here(t).Echo(t, "tcp4", "127.0.0.1:0")
	secretAt := net.JoinHostPort("127.0.0.1", strconv.Itoa(secret))
	if err := link.Set("ipv4/conf/outer0/route_localnet=1"); err != nil { // a host that is careless
		t.Fatal(err)
	}
	for name, space := range map[string]linktest.Space{"a": a, "world": world} {
		if err := space.Do(func() error { // a neighbour that sends to 127.0.0.1 over the wire
			if err := link.Set("ipv4/conf/eth0/route_localnet=1"); err != nil {
				return err
			}
			return link.Set("ipv4/conf/lo/route_localnet=1")
		}); err != nil {
			t.Fatal(name, err)
		}
	}
	for _, tc := range []struct {
		what, to, from string
		ask            func(string) (string, error)
	}{
		{"one network", "10.91.1.3:80", "10.91.1.2", a.Ask},
		{"one network, IPv6 to itself", "[fd91:1::2]:80", "fd91:1::2", a.Ask},
		{"two networks", "10.91.2.2:80", "", a.Ask},
		{"two networks, back", "10.91.1.2:80", "", c.Ask},
		{"out", "192.0.2.2:80", "192.0.2.1", a.Ask},
		{"out, IPv6", "[2001:db8::2]:80", "2001:db8::1", a.Ask},
		{"out of an internal network", "192.0.2.2:80", "", d.Ask},
		{"from an internal network to another", "10.91.1.2:80", "", d.Ask},
		{"into an internal network", "10.91.3.2:80", "", world.Ask},
		{"in without a published port", "10.91.1.2:80", "", world.Ask},
		{"in by a published port", "192.0.2.1:8080", "192.0.2.2", world.Ask},
		{"in by a published port, IPv6", "[2001:db8::1]:8080", "2001:db8::2", world.Ask},
		{"a port published on loopback, from outside", "192.0.2.1:8081", "", world.Ask},
		{"published, from the host's loopback", "127.0.0.1:8080", "10.91.1.1", linktest.Ask},
		{"published on loopback, from there", "127.0.0.1:8081", "10.91.1.1", linktest.Ask},
		{"published, from the host's address", "192.0.2.1:8080", "192.0.2.1", linktest.Ask},
		{"published, from a container of the network", "10.91.1.1:8080", neighbour, b.Ask},
		{"published, from the container itself, IPv6", "[2001:db8::1]:8080", "fd91:1::1", a.Ask},
		{"published, from the container itself", "192.0.2.1:8080", "10.91.1.1", a.Ask},
		{"published, from another network", "192.0.2.1:8080", "10.91.1.1", c.Ask},
		{"the host's own network", "10.91.1.2:80", "10.91.1.1", linktest.Ask},
		{"the host's loopback, from itself", secretAt, "127.0.0.1", linktest.Ask},
	} {
		got, err := tc.ask(tc.to)
		if (err == nil) != (tc.from != "") || got != tc.from {
			t.Errorf("%s: %s seen as %q, %v; want %q", tc.what, tc.to, got, err, tc.from)
		}
	}
	for name, s := range map[string]linktest.Space{"a container": a, "a neighbour": world} {
		for _, port := range []string{"8081", strconv.Itoa(secret)} {
			if got, err := overTheWire(s, port); err == nil && name+port != "a neighbour"+strconv.Itoa(secret) {
				t.Errorf("%s reaches 127.0.0.1:%s of the host, as %s", name, port, got)
			}
		}
	}
}

// overTheWire connects with 127.0.0.1 through eth0, as a hostile neighbour may.
func overTheWire(s linktest.Space, port string) (who string, err error) {
	err = s.Do(func() error {
		d := net.Dialer{Timeout: 1500 * time.Millisecond, LocalAddr: nil}
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "eth0") })
			return err
		}
		c, err := d.Dial("tcp4", "127.0.0.1:"+port)
		if err == nil {
			who = c.LocalAddr().String()
			c.Close()
		}
		return err
	})
	return who, err
}

// TestElements: ports come and go as elements, and the table is known not to be
// intact when somebody has flushed it.
func TestElements(t *testing.T) {
	linktest.Alone(t)
	if err := table.Add(nft.State{Bridges: []nft.Bridge{{Name: "x"}}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("adding without a table: %v", err)
	}
	state := nft.State{Bridges: []nft.Bridge{{Name: "x", Masquerade: true, Mode6: nft.Routed}, {Name: "y", Internal: true, Separate: true},
		{Name: "z", Mode4: nft.Open, Trusted: []string{"lo", "eth0"}}}}
	direct := []nft.Direct{{Proto: unix.IPPROTO_TCP, At: netip.MustParseAddrPort("10.0.0.2:80")}, {Proto: unix.IPPROTO_UDP, At: netip.MustParseAddrPort("[fd00::2]:53")}}
	if err := table.Replace(state); err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{}, 100)
	stop := make(chan struct{})
	defer close(stop)
	if err := table.Watch(stop, func() { lost <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	var ports []nft.Port
	for i := range 600 {
		ports = append(ports, publish(unix.IPPROTO_UDP, "0.0.0.0:"+strconv.Itoa(1000+i), "10.0.0.2:"+strconv.Itoa(1+i)))
	}
	ports = append(ports, publish(unix.IPPROTO_SCTP, "[fd00::1]:5", "[fd00::2]:6"))
	if err := table.Add(nft.State{Ports: ports, Direct: direct}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := table.Intact(nft.State{Bridges: state.Bridges, Ports: ports, Direct: direct}); !ok {
		t.Error("not intact after ports were added")
	}
	if err := table.Add(nft.State{Ports: []nft.Port{publish(unix.IPPROTO_UDP, "0.0.0.0:1000", "10.0.0.9:1")}}); !fault.Is(err, fault.Exists) {
		t.Errorf("a port given twice: %v", err)
	}
	if ok, _ := table.Intact(nft.State{Bridges: state.Bridges, Ports: ports}); ok {
		t.Error("intact with ports that are open and should not be")
	}
	if err := table.Remove(nft.State{Ports: ports, Direct: direct}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := table.Intact(state); !ok {
		t.Error("not intact after ports were removed")
	}
	select {
	case <-lost:
		t.Error("elements that come and go are told of")
	default:
	}
	flush := &nftables.Conn{}
	flush.FlushRuleset()
	if err := flush.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-time.After(time.Minute):
		t.Error("nobody told of a flush")
	}
	if ok, err := table.Intact(state); ok || err != nil {
		t.Errorf("intact after a flush: %v, %v", ok, err)
	}
	if err := table.Drop(); err != nil {
		t.Error(err)
	}
}

// TestDroppers: what another's table drops is named.
func TestDroppers(t *testing.T) {
	linktest.Alone(t)
	c := &nftables.Conn{}
	theirs := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	policy := nftables.ChainPolicyDrop
	c.AddChain(&nftables.Chain{Name: "FORWARD", Table: theirs, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter, Policy: &policy})
	c.AddChain(&nftables.Chain{Name: "INPUT", Table: theirs, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter, Policy: &policy})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := nft.Droppers()
	if err != nil || len(got) != 1 || got[0] != "ip filter FORWARD" {
		t.Errorf("%q, %v", got, err)
	}
	c.DelTable(theirs)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}
