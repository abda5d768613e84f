package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/listen"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// binding is a port of the host that is the room's: reserved by a socket, so
// that no program of the host gets it, and led to a container by the table of
// rules, or where that cannot be by the daemon itself.
type binding struct {
	pub    record.Published
	end    *end                           // by whose endpoint
	nat    bool                           // the table leads to the target; else connections are passed on
	socket *listen.Port                   // nil: with the other family's, or there is none
	passTo atomic.Pointer[netip.AddrPort] // the target, once it is known
}

// leadTo has the binding lead to an address from now on.
func (b *binding) leadTo(to netip.AddrPort) { b.passTo.Store(&to) }

// target is where the binding leads; invalid while that is not known.
func (b *binding) target() netip.AddrPort {
	if to := b.passTo.Load(); to != nil {
		return *to
	}
	return netip.AddrPort{}
}

func (b *binding) close() {
	if b.socket != nil {
		b.socket.Close()
	}
}

func (b *binding) rule() nft.Port {
	return nft.Port{Proto: protocols[b.pub.Proto], Host: netip.AddrPortFrom(b.pub.HostIP, b.pub.Host), To: b.target()}
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// portTable is which ports of the host the room has.
type portTable struct {
	keeper    listen.Keeper
	taken     map[portKey][]*binding
	low, high int    // of ports that nobody names
	next      uint16 // where the search for a free one goes on
}

type portKey struct {
	proto string
	port  uint16
}

func (t *portTable) free(b *binding) {
	b.close()
	key := portKey{b.pub.Proto, b.pub.Host}
	list := t.taken[key]
	for i, other := range list {
		if other == b {
			t.taken[key] = append(list[:i:i], list[i+1:]...)
		}
	}
	if len(t.taken[key]) == 0 {
		delete(t.taken, key)
	}
}

// errTaken says that a port is another's, so that the next of a range may do.
var errTaken = errors.New("port is already allocated")

// bind takes the bindings of a port, all or none; the one that cannot be had is
// returned with the error. Those that are one container's on all addresses of
// both families share a socket.
func (t *portTable) bind(list []*binding) (*binding, error) {
	for _, b := range list {
		for _, other := range t.taken[portKey{b.pub.Proto, b.pub.Host}] {
			a, o := b.pub.HostIP, other.pub.HostIP
			if a.Is4() == o.Is4() && (a == o || a.IsUnspecified() || o.IsUnspecified()) {
				return b, fault.Wrap(fault.Conflict, "", "", errTaken, "")
			}
		}
	}
	if !t.together(list) { // which does not say which of the two is in use
		for i, b := range list {
			if err := t.reserve(b, nil); err != nil {
				for _, undo := range list[:i] {
					undo.close()
				}
				return b, err
			}
		}
	}
	if t.taken == nil {
		t.taken = map[portKey][]*binding{}
	}
	for _, b := range list {
		key := portKey{b.pub.Proto, b.pub.Host}
		t.taken[key] = append(t.taken[key], b)
	}
	return nil, nil
}

// together reserves two bindings by one socket where that can be.
func (t *portTable) together(list []*binding) bool {
	if len(list) != 2 || list[0].end != list[1].end || !list[0].pub.HostIP.IsUnspecified() || !list[1].pub.HostIP.IsUnspecified() {
		return false
	}
	four, six := list[0], list[1]
	if four.pub.HostIP.Is6() {
		four, six = six, four
	}
	return four.pub.HostIP.Is4() && six.pub.HostIP.Is6() && t.reserve(six, four) == nil
}

// reserve keeps a binding's port from the host's programs, and that of one of IPv4
// by the same socket. The socket also takes the connections and datagrams that the
// table does not see or cannot lead: to ::1, to a family that the container has no
// address of, and while the table is being made again.
func (t *portTable) reserve(b, four *binding) (err error) {
	at := netip.AddrPortFrom(b.pub.HostIP, b.pub.Host)
	lead := func(isFour bool) netip.AddrPort {
		if isFour && four != nil {
			return four.target()
		}
		return b.target()
	}
	switch b.pub.Proto {
	case "tcp":
		b.socket, err = t.keeper.TCP(at, four != nil, func(c net.Conn, isFour bool) { pass(c, lead(isFour)) })
	case "udp":
		b.socket, err = t.keeper.UDP(at, four != nil, lead)
	}
	return err
}

// pass hands a connection on to a container. There is none before its address is
// known.
func pass(c net.Conn, target netip.AddrPort) {
	defer c.Close()
	if !target.IsValid() {
		return
	}
	to, err := net.Dial("tcp", target.String())
	if err != nil {
		return
	}
	defer to.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(to, c)
		to.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, to)
	c.(*net.TCPConn).CloseWrite()
	<-done
}

// publish takes the ports that a container asks for, or none. Without a network
// that leads out there is nothing to publish by, as in Docker. Preconditions: r.mu.
func (r *Room) publish(asked record.Net, v4, v6 *end) error {
	first := v4
	if first == nil {
		first = v6
	}
	ports := published(asked)
	if len(ports) == 0 || first == nil || first.net.rec.Driver != driverBridge && first.net.rec.Driver != driverCNI {
		return nil
	}
	r.ports.look()
	for _, p := range ports {
		if err := r.publishOne(p, v4, v6); err != nil {
			return external(first, err)
		}
	}
	if first.net.rec.Driver == driverCNI {
		return nil // its plugins do
	}
	openDirectly(ports, v4, v6)
	var s nft.State
	for _, e := range []*end{v4, v6} {
		if e != nil && (e == v4 || v4 != v6) {
			s = both(s, e.rules())
		}
	}
	if err := r.inTable(s, true); err != nil {
		for _, e := range []*end{v4, v6} { // nothing of it is in the table
			if e != nil {
				for _, b := range e.ports {
					r.ports.free(b)
				}
				e.ports, e.direct = nil, nil
			}
		}
		return external(first, err)
	}
	r.forget(s.Ports)
	return nil
}

// forget has the kernel forget flows of UDP to ports that change hands.
func (r *Room) forget(ports []nft.Port) {
	var udp []uint16
	for _, p := range ports {
		if p.Proto == unix.IPPROTO_UDP {
			udp = append(udp, p.Host.Port())
		}
	}
	if len(udp) == 0 {
		return
	}
	if err := nft.Forget(udp); err != nil {
		r.cfg.Log.Warn("senders of UDP that began before may not reach a published port", "error", err)
	}
}

func external(e *end, err error) error {
	return fault.Wrap(fault.ClassOf(err), "", "", errors.New("driver failed programming external connectivity on endpoint "+e.name+" ("+e.ep.ID+"): "+err.Error()), fault.HintOf(err))
}

// published is the ports that a container asks for.
func published(asked record.Net) []record.Port {
	if asked.PublishAll {
		return withExposed(asked)
	}
	return asked.Ports
}

func withExposed(asked record.Net) []record.Port {
	out := append([]record.Port{}, asked.Ports...)
	has := map[string]bool{}
	for _, p := range out {
		has[p.Key()] = true
	}
	for _, e := range asked.Exposed {
		number, proto, _ := strings.Cut(e, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err == nil && !has[e] {
			out = append(out, record.Port{Proto: proto, Container: uint16(n)})
		}
	}
	return out
}

// publishOne finds a port of the host that is free on every address it is
// wanted on.
func (r *Room) publishOne(p record.Port, v4, v6 *end) error {
	first, last := p.Host, p.HostEnd
	if last == 0 {
		last = first
	}
	if first == 0 {
		return r.publishAny(p, v4, v6)
	}
	var err error
	for port := int(first); port <= int(last); port++ {
		if err = r.tryPort(p, uint16(port), v4, v6); err == nil || first == last {
			return err
		}
	}
	return fault.Wrap(fault.Conflict, "", "", errors.New("all ports are allocated: "+err.Error()), "")
}

// publishAny takes any port of the range that the kernel takes them of.
func (r *Room) publishAny(p record.Port, v4, v6 *end) error {
	low, high := r.ports.low, r.ports.high
	var err error
	for range high - low + 1 {
		if int(r.ports.next) < low || int(r.ports.next) > high {
			r.ports.next = uint16(low)
		}
		port := r.ports.next
		r.ports.next++
		if err = r.tryPort(p, port, v4, v6); err == nil {
			return nil
		}
	}
	return fault.Wrap(fault.Exhausted, "", "", errors.New("all ports are allocated: "+err.Error()), "")
}

// look reads the range that the kernel takes ports of that nobody names (ip(7)).
func (t *portTable) look() {
	t.low, t.high = 32768, 60999
	if f := strings.Fields(link.Get("ipv4/ip_local_port_range")); len(f) == 2 {
		a, err1 := strconv.Atoi(f[0])
		b, err2 := strconv.Atoi(f[1])
		if err1 == nil && err2 == nil && a > 0 && b >= a && b < 65536 {
			t.low, t.high = a, b
		}
	}
}

func (r *Room) tryPort(p record.Port, port uint16, v4, v6 *end) error {
	var list []*binding
	where := slices.DeleteFunc(addressesFor(p, v4, v6), func(at netip.Addr) bool { return onlyDirectly(at, v4, v6) })
	if len(where) == 0 {
		return nil
	}
	for _, at := range where {
		b := &binding{pub: record.Published{Proto: p.Proto, Container: p.Container, HostIP: at, Host: port}}
		if b.lead(v4, v6) {
			list = append(list, b)
		}
	}
	if len(list) == 0 {
		return fault.New(fault.Unsupported, "publish", p.Key(), "SCTP is led by the kernel alone, which leads nothing from ::1 or to another family than the container has", "name an address of a family that the container has, or use TCP or UDP")
	}
	failed, err := r.ports.bind(list)
	if err != nil && len(list) > 1 && failed.pub.HostIP.Is6() && errors.Is(err, unix.EAFNOSUPPORT) { // ipv6.disable=1
		list = slices.DeleteFunc(list, func(b *binding) bool { return b == failed })
		failed, err = r.ports.bind(list)
	}
	if err != nil {
		return inUse(failed, err)
	}
	for _, b := range list {
		b.end.ports = append(b.end.ports, b)
	}
	return nil
}

// inUse puts a port that cannot be had into Docker's words.
func inUse(b *binding, err error) error {
	at := netip.AddrPortFrom(b.pub.HostIP, b.pub.Host).String()
	if errors.Is(err, errTaken) {
		return fault.Wrap(fault.Conflict, "", "", errors.New("Bind for "+at+" failed: port is already allocated"), "another container has published it: fief ps")
	}
	cause := err
	if errno := unix.Errno(0); errors.As(err, &errno) {
		cause = errno
	}
	class := fault.Conflict
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		class = fault.Denied
	}
	return fault.Wrap(class, "", "", errors.New("failed to bind host port for "+at+":"+b.target().String()+"/"+b.pub.Proto+": "+cause.Error()), "")
}

// addressesFor is where a port is published: where it was asked for, else where
// its network says, else everywhere.
func addressesFor(p record.Port, v4, v6 *end) []netip.Addr {
	if p.HostIP.IsValid() {
		return []netip.Addr{p.HostIP}
	}
	if v4 != nil {
		if a, err := netip.ParseAddr(v4.net.rec.Options[optBinding]); err == nil && !a.IsUnspecified() {
			return []netip.Addr{a}
		}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// lead decides who a binding leads to, and how; false when it cannot. The table
// rewrites within a family, but not what is sent to ::1; the rest is passed on,
// which SCTP cannot be.
func (b *binding) lead(v4, v6 *end) bool {
	same, other := v4, v6
	if b.pub.HostIP.Is6() {
		same, other = v6, v4
	}
	b.end = same
	if b.end == nil {
		b.end = other
	}
	if b.end == nil || b.pub.Proto == "sctp" && (same == nil || b.pub.HostIP == netip.IPv6Loopback()) {
		return false
	}
	if b.end.net.rec.Driver == driverCNI {
		b.leadTo(b.end.listed(b.pub))
		return true
	}
	b.nat = same != nil
	ip := b.end.ep.IP4
	if b.pub.HostIP.Is6() == b.nat {
		ip = b.end.ep.IP6
	}
	b.leadTo(netip.AddrPortFrom(ip.Addr(), b.pub.Container))
	return true
}

// rebind takes the ports again that an earlier daemon had. Of one that cannot be
// had the rules stay: connections of before use them.
func (r *Room) rebind(all []record.Published, v4, v6 *end) error {
	var failures []error
	for len(all) > 0 {
		n := 1
		if len(all) > 1 && all[0].Proto == all[1].Proto && all[0].Host == all[1].Host && all[0].Container == all[1].Container {
			n = 2
		}
		var list []*binding
		for _, pub := range all[:n] {
			if b := (&binding{pub: pub}); b.lead(v4, v6) {
				list = append(list, b)
			} else {
				failures = append(failures, fault.New(fault.NotFound, "publish", pub.Key(), "its network is gone", ""))
			}
		}
		if _, err := r.ports.bind(list); err != nil {
			for _, b := range list { // one of them may be free
				if _, err := r.ports.bind([]*binding{b}); err != nil {
					failures = append(failures, inUse(b, err))
				}
			}
		}
		for _, b := range list {
			b.end.ports = append(b.end.ports, b)
		}
		all = all[n:]
	}
	return errors.Join(failures...)
}
