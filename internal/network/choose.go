package network

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// turnWait is how long a daemon waits for its turn to choose a subnet: another one
// makes a bridge meanwhile, which takes milliseconds.
const turnWait = 10 * time.Second

// turn waits until no other daemon of the host is between the choice of a subnet
// and the bridge by which the others see it, and keeps them from it until done is
// called. Without a turn, which only a daemon that hangs can prevent, nothing but
// luck keeps two from the same subnet.
func (r *Room) turn() (done func()) {
	if r.cfg.Turns == "" {
		return func() {}
	}
	err := os.MkdirAll(filepath.Dir(r.cfg.Turns), 0o700)
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(r.cfg.Turns, os.O_RDWR|os.O_CREATE, 0o600)
	}
	for end := time.Now().Add(turnWait); err == nil; time.Sleep(2 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }
		}
		if (err == unix.EWOULDBLOCK || err == unix.EINTR) && time.Now().Before(end) {
			err = nil
		}
	}
	if f != nil {
		f.Close()
	}
	r.cfg.Log.Warn("a subnet is chosen without regard to other daemons that choose one now", "lock", r.cfg.Turns, "error", err)
	return func() {}
}

// Range is a range that networks get subnets of, each of Size bits.
type Range struct {
	Base netip.Prefix
	Size int
}

// DefaultRanges are dockerd's (its documentation, "Default address pools").
func DefaultRanges() []Range {
	var out []Range
	for _, r := range []struct {
		base string
		size int
	}{
		{"172.17.0.0/16", 16}, {"172.18.0.0/16", 16}, {"172.19.0.0/16", 16}, {"172.20.0.0/14", 16}, {"172.24.0.0/14", 16}, {"172.28.0.0/14", 16},
		{"192.168.0.0/16", 20},
	} {
		out = append(out, Range{netip.MustParsePrefix(r.base), r.size})
	}
	return out
}

// unique is the range of IPv6 subnets when none is given: unique local
// addresses (RFC 4193) whose global id comes from the data root's.
func unique(seed string) Range {
	sum := sha256.Sum256([]byte("fief ula " + seed))
	b := [16]byte{0xfd}
	copy(b[1:6], sum[:])
	return Range{netip.PrefixFrom(netip.AddrFrom16(b), 48), 64}
}

// taken are the prefixes that a new subnet must not overlap: those of other
// networks, and what the host has routes to.
func (r *Room) taken() (own, host []netip.Prefix) {
	for _, n := range r.nets {
		for _, s := range n.rec.Subnets {
			own = append(own, s.Prefix)
		}
	}
	list, err := link.Destinations()
	if err != nil {
		r.cfg.Log.Warn("cannot read the host's routes: subnets are chosen without them", "error", err)
	}
	for _, d := range list {
		if a, ok := netip.AddrFromSlice(d.IP); ok {
			host = append(host, netip.PrefixFrom(a, int(d.Bits)))
		}
	}
	return own, host
}

func overlaps(p netip.Prefix, with []netip.Prefix) bool {
	for _, o := range with {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

// choose finds the first subnet of the ranges that overlaps nothing.
func choose(ranges []Range, taken ...[]netip.Prefix) (netip.Prefix, bool) {
	for _, from := range ranges {
		for p := netip.PrefixFrom(from.Base.Masked().Addr(), from.Size); from.Base.Contains(p.Addr()); {
			free := true
			for _, t := range taken {
				free = free && !overlaps(p, t)
			}
			if free {
				return p, true
			}
			next := lastOf(p).Next()
			if !next.IsValid() {
				break
			}
			p = netip.PrefixFrom(next, from.Size)
		}
	}
	return netip.Prefix{}, false
}

// subnets completes the subnets of a new network: those asked for are checked,
// and one is chosen for each family without any. Preconditions: r.mu.
func (r *Room) subnets(asked []record.Subnet, v4, v6 bool) ([]record.Subnet, error) {
	own, host := r.taken()
	var out []record.Subnet
	has := map[bool]bool{}
	for _, s := range asked {
		if !s.Prefix.IsValid() { // a gateway or range alone has nothing to be in
			return nil, fault.Say(fault.Invalid, "invalid network config: a gateway, IP range or auxiliary address needs a subnet")
		}
		s.Prefix = s.Prefix.Masked()
		if overlaps(s.Prefix, own) {
			return nil, hinted(fault.Denied, "invalid pool request: Pool overlaps with other one on this address space", r.whose(s.Prefix))
		}
		if err := checkSubnet(s); err != nil {
			return nil, err
		}
		own = append(own, s.Prefix)
		has[s.Prefix.Addr().Is4()] = true
		out = append(out, s)
	}
	for _, family := range []struct {
		want   bool
		four   bool
		ranges []Range
	}{{v4, true, r.cfg.Ranges}, {v6, false, []Range{unique(r.cfg.Seed)}}} {
		if !family.want || has[family.four] {
			continue
		}
		var ranges []Range
		for _, x := range family.ranges {
			if x.Base.Addr().Is4() == family.four {
				ranges = append(ranges, x)
			}
		}
		p, ok := choose(ranges, own, host)
		if !ok {
			return nil, hinted(fault.Exhausted, "all predefined address pools have been fully subnetted",
				"remove networks, name a subnet with --subnet, or give fiefd more with --default-address-pool")
		}
		out = append(out, record.Subnet{Prefix: p, Chosen: true})
	}
	for i, s := range out {
		if !s.Gateway.IsValid() {
			out[i].Gateway = firstHost(s)
			if err := checkSubnet(out[i]); err != nil {
				return nil, hinted(fault.Invalid, "invalid network config:\nno address of "+s.Prefix.String()+" is left for the gateway",
					"name another with --gateway, or choose a larger --subnet or --ip-range, or fewer --aux-address")
			}
		}
	}
	return out, nil
}

// whose says which network a subnet overlaps. Preconditions: r.mu.
func (r *Room) whose(p netip.Prefix) string {
	for _, n := range r.nets {
		for _, s := range n.rec.Subnets {
			if s.Prefix.Overlaps(p) {
				return "--subnet " + p.String() + " overlaps " + s.Prefix.String() + " of network " + n.rec.Name + ": choose another"
			}
		}
	}
	return "--subnet " + p.String() + " overlaps another one of this network: choose another"
}

// checkRoutes refuses a subnet of a bridge with which the host would lose a way that
// it has: one that holds an address of the host's, or all that one of its routes
// leads to. One within what a route leads to takes a part of it away, as a longer
// prefix does: that may be meant, and is a warning.
func (r *Room) checkRoutes(rec record.Network) error {
	if rec.Driver != driverBridge {
		return nil // of macvlan and ipvlan it is the host's own
	}
	_, host := r.taken()
	var parts []slog.Attr
	for _, s := range rec.Subnets {
		for _, route := range host {
			if !s.Prefix.Overlaps(route) {
				continue
			}
			if route.Bits() >= s.Prefix.Bits() {
				return fault.New(fault.Conflict, "use --subnet", s.Prefix.String(), "this host has a route to "+route.String()+", or an address there", "choose another, or leave --subnet out")
			}
			parts = append(parts, slog.String(s.Prefix.String(), route.String()))
		}
	}
	for _, part := range parts {
		r.cfg.Log.Warn("a part of what a route of this host leads to is a network's from now on", "network", rec.Name, "subnet", part.Key, "route", part.Value)
	}
	return nil
}

// firstHost is the lowest address that is not auxiliary.
func firstHost(s record.Subnet) netip.Addr {
	from := s.Prefix
	if s.Range.IsValid() {
		from = s.Range
	}
	a := from.Masked().Addr()
	if a == s.Prefix.Addr() {
		a = a.Next()
	}
	for {
		used := false
		for _, x := range s.Aux {
			used = used || x == a
		}
		if !used {
			return a
		}
		a = a.Next()
	}
}

func checkSubnet(s record.Subnet) error {
	bad := func(why string) error { return fault.Say(fault.Invalid, "invalid network config:\n"+why) }
	if a := s.Prefix.Addr(); a.Is4In6() || a.Zone() != "" {
		return bad("invalid subnet " + s.Prefix.String() + ": not an IPv4 or IPv6 prefix")
	}
	if s.Prefix.Addr().Is4() && s.Prefix.Bits() > 30 || s.Prefix.Bits() > 126 {
		return bad("invalid subnet " + s.Prefix.String() + ": too small for a gateway and a container")
	}
	if s.Range.IsValid() && (!s.Prefix.Contains(s.Range.Addr()) || s.Range.Bits() < s.Prefix.Bits()) {
		return bad("invalid ip-range " + s.Range.String() + ": not in subnet " + s.Prefix.String())
	}
	network, broadcast := s.Prefix.Masked().Addr(), netip.Addr{}
	if network.Is4() {
		broadcast = lastOf(s.Prefix)
	}
	if s.Gateway.IsValid() && !s.Prefix.Contains(s.Gateway) {
		return bad("invalid gateway " + s.Gateway.String() + ": parent subnet is " + s.Prefix.String())
	}
	if s.Gateway.IsValid() && (s.Gateway == network || s.Gateway == broadcast) {
		return bad("invalid gateway " + s.Gateway.String() + ": it is the network or broadcast address of " + s.Prefix.String())
	}
	for name, a := range s.Aux {
		if !s.Prefix.Contains(a) {
			return bad("invalid auxiliary address " + a.String() + ": parent subnet is " + s.Prefix.String())
		}
		if a == s.Gateway {
			return bad("invalid auxiliary address " + name + "=" + a.String() + ": it is the gateway")
		}
	}
	return nil
}
