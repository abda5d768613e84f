package network

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Wiring is what connects a container's network namespace: see link.Wiring.
type Wiring = link.Wiring

// Who is the container that is to be connected.
type Who struct{ Container, Name, Hostname string }

// Resolve completes endpoints as a user names them: the networks must exist and
// be able to give what is wanted.
func (r *Room) Resolve(eps []record.Endpoint) ([]record.Endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(eps)
	seen := map[string]bool{}
	for i := range out {
		e := &out[i]
		n, err := r.find(e.Network)
		if err != nil { // no NotFound: docker's client takes that of a create for a missing image
			return nil, fault.Say(fault.Invalid, err.Error())
		}
		if len(out) > 1 && (n.rec.Driver == driverNull || n.rec.Driver == driverHost) {
			return nil, fault.Say(fault.Invalid, "container cannot be connected to multiple networks with one of the networks in "+n.rec.Name+" mode")
		}
		if seen[n.rec.ID] {
			return nil, fault.Say(fault.Invalid, "network "+strconv.Quote(n.rec.Name)+" is specified multiple times")
		}
		seen[n.rec.ID] = true
		e.Network, e.NetworkID = n.rec.Name, n.rec.ID
		if err := n.can(*e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// can refuses, in Docker's words, what a network cannot give.
func (n *network) can(e record.Endpoint) error {
	if err := checkOptions(n.rec.Name, e); err != nil {
		return err
	}
	wants := e.WantIP4.IsValid() || e.WantIP6.IsValid()
	if n.rec.Name == DefaultName {
		if wants {
			return fault.Say(fault.Invalid, "invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only")
		}
		if len(e.Aliases) > 0 {
			return fault.Say(fault.Invalid, "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks")
		}
	}
	if e.WantMAC != "" {
		if mac, err := net.ParseMAC(e.WantMAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fault.Say(fault.Invalid, "invalid MAC address: "+e.WantMAC)
		}
	}
	if e.WantMAC != "" && n.rec.Driver == driverIPvlan {
		return fault.New(fault.Invalid, "use network", n.rec.Name, "on an ipvlan every container has the hardware address of "+n.rec.Device, "leave out --mac-address, or use macvlan")
	}
	for _, want := range []netip.Addr{e.WantIP4, e.WantIP6} {
		if !want.IsValid() {
			continue
		}
		if n.rec.Driver == driverCNI { // its plugins see to it
			continue
		}
		p := n.pool(want.Is4())
		if p == nil || !p.subnet.Prefix.Contains(want) {
			return hinted(fault.Invalid, "invalid config for network "+n.rec.Name+": invalid endpoint settings:\nno configured subnet or ip-range contain the IP address "+want.String(),
				n.offers(want.Is4()))
		}
		if p.subnet.Chosen {
			return hinted(fault.Invalid, "invalid config for network "+n.rec.Name+": invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets",
				"leave out --ip and --ip6, or make the network with --subnet "+p.subnet.Prefix.String())
		}
	}
	return nil
}

// offers says where a fixed address may lie.
func (n *network) offers(four bool) string {
	field, family := "--ip6", "IPv6"
	if four {
		field, family = "--ip", "IPv4"
	}
	p := n.pool(four)
	if p == nil {
		return "the network has no " + family + ": leave out " + field
	}
	return field + " must be an address of " + p.subnet.Prefix.String()
}

// pool is the addresses of a family; nil when the network has none. Of several
// subnets the first gives the addresses.
func (n *network) pool(four bool) *pool {
	for _, p := range n.pools {
		if p.subnet.Prefix.Addr().Is4() == four {
			return p
		}
	}
	return nil
}

// Attach gives a container what it asked for: addresses, devices, ports. The
// wiring is for whoever has its network namespace. Nothing is left by a failure;
// what was given is given back by Detach.
func (r *Room) Attach(who Who, asked record.Net) (out record.Net, w *Wiring, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out = asked
	out.Published = nil
	out.Endpoints = slices.Clone(asked.Endpoints)
	var ends []*end
	defer func() {
		if err != nil {
			r.release(ends)
		}
	}()
	for i := range out.Endpoints {
		out.Endpoints[i].Device = "" // of an earlier run
	}
	for i := range out.Endpoints {
		ep := &out.Endpoints[i]
		if ep.Device, err = deviceFor(*ep, slices.Concat(out.Endpoints[:i], out.Endpoints[i+1:])); err != nil {
			return out, nil, err
		}
		e, err := r.join(who, *ep)
		if err != nil {
			return out, nil, err
		}
		ends = append(ends, e)
	}
	gw4, gw6 := gateways(ends)
	if err := r.publish(out, gw4, gw6); err != nil {
		return out, nil, err
	}
	r.note(who.Container, out)
	w = &Wiring{}
	for i, e := range ends {
		if e.net.rec.Driver != driverCNI {
			w.Connect(e.port(e == gw4, e == gw6))
		}
		out.Endpoints[i] = e.ep
		for _, b := range e.ports {
			out.Published = append(out.Published, b.pub)
		}
	}
	return out, w, nil
}

// join takes a place on a network. Preconditions: r.mu.
func (r *Room) join(who Who, ep record.Endpoint) (*end, error) {
	n := r.nets[ep.NetworkID]
	if n == nil {
		return nil, fault.Say(fault.NotFound, "network "+cmp.Or(ep.NetworkID, ep.Network)+" not found")
	}
	if err := r.ready(n); err != nil {
		return nil, err
	}
	e := &end{container: who.Container, name: who.Name, hostname: who.Hostname, net: n, ep: ep}
	had4, had6 := ep.IP4.Addr(), ep.IP6.Addr()
	e.ep.ID = ref.NewID()
	e.ep.DNS, e.ep.DNSSearch, e.ep.DNSOptions = nil, nil, nil
	e.ep.IP4, e.ep.IP6, e.ep.GW4, e.ep.GW6 = netip.Prefix{}, netip.Prefix{}, netip.Addr{}, netip.Addr{}
	for _, family := range []struct {
		four      bool
		want, had netip.Addr
		ip        *netip.Prefix
		gw        *netip.Addr
	}{{true, ep.WantIP4, had4, &e.ep.IP4, &e.ep.GW4}, {false, ep.WantIP6, had6, &e.ep.IP6, &e.ep.GW6}} {
		p := n.pool(family.four)
		if p == nil {
			continue
		}
		a, err := p.take(e.ep.ID, family.want, family.had)
		if err != nil {
			n.release(e)
			return nil, r.refused(n, p, family.want, err)
		}
		*family.ip = netip.PrefixFrom(a, p.subnet.Prefix.Bits())
		if !n.routed() {
			*family.gw = p.subnet.Gateway
		}
	}
	if e.ep.MAC = cmp.Or(ep.WantMAC, macFor(e.ep)); n.rec.Driver == driverIPvlan {
		e.ep.MAC = "" // the parent's
	}
	if n.rec.Driver == driverBridge {
		e.ep.Host = "veth" + e.ep.ID[:11]
	}
	r.ends[e.ep.ID] = e
	r.version.Add(1)
	return e, nil
}

// refused says more of an address that cannot be had, in a field of its own: the
// words are Docker's.
func (r *Room) refused(n *network, p *pool, want netip.Addr, err error) error {
	if fault.Is(err, fault.Exhausted) {
		return hinted(fault.Exhausted, err.Error()+": "+n.rec.Name+" ("+n.rec.ID+")",
			"all of "+p.from.String()+" is taken: remove containers of the network, or make one with a larger --subnet or --ip-range")
	}
	holder := p.used[want]
	if e := r.ends[holder]; e != nil {
		holder = "container " + e.name
	}
	field := "--ip"
	if want.Is6() {
		field = "--ip6"
	}
	return hinted(fault.ClassOf(err), err.Error(), field+" "+want.String()+" is the address of "+holder+" on network "+n.rec.Name+": choose another of "+p.subnet.Prefix.String())
}

// hinted is a fault in Docker's words, with what to do in a field of its own.
func hinted(class fault.Class, message, hint string) error {
	f := fault.Say(class, message)
	f.Hint = hint
	return f
}

// ready makes sure that a network is there to be used: the default one gets its
// subnet the first time, and the others' bridges may have been removed.
func (r *Room) ready(n *network) error {
	if n.rec.Name == DefaultName {
		return r.readyDefault(n)
	}
	if n.rec.Driver == driverMacvlan || n.rec.Driver == driverIPvlan {
		index, err := link.Index(n.rec.Device)
		if err != nil {
			return fault.New(fault.NotFound, "use network", n.rec.Name, "the host has no device "+n.rec.Device, "")
		}
		n.index = index
		return nil
	}
	if n.rec.Driver == driverCNI && r.cfg.CNI == nil {
		return fault.New(fault.Unsupported, "use network", n.rec.Name, "this daemon runs no plugins of CNI", "")
	}
	return r.up(n)
}

// raceTries bounds how often another daemon may take the device that was free a
// moment ago.
const raceTries = 10

// readyDefault is ready of the default network, whose device is not named by
// anybody.
func (r *Room) readyDefault(n *network) (err error) {
	if n.index == 0 {
		defer r.turn()()
	}
	for range raceTries {
		if n.index == 0 {
			if err := r.prepareDefault(n); err != nil {
				return err
			}
		}
		if err = r.up(n); !fault.Is(err, fault.Exists) {
			break
		}
	}
	return err
}

// prepareDefault finds a subnet, once, and a device for the default network:
// another daemon of the host may have the first.
func (r *Room) prepareDefault(n *network) error {
	rec := n.rec
	all, err := link.Devices()
	if err != nil {
		return err
	}
	others := map[string]bool{}
	for _, d := range all {
		others[d.Name] = d.MAC != r.macOf(rec.ID)
	}
	for i := 1; others[rec.Device]; i++ {
		rec.Device = defaultDevices + strconv.Itoa(i)
	}
	if len(rec.Subnets) == 0 || r.lost(n) || r.told(n) {
		var told []record.Subnet
		if r.cfg.Default.Prefix.IsValid() {
			told = append(told, r.cfg.Default)
		}
		had := n.rec.Subnets
		n.rec.Subnets = nil // it does not overlap itself
		rec.Subnets, err = r.subnets(told, true, false)
		n.rec.Subnets = had
		if err != nil {
			return err
		}
	} else if rec.Device == n.rec.Device {
		return nil
	}
	if err := r.cfg.Networks.Put(rec.ID, rec); err != nil {
		return err
	}
	fresh := !slices.EqualFunc(n.rec.Subnets, rec.Subnets, func(a, b record.Subnet) bool {
		return a.Prefix == b.Prefix && a.Gateway == b.Gateway && a.Range == b.Range
	})
	n.rec = rec
	if fresh {
		n.open()
		for _, w := range Warnings(rec) {
			r.cfg.Log.Warn(w)
		}
	}
	return nil
}

func (r *Room) peopled(n *network) bool {
	return slices.ContainsFunc(r.members(), func(e *end) bool { return e.net == n })
}

// told reports whether the default network is to have another subnet than when it
// was last needed.
func (r *Room) told(n *network) bool {
	want := r.cfg.Default
	if !want.Prefix.IsValid() || r.peopled(n) {
		return false
	}
	has := n.rec.Subnets[0]
	return has.Prefix != want.Prefix || has.Range != want.Range || want.Gateway.IsValid() && has.Gateway != want.Gateway
}

// lost reports whether somebody else has come to use the subnet that the default
// network had when it was last needed. Nobody is on it then.
func (r *Room) lost(n *network) bool {
	if r.peopled(n) {
		return false
	}
	if own, err := r.bridged(n); own != 0 || err != nil {
		return false // the route that there may be is its own
	}
	_, host := r.taken()
	return slices.ContainsFunc(n.rec.Subnets, func(s record.Subnet) bool { return s.Chosen && overlaps(s.Prefix, host) })
}

// macFor makes the hardware address of the address, as Docker did for long:
// what neighbours know of an address stays true when it is given again.
func macFor(e record.Endpoint) string {
	b := e.IP4.Addr().AsSlice()
	if len(b) == 0 {
		b = e.IP6.Addr().AsSlice()
	}
	if len(b) < 4 {
		return ""
	}
	return net.HardwareAddr(append([]byte{2, 0x42}, b[len(b)-4:]...)).String()
}

// gateway picks the endpoint that leads out: the highest priority, then the
// first by name, as Docker does. Nil when none does.
func gateway(ends []*end, four bool) (best *end) {
	for _, e := range ends {
		ip := e.ep.IP6
		if four {
			ip = e.ep.IP4
		}
		if !ip.IsValid() || e.net.rec.Internal || e.net.rec.Driver == driverCNI {
			continue
		}
		if best == nil || e.ep.GwPriority > best.ep.GwPriority || e.ep.GwPriority == best.ep.GwPriority && e.ep.Network < best.ep.Network {
			best = e
		}
	}
	return best
}

// gateways are the endpoints that lead out, of IPv4 and of IPv6. Where a list of
// CNI leads is known to its plugins only: one leads out when the user says so by
// its priority, or when nothing else does.
func gateways(ends []*end) (v4, v6 *end) {
	v4, v6 = gateway(ends, true), gateway(ends, false)
	var list *end
	for _, e := range ends {
		if e.net.rec.Driver == driverCNI && (list == nil || e.ep.GwPriority > list.ep.GwPriority) {
			list = e
		}
	}
	if list == nil {
		return v4, v6
	}
	for _, other := range []*end{v4, v6} {
		if other != nil && other.ep.GwPriority >= list.ep.GwPriority {
			return v4, v6
		}
	}
	return list, list
}

// routed reports whether the host's own table of routes leads out of the network:
// an ipvlan of layer 3 asks no gateway (kernel, networking/ipvlan).
func (n *network) routed() bool {
	return n.rec.Driver == driverIPvlan && (n.rec.Options[optIPMode] == "l3" || n.rec.Options[optIPMode] == "l3s")
}

// port describes the endpoint's devices; out4 and out6 say that it leads out.
func (e *end) port(out4, out6 bool) link.Port {
	p := link.Port{Host: e.ep.Host, Master: e.net.index, Name: e.ep.Device, MTU: e.net.mtu(), Isolated: !e.net.option(optICC, true)}
	if mac, err := net.ParseMAC(e.ep.MAC); err == nil {
		copy(p.MAC[:], mac)
	}
	if e.net.rec.Driver == driverBridge {
		p.Hairpin = link.Get("bridge/bridge-nf-call-iptables") == "1"
	} else {
		p.Kind = e.net.rec.Driver
		p.Mode, _ = vlanMode(e.net.rec) // looked at when the network was created
		if e.net.rec.Options[optMTU] == "" {
			p.MTU = 0
		}
	}
	for _, a := range []struct {
		ip  netip.Prefix
		gw  netip.Addr
		out bool
	}{{e.ep.IP4, e.ep.GW4, out4}, {e.ep.IP6, e.ep.GW6, out6}} {
		if !a.ip.IsValid() {
			continue
		}
		p.Addrs = append(p.Addrs, link.Addr{IP: a.ip.Addr().AsSlice(), Bits: uint8(a.ip.Bits())})
		if a.out && a.gw.IsValid() {
			p.Routes = append(p.Routes, link.Route{Via: a.gw.AsSlice()})
		} else if a.out && e.net.routed() {
			p.Routes = append(p.Routes, link.Route{To: link.Addr{IP: make([]byte, a.ip.Addr().BitLen()/8)}})
		}
	}
	if !e.ep.IP6.IsValid() {
		p.Settings = append(p.Settings, "ipv6/conf/"+e.ep.Device+"/disable_ipv6=1")
	}
	return p
}

// Space is the network namespace of a process.
type Space struct {
	File *os.File
	PID  int
}

// Connect is Attach of one more endpoint of a running container, which has its
// other ones. It gets the next free device and no default route, unless the
// container has no other way out. Plug carries out what is returned.
func (r *Room) Connect(who Who, has record.Net, ep record.Endpoint) (record.Endpoint, *Wiring, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out4, out6 := true, true
	for _, old := range has.Endpoints {
		if e := r.ends[old.ID]; e != nil && !e.net.rec.Internal {
			out4, out6 = out4 && !old.IP4.IsValid(), out6 && !old.IP6.IsValid()
		}
	}
	name, err := deviceFor(ep, has.Endpoints)
	if err != nil {
		return ep, nil, err
	}
	ep.Device = name
	e, err := r.join(who, ep)
	if err != nil {
		return ep, nil, err
	}
	has.Endpoints = append(slices.Clone(has.Endpoints), e.ep)
	r.note(who.Container, has)
	w := &Wiring{}
	open := !e.net.rec.Internal
	if e.net.rec.Driver != driverCNI {
		w.Connect(e.port(out4 && open, out6 && open))
	}
	return e.ep, w, nil
}

// Plug connects a running container's endpoint as Connect has laid it out, in the
// container's network namespace, and returns it with what plugins gave it. What a
// failure leaves is taken back by Detach.
func (r *Room) Plug(ctx context.Context, ep record.Endpoint, w *Wiring, in Space) (record.Endpoint, error) {
	if !w.Empty() {
		if err := w.Apply(in.File); err != nil {
			return ep, err
		}
	}
	one, err := r.plugAll(ctx, record.Net{Endpoints: []record.Endpoint{ep}}, in.PID, in.File)
	return one.Endpoints[0], err
}

// Adopt takes up a container that has run under an earlier daemon.
func (r *Room) Adopt(who Who, has record.Net) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ends []*end
	for _, ep := range has.Endpoints {
		n := r.nets[ep.NetworkID]
		if ep.ID == "" || n == nil {
			r.kept[ep.ID] = true
			continue
		}
		e := &end{container: who.Container, name: who.Name, hostname: who.Hostname, net: n, ep: ep, plugged: n.rec.Driver == driverCNI}
		for _, ip := range []netip.Prefix{ep.IP4, ep.IP6} {
			if p := n.pool(ip.Addr().Is4()); ip.IsValid() && p != nil {
				p.hold(ep.ID, ip.Addr())
			}
		}
		r.ends[ep.ID] = e
		ends = append(ends, e)
	}
	r.note(who.Container, has)
	r.version.Add(1)
	gw4, gw6 := gateways(ends)
	openDirectly(published(has), gw4, gw6)
	if err := r.rebind(has.Published, gw4, gw6); err != nil {
		r.cfg.Log.Warn("cannot take published ports again; their connections go on", "container", who.Name, "error", err)
	}
}

// Detach gives back what Attach and Connect gave. Devices are the namespace's,
// and go with it: to delete one takes the kernel 15 ms.
func (r *Room) Detach(has record.Net) {
	r.mu.Lock()
	var ends []*end
	for _, ep := range has.Endpoints {
		if e := r.ends[ep.ID]; e != nil {
			ends = append(ends, e)
		}
	}
	r.release(ends)
	r.mu.Unlock()
	r.unname(ends)
	r.unplug(ends)
	if len(ends) > 0 {
		time.AfterFunc(lingers, func() { r.sweep(ends) })
	}
}

// lingers is how long a device may outlive its namespace's last process. One
// that is there longer is in a namespace that another container has joined.
const lingers = time.Second

func (r *Room) sweep(ends []*end) {
	for _, e := range ends {
		if e.ep.Host == "" {
			continue
		}
		if err := link.Delete(e.ep.Host); err != nil && !fault.Is(err, fault.NotFound) {
			r.cfg.Log.Warn("cannot remove a network device", "device", e.ep.Host, "error", err)
		}
	}
}

// release ends endpoints. Preconditions: r.mu.
func (r *Room) release(ends []*end) {
	var gone nft.State
	for _, e := range ends {
		gone = both(gone, e.rules())
		for _, b := range e.ports {
			r.ports.free(b)
		}
		e.ports, e.direct = nil, nil
		e.net.release(e)
		delete(r.ends, e.ep.ID)
		r.version.Add(1)
	}
	if len(gone.Ports)+len(gone.Direct) == 0 || !r.tabled {
		return
	}
	err := r.table().Remove(gone)
	if fault.Is(err, fault.NotFound) { // somebody else has changed the table
		err = r.table().Replace(r.state())
	}
	if err != nil {
		r.cfg.Log.Warn("cannot remove the rules of published ports", "error", err)
	}
	r.forget(gone.Ports)
}

func (n *network) release(e *end) {
	for _, ip := range []netip.Prefix{e.ep.IP4, e.ep.IP6} {
		if p := n.pool(ip.Addr().Is4()); ip.IsValid() && p != nil {
			p.release(e.ep.ID, ip.Addr())
		}
	}
}
