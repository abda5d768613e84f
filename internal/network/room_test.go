package network

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// documentsFake is a bucket in memory.
type documentsFake map[string][]byte

func (d documentsFake) Put(key string, v any) (err error) {
	d[key], err = json.Marshal(v)
	return err
}

func (d documentsFake) Delete(key string) error {
	delete(d, key)
	return nil
}

func (d documentsFake) Each(each func(string, []byte) error) error {
	for k, v := range d {
		if err := each(k, v); err != nil {
			return err
		}
	}
	return nil
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// TestPool gives out and takes back at random, beside a simple model: no
// address twice, none that is reserved, the lowest free one, and all there are.
func TestPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := record.Subnet{Prefix: prefix("10.0.0.0/27"), Gateway: netip.MustParseAddr("10.0.0.1"), Aux: map[string]netip.Addr{"printer": netip.MustParseAddr("10.0.0.9")}}
		if rapid.Bool().Draw(t, "range") {
			s.Range = prefix("10.0.0.8/29")
		}
		p, owned := newPool(s), map[netip.Addr]string{}
		free := func(a netip.Addr) bool {
			return a != s.Gateway && a != s.Aux["printer"] && a != netip.MustParseAddr("10.0.0.0") && a != netip.MustParseAddr("10.0.0.31") && owned[a] == ""
		}
		for i := range rapid.IntRange(1, 80).Draw(t, "steps") {
			owner := string(rune('A' + i))
			if len(owned) > 0 && rapid.Bool().Draw(t, "release") {
				for a, o := range owned {
					p.release("somebody else", a)
					p.release(o, a)
					delete(owned, a)
					break
				}
				continue
			}
			var want netip.Addr
			if rapid.IntRange(0, 3).Draw(t, "fixed") == 0 {
				want = netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 40).Draw(t, "which"))})
			}
			var lowest netip.Addr
			for a := p.from.Masked().Addr(); p.from.Contains(a); a = a.Next() {
				if free(a) {
					lowest = a
					break
				}
			}
			got, err := p.take(owner, want, netip.Addr{})
			switch {
			case want.IsValid() && (err == nil) != (free(want) && s.Prefix.Contains(want)):
				t.Fatalf("%s: %v", want, err)
			case !want.IsValid() && (err == nil) != lowest.IsValid(), !want.IsValid() && err == nil && got != lowest:
				t.Fatalf("got %s, %v; the lowest is %s", got, err, lowest)
			}
			if err == nil {
				owned[got] = owner
			}
		}
	})
}

func TestChoose(t *testing.T) {
	ranges := []Range{{prefix("10.0.0.0/14"), 16}, {prefix("192.168.0.0/23"), 24}}
	for _, tc := range []struct {
		taken []string
		want  string
	}{
		{nil, "10.0.0.0/16"}, {[]string{"10.0.0.0/16"}, "10.1.0.0/16"}, {[]string{"10.0.3.0/24", "10.1.2.3/32"}, "10.2.0.0/16"},
		{[]string{"10.0.0.0/8"}, "192.168.0.0/24"}, {[]string{"10.0.0.0/8", "192.168.0.0/24"}, "192.168.1.0/24"}, {[]string{"10.0.0.0/8", "192.0.0.0/8"}, ""},
	} {
		var taken []netip.Prefix
		for _, s := range tc.taken {
			taken = append(taken, prefix(s))
		}
		p, ok := choose(ranges, taken)
		if ok != (tc.want != "") || ok && p.String() != tc.want {
			t.Errorf("%v: %s, %v", tc.taken, p, ok)
		}
	}
	if p, ok := choose([]Range{{prefix("255.255.0.0/16"), 17}}, []netip.Prefix{prefix("255.255.0.0/16")}); ok {
		t.Errorf("past the last address: %s", p)
	}
	a, b := unique("one"), unique("two")
	if a.Base == b.Base || !a.Base.Addr().IsPrivate() {
		t.Errorf("%s and %s", a.Base, b.Base)
	}
}

// TestRefusedNetworks: what is wrong with a network is said before anything is
// made.
func TestRefusedNetworks(t *testing.T) {
	r, err := Open(Config{Networks: documentsFake{}, Log: slog.Default()})
	if err != nil {
		t.Fatal(err)
	}
	sub := func(s, rng, gw string) []record.Subnet {
		out := record.Subnet{Prefix: prefix(s)}
		if rng != "" {
			out.Range = prefix(rng)
		}
		if gw != "" {
			out.Gateway = netip.MustParseAddr(gw)
		}
		return []record.Subnet{out}
	}
	for name, tc := range map[string]struct {
		a     ask.CreateNetwork
		class fault.Class
	}{
		"name":       {ask.CreateNetwork{Name: "a b"}, fault.Invalid},
		"predefined": {ask.CreateNetwork{Name: "none"}, fault.Denied},
		"driver":     {ask.CreateNetwork{Name: "xx", Driver: "overlay"}, fault.NotFound},
		"gateway":    {ask.CreateNetwork{Name: "xx", Subnets: sub("10.1.0.0/24", "", "10.2.0.1")}, fault.Invalid},
		"range":      {ask.CreateNetwork{Name: "xx", Subnets: sub("10.1.0.0/24", "10.1.0.0/16", "")}, fault.Invalid},
		"small":      {ask.CreateNetwork{Name: "xx", Subnets: sub("10.1.0.0/31", "", "")}, fault.Invalid},
		"no subnet":  {ask.CreateNetwork{Name: "xx", Subnets: []record.Subnet{{Gateway: netip.MustParseAddr("10.1.0.1")}}}, fault.Invalid},
		"mtu":        {ask.CreateNetwork{Name: "xx", Options: map[string]string{optMTU: "12"}}, fault.Invalid},
		"icc":        {ask.CreateNetwork{Name: "xx", Options: map[string]string{optICC: "perhaps"}}, fault.Invalid},
		"no mode":    {ask.CreateNetwork{Name: "xx", Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "route"}}, fault.Invalid},
		"isolated":   {ask.CreateNetwork{Name: "xx", Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}}, fault.Invalid},
		"a gateway where none is": {ask.CreateNetwork{Name: "xx", Internal: true, Options: map[string]string{"com.docker.network.bridge.gateway_mode_ipv4": "isolated"},
			Subnets: []record.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}}}, fault.Invalid},
		"trusted":    {ask.CreateNetwork{Name: "xx", Options: map[string]string{"com.docker.network.bridge.trusted_host_interfaces": "eth0 eth1"}}, fault.Invalid},
		"no address": {ask.CreateNetwork{Name: "xx", Options: map[string]string{"com.docker.network.bridge.inhibit_ipv4": "true"}}, fault.Unsupported},
		"prefix":     {ask.CreateNetwork{Name: "xx", Options: map[string]string{"com.docker.network.container_iface_prefix": "net"}}, fault.Unsupported},
		"parent":     {ask.CreateNetwork{Name: "xx", Driver: "macvlan"}, fault.Invalid},
		"mode":       {ask.CreateNetwork{Name: "xx", Driver: "ipvlan", Options: map[string]string{optParent: "lo", optIPMode: "l4"}}, fault.Invalid},
	} {
		if _, err := r.Create(tc.a); !fault.Is(err, tc.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(r.List()); n != 3 {
		t.Errorf("%d networks", n)
	}
	if _, err := r.Find("nowhere"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if n, err := r.Find(FixedID("host")[:6]); err != nil || n.Driver != driverHost {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestResolv(t *testing.T) {
	host := []byte("nameserver 127.0.0.1\nnameserver fe80::1%eth0\nnameserver 10.0.0.53\nsearch a b\noptions ndots:1\n")
	four := record.Net{Endpoints: []record.Endpoint{{IP4: prefix("10.0.0.2/24")}}}
	if got := string(resolv(host, four, true)); got != "nameserver 10.0.0.53\nsearch a b\noptions ndots:1\n" {
		t.Errorf("%q", got)
	}
	if got := string(resolv([]byte("nameserver ::1\n"), four, true)); got != "nameserver 8.8.8.8\nnameserver 8.8.4.4\n" {
		t.Errorf("%q", got)
	}
	four.DNS, four.DNSSearch, four.DNSOptions = []string{"1.2.3.4"}, []string{"."}, []string{"rotate"}
	if got := string(resolv(host, four, true)); got != "nameserver 1.2.3.4\noptions rotate\n" {
		t.Errorf("%q", got)
	}
}
