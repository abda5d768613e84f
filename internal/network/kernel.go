package network

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
)

// settle is how long the room waits after somebody has changed its table before
// it looks: whoever loads a ruleset flushes first, in one transaction or several.
const settle = 100 * time.Millisecond

// up makes a network's bridge and its place in the table of rules, or finds
// them as they must be. The rules come first: a bridge without them is never
// up. Preconditions: r.mu.
func (r *Room) up(n *network) error {
	if n.rec.Driver != driverBridge {
		return nil
	}
	if n.index != 0 {
		if now, err := link.Index(n.rec.Device); err == nil && now == n.index {
			return nil
		}
	}
	if err := r.forwarding(n); err != nil {
		return err
	}
	fresh := n.index == 0
	n.index = -1 // counts as made: it is in what the table says
	if err := r.inTable(nft.State{Bridges: []nft.Bridge{n.rules()}}, fresh); err != nil {
		n.index = 0
		return needs(err)
	}
	b := link.Bridge{Name: n.rec.Device, MAC: r.macOf(n.rec.ID), MTU: n.mtu(), Settings: []string{"ipv4/conf/" + n.rec.Device + "/route_localnet=1"}}
	six := false
	for _, s := range n.rec.Subnets {
		if !s.Gateway.IsValid() {
			continue // the host is not on it
		}
		six = six || s.Prefix.Addr().Is6()
		b.Addrs = append(b.Addrs, link.Addr{IP: s.Gateway.AsSlice(), Bits: uint8(s.Prefix.Bits())})
	}
	if !six {
		b.Settings = append(b.Settings, "ipv6/conf/"+n.rec.Device+"/disable_ipv6=1")
	}
	index, err := b.Make()
	if err != nil {
		r.down(n)
		return needs(err)
	}
	n.index = index
	return nil
}

// needs adds what a host must have for networks.
func needs(err error) error {
	if fault.HintOf(err) != "" || fault.Is(err, fault.Exists) {
		return err
	}
	return fault.Wrap(fault.ClassOf(err), "make", "a network", err, "--network none and --network host need no bridge; fief check says what is missing")
}

// table is the daemon's table of rules.
func (r *Room) table() nft.Table {
	sum := sha256.Sum256([]byte("fief table " + r.cfg.Seed))
	return nft.Table("fief-" + hex.EncodeToString(sum[:4]))
}

// macOf is the hardware address of a network's bridge, by which the daemon knows
// it from another's.
func (r *Room) macOf(id string) [6]byte {
	sum := sha256.Sum256([]byte(r.cfg.Seed + id))
	mac := [6]byte(sum[:6])
	mac[0] = mac[0]&^1 | 2 // of one station, locally administered
	return mac
}

// rules is what the table says of a network.
func (n *network) rules() nft.Bridge {
	return nft.Bridge{Name: n.rec.Device, Internal: n.rec.Internal, Masquerade: n.option(optMasquerade, true), Separate: !n.option(optICC, true),
		Mode4: n.mode(true).kernel(), Mode6: n.mode(false).kernel(), Trusted: n.trusted()}
}

// inTable has the table say s as well, or when add is not set only that there is
// a table which says all it must.
func (r *Room) inTable(s nft.State, add bool) error {
	if r.tabled && add {
		err := r.table().Add(s)
		if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Exists) {
			return err
		}
	}
	if err := r.table().Replace(r.state()); err != nil {
		return err
	}
	r.tabled = true
	return r.watch()
}

// state is everything the table must say.
func (r *Room) state() nft.State {
	var s nft.State
	for _, n := range r.nets {
		if n.rec.Driver == driverBridge && n.index != 0 {
			s.Bridges = append(s.Bridges, n.rules())
		}
	}
	for _, e := range r.ends {
		s = both(s, e.rules())
	}
	return s
}

// both is what two states say of endpoints, and the first of bridges.
func both(a, b nft.State) nft.State {
	a.Ports, a.Published, a.Direct = append(a.Ports, b.Ports...), append(a.Published, b.Published...), append(a.Direct, b.Direct...)
	return a
}

// rules is what the table says of an endpoint.
func (e *end) rules() nft.State {
	if len(e.ports) == 0 {
		return nft.State{Direct: e.direct}
	}
	s := nft.State{Ports: make([]nft.Port, 0, len(e.ports)), Direct: e.direct}
	for _, b := range e.ports {
		if b.nat {
			s.Ports = append(s.Ports, b.rule())
		}
	}
	if len(s.Ports) > 0 {
		s.Published = append(s.Published, s.Ports[0].To.Addr())
	}
	return s
}

// watch begins to look after the table; once.
func (r *Room) watch() error {
	if r.stop != nil || r.closed {
		return nil
	}
	stop, lost := make(chan struct{}), make(chan struct{}, 1)
	err := r.table().Watch(stop, func() {
		select {
		case lost <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	r.stop = stop
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-lost:
			}
			select {
			case <-stop:
				return
			case <-time.After(settle):
			}
			r.mend()
		}
	}()
	return nil
}

// mend makes the table again when somebody has removed some of it.
func (r *Room) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.tabled || r.closed {
		return
	}
	if whole, err := r.table().Intact(r.state()); whole || err != nil {
		return
	}
	r.cfg.Log.Warn("the rules of fief's networks were removed by another program; they are made again")
	if err := r.table().Replace(r.state()); err != nil {
		r.cfg.Log.Error("cannot make the rules of networks again", "error", err)
	}
}

// down removes a network's bridge and what the table says of it, and the table
// with the last one. Preconditions: r.mu.
func (r *Room) down(n *network) {
	if n.rec.Driver != driverBridge || n.index == 0 {
		return
	}
	n.index = 0
	if err := r.unbridge(n); err != nil && !fault.Is(err, fault.NotFound) {
		r.cfg.Log.Warn("cannot remove the bridge of a network", "network", n.rec.Name, "error", err)
	}
	for _, other := range r.nets {
		if other.rec.Driver == driverBridge && other.index != 0 {
			if err := r.table().Remove(nft.State{Bridges: []nft.Bridge{n.rules()}}); err != nil && !fault.Is(err, fault.NotFound) {
				r.cfg.Log.Warn("cannot remove the rules of a network", "network", n.rec.Name, "error", err)
			}
			return
		}
	}
	r.tabled = false
	if err := r.table().Drop(); err != nil {
		r.cfg.Log.Warn("cannot remove the rules of networks", "error", err)
	}
}

// unbridge removes a network's bridge. A device of its name with another hardware
// address is somebody else's, perhaps another daemon's default network.
func (r *Room) unbridge(n *network) error {
	index, err := r.bridged(n)
	if index == 0 || err != nil {
		return err
	}
	return link.Delete(n.rec.Device)
}

// bridged is the index of a network's own bridge, 0 when there is none.
func (r *Room) bridged(n *network) (int32, error) {
	all, err := link.Devices()
	for _, d := range all {
		if d.Name == n.rec.Device && d.MAC == r.macOf(n.rec.ID) {
			return d.Index, nil
		}
	}
	return 0, err
}

// forwarding lets the host pass packets on, and says so when it did not before.
// It is never taken back: others may have come to need it.
func (r *Room) forwarding(n *network) error {
	if n.rec.Internal {
		return nil
	}
	if link.Get("ipv4/ip_forward") != "1" {
		if err := link.Set("ipv4/ip_forward=1"); err != nil {
			return fault.Wrap(fault.Denied, "let the host forward packets", "", err, "fiefd needs CAP_NET_ADMIN and a writable /proc/sys/net, or net.ipv4.ip_forward=1 set by somebody else; --network none and host need neither")
		}
		r.cfg.Log.Warn("this host forwards IPv4 packets from now on, between all its networks unless its firewall says otherwise", "sysctl", "net.ipv4.ip_forward=1")
	}
	for _, s := range n.rec.Subnets {
		if s.Prefix.Addr().Is6() && link.Get("ipv6/conf/all/forwarding") != "1" {
			return r.forwarding6()
		}
	}
	return nil
}

// forwarding6 is forwarding for IPv6. A host that forwards does not listen to
// router advertisements any longer, and would lose its own default route, unless
// accept_ra is 2 (kernel, networking/ip-sysctl).
func (r *Room) forwarding6() error {
	all, err := link.Devices()
	if err != nil {
		return err
	}
	for _, d := range all {
		if link.Get("ipv6/conf/"+d.Name+"/accept_ra") == "1" {
			if err := link.Set("ipv6/conf/" + d.Name + "/accept_ra=2"); err != nil {
				return err
			}
		}
	}
	if err := link.Set("ipv6/conf/all/forwarding=1"); err != nil {
		return fault.Wrap(fault.Denied, "let the host forward packets", "", err, "fiefd needs CAP_NET_ADMIN and a writable /proc/sys/net, or net.ipv6.conf.all.forwarding=1 set by somebody else")
	}
	r.cfg.Log.Warn("this host forwards IPv6 packets from now on, between all its networks unless its firewall says otherwise", "sysctl", "net.ipv6.conf.all.forwarding=1")
	return nil
}

// Settle makes in the kernel what there must be for the containers that were
// taken up, and the bridges of networks that users have made: they are gone
// after a reboot. It is called once, after the last Adopt.
func (r *Room) Settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := map[*network]bool{}
	for _, e := range r.ends {
		used[e.net] = true
	}
	for _, n := range r.nets {
		if !used[n] && Fixed(n.rec) {
			r.forgetDefault(n)
			continue
		}
		if err := r.up(n); err != nil {
			r.cfg.Log.Error("cannot make a network", "network", n.rec.Name, "error", err)
		}
	}
	r.part()
	if !r.tabled { // what a daemon before this one left behind without its networks
		if left, err := r.table().Present(); err == nil && left {
			if err := r.table().Drop(); err != nil {
				r.cfg.Log.Warn("cannot remove rules that were left", "error", err)
			}
		}
	}
}

// forgetDefault removes the default bridge when a killed daemon has left it.
func (r *Room) forgetDefault(n *network) {
	if n.rec.Driver != driverBridge || len(n.rec.Subnets) == 0 {
		return
	}
	if index, err := r.bridged(n); err == nil && index != 0 { // else it is found when it is needed
		n.index = index
		r.down(n)
	}
}

// Close stops looking after networks. They go on without a daemon, but for ports
// that only the daemon passes on; the default one, when nobody is on it, is
// removed until it is needed again.
func (r *Room) Close() {
	r.names.Shutdown()
	r.checks.end()
	r.parted()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.stop != nil {
		close(r.stop)
	}
	if n := r.named(DefaultName); n != nil && len(r.shown(n).Members) == 0 {
		r.down(n)
	}
	for _, e := range r.ends {
		for _, b := range e.ports {
			b.close()
		}
	}
	r.ports.keeper.Close()
}
