package link_test

import (
	"net/netip"
	"os"
	"testing"

	"fief/internal/kernel/link"
	"fief/internal/kernel/link/linktest"
	"fief/internal/words/fault"
)

func TestMain(m *testing.M) { os.Exit(linktest.Main(m)) }

func addr(s string) link.Addr {
	p := netip.MustParsePrefix(s)
	return link.Addr{IP: p.Addr().AsSlice(), Bits: uint8(p.Bits())}
}

// TestBridge: what is there is taken as it is, what is no bridge is refused.
func TestBridge(t *testing.T) {
	linktest.Alone(t)
	b := link.Bridge{Name: "fief-t0", MAC: [6]byte{2, 1}, MTU: 1400, Addrs: []link.Addr{addr("10.9.0.1/24"), addr("fd09::1/64")}}
	first, err := b.Make()
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Make()
	if err != nil || first != again {
		t.Errorf("%d, then %d, %v", first, again, err)
	}
	to, err := link.Destinations()
	found := 0
	for _, d := range to {
		p, _ := netip.AddrFromSlice(d.IP)
		if p == netip.MustParseAddr("10.9.0.0") && d.Bits == 24 || p == netip.MustParseAddr("fd09::") && d.Bits == 64 {
			found++
		}
	}
	if err != nil || found != 2 {
		t.Errorf("routes %v, %v", to, err)
	}
	if link.HasDefault(4) || link.HasDefault(6) {
		t.Error("a default route from nowhere")
	}
	if _, err := (link.Bridge{Name: "lo"}).Make(); !fault.Is(err, fault.Exists) {
		t.Errorf("lo as a bridge: %v", err)
	}
	if _, err := (link.Bridge{Name: "much-too-long-a-name"}).Make(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a name that is too long: %v", err)
	}
	if err := link.Delete("fief-t0"); err != nil {
		t.Error(err)
	}
	if err := link.Delete("fief-t0"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

// TestIsolated: isolated ports reach the bridge, and not each other.
func TestIsolated(t *testing.T) {
	linktest.Alone(t)
	b := link.Bridge{Name: "fief-t1", MAC: [6]byte{2, 2}, Addrs: []link.Addr{addr("10.9.1.1/24")}}
	index, err := b.Make()
	if err != nil {
		t.Fatal(err)
	}
	defer link.Delete(b.Name)
	space := func(host, a string, isolated bool) linktest.Space {
		s := linktest.New(t)
		var w link.Wiring
		w.Connect(link.Port{Host: host, Master: index, Isolated: isolated, Name: "eth0", MAC: [6]byte{2, 3, 0, 0, 0, a[7]}, Addrs: []link.Addr{addr(a)},
			Settings: []string{"ipv6/conf/eth0/disable_ipv6=1", "no/such/setting=1"}})
		if err := w.Apply(s.File); err != nil {
			t.Fatal(err)
		}
		s.Echo(t, "tcp4", ":80")
		return s
	}
	one, two, open := space("vi1", "10.9.1.2/24", true), space("vi2", "10.9.1.3/24", true), space("vi3", "10.9.1.4/24", false)
	if who, err := one.Ask("10.9.1.3:80"); err == nil {
		t.Errorf("an isolated port is reached by %s", who)
	}
	if who, err := two.Ask("10.9.1.4:80"); err != nil || who != "10.9.1.3" {
		t.Errorf("a port that is not isolated: %q, %v", who, err)
	}
	if who, err := linktest.Ask("10.9.1.2:80"); err != nil || who != "10.9.1.1" {
		t.Errorf("from the bridge: %q, %v", who, err)
	}
	if err := open.Do(func() error {
		if v := link.Get("ipv6/conf/eth0/disable_ipv6"); v != "1" {
			t.Errorf("disable_ipv6 is %q", v)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	var w link.Wiring
	w.Connect(link.Port{Host: "vi1", Master: index, Name: "eth1"})
	if err := w.Apply(open.File); !fault.Is(err, fault.Exists) {
		t.Errorf("a name that is taken: %v", err)
	}
}

func BenchmarkWiring(b *testing.B) {
	linktest.Alone(b)
	bridge := link.Bridge{Name: "fief-t2", MAC: [6]byte{2, 2}, Addrs: []link.Addr{addr("10.9.2.1/24")}}
	index, err := bridge.Make()
	if err != nil {
		b.Fatal(err)
	}
	defer link.Delete(bridge.Name)
	for b.Loop() {
		b.StopTimer()
		s := linktest.New(b)
		b.StartTimer()
		var w link.Wiring
		w.Connect(link.Port{Host: "vbench", Master: index, Name: "eth0", Addrs: []link.Addr{addr("10.9.2.2/24")},
			Routes: []link.Route{{Via: []byte{10, 9, 2, 1}}}, Settings: []string{"ipv6/conf/eth0/disable_ipv6=1"}})
		if err := w.Apply(s.File); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		link.DeleteIn(s.File, "eth0")
		s.Close()
		b.StartTimer()
	}
}
