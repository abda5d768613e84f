package resolver

import (
	"math/rand/v2"
	"net/netip"
	"strings"
)

// Directory knows what the programs of a container may know by name. Its methods
// are called from any goroutine.
type Directory interface {
	// Version changes, before anybody is told of it, whenever what Hosts returns
	// for any container does.
	Version() uint64
	// Hosts lists what a container shares a network with, itself among it, in the
	// order of the networks in which names are to be looked for. A container that
	// it does not know has none.
	Hosts(container string) []Host
}

// Host is a container as another one knows it on one network.
type Host struct {
	Network string   // its name, by which names can be told apart: NAME.NETWORK
	Names   []string // in any case; a look-up by address finds the first
	Addrs   []netip.Addr
}

// view is the names that one container may know.
type view struct {
	version uint64
	hosts   []Host
	names   map[string][]int // lower-case names, and places in hosts in their order
	addrs   map[netip.Addr]int
}

func look(version uint64, hosts []Host) *view {
	v := &view{version: version, hosts: hosts, names: make(map[string][]int, 4*len(hosts)), addrs: make(map[netip.Addr]int, len(hosts))}
	for i, h := range hosts {
		for _, n := range h.Names {
			n = strings.ToLower(n)
			at := v.names[n]
			if n != "" && (len(at) == 0 || at[len(at)-1] != i) {
				v.names[n] = append(at, i)
			}
		}
		for _, a := range h.Addrs {
			if _, ok := v.addrs[a]; !ok {
				v.addrs[a] = i
			}
		}
	}
	return v
}

// find returns the hosts of a name: of the whole of it, else of what is before a
// dot on the network that is named after it. Names of containers and of networks
// may both have dots.
func (v *view) find(name string) []int {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if found := v.names[name]; len(found) > 0 {
		return found
	}
	for at := len(name) - 1; at > 0; at-- {
		if name[at] != '.' {
			continue
		}
		var out []int
		for _, i := range v.names[name[:at]] {
			if strings.EqualFold(v.hosts[i].Network, name[at+1:]) {
				out = append(out, i)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// addresses returns the addresses of a name in one family, in an order that
// differs each time, so that whoever takes the first one spreads its load. They
// are of one network, the first on which there are any: on another the name may
// be somebody else's. known says that there is such a name, whatever it has.
func (v *view) addresses(name string, four bool) (out []netip.Addr, known bool) {
	found := v.find(name)
	network := ""
	for _, i := range found {
		h := v.hosts[i]
		if len(out) > 0 && h.Network != network {
			break
		}
		for _, a := range h.Addrs {
			if a.Is4() == four {
				out, network = append(out, a), h.Network
			}
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, len(found) > 0
}

// owner returns the name of whoever has an address, as NAME.NETWORK.
func (v *view) owner(a netip.Addr) string {
	i, ok := v.addrs[a]
	if !ok || len(v.hosts[i].Names) == 0 {
		return ""
	}
	return v.hosts[i].Names[0] + "." + v.hosts[i].Network
}

// reversed reads a name of in-addr.arpa or ip6.arpa (RFC 1035, 3.5; RFC 3596,
// 2.5) that says a whole address.
func reversed(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		a, err := netip.ParseAddr(rest)
		if err != nil || !a.Is4() {
			return netip.Addr{}, false
		}
		b := a.As4()
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		at := 62 - 2*i
		n := strings.IndexByte("0123456789abcdef", rest[at])
		if n < 0 || at > 0 && rest[at-1] != '.' {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | byte(n)
	}
	return netip.AddrFrom16(b), true
}
