package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// binding is a port of the host that is the room's: reserved by a socket, so
// that no program of the host gets it, and led to a container by the table of
// rules, or where that cannot be by the daemon itself.
type binding struct {
	pub    record.Published
	target netip.AddrPort
	nat    bool // the table leads to target; else connections are passed on
	socket io.Closer
	passTo atomic.Pointer[netip.AddrPort] // target, once it is known
}

// leadTo has the binding lead to an address from now on.
func (b *binding) leadTo(to netip.AddrPort) {
	b.target = to
	b.passTo.Store(&to)
}

func (b *binding) close() {
	if b.socket != nil {
		b.socket.Close()
	}
}

func (b *binding) rule() nft.Port {
	return nft.Port{Proto: protocols[b.pub.Proto], Host: netip.AddrPortFrom(b.pub.HostIP, b.pub.Host), To: b.target}
}

var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// portTable is which ports of the host the room has.
type portTable struct {
	taken map[portKey][]*binding
	next  uint16 // where the search for a free one goes on
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

// bind takes a port.
func (t *portTable) bind(b *binding) error {
	key := portKey{b.pub.Proto, b.pub.Host}
	for _, other := range t.taken[key] {
		a, o := b.pub.HostIP, other.pub.HostIP
		if a.Is4() == o.Is4() && (a == o || a.IsUnspecified() || o.IsUnspecified()) {
			return fault.Wrap(fault.Conflict, "", "", errTaken, "")
		}
	}
	if err := b.reserve(); err != nil {
		return err
	}
	if t.taken == nil {
		t.taken = map[portKey][]*binding{}
	}
	t.taken[key] = append(t.taken[key], b)
	return nil
}

// reserve keeps the port from the host's programs. A TCP socket also takes the
// connections that the table does not see or cannot lead: to ::1, to a family
// that the container has no address of, and while the table is being made again.
func (b *binding) reserve() (err error) {
	at := netip.AddrPortFrom(b.pub.HostIP, b.pub.Host).String()
	family := "4"
	if b.pub.HostIP.Is6() {
		family = "6"
	}
	switch b.pub.Proto {
	case "tcp":
		var l net.Listener
		if l, err = net.Listen("tcp"+family, at); err == nil {
			b.socket = l
			go pass(l, &b.passTo)
		}
	case "udp":
		var c net.PacketConn
		if c, err = net.ListenPacket("udp"+family, at); err == nil {
			b.socket = c
		}
	}
	return err
}

// pass hands connections on to a container. There is none before its address is
// known.
func pass(l net.Listener, target *atomic.Pointer[netip.AddrPort]) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			at := target.Load()
			if at == nil || !at.IsValid() {
				return
			}
			to, err := net.Dial("tcp", at.String())
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
		}()
	}
}

// publish takes the ports that a container asks for, or none. Without a network
// that leads out there is nothing to publish by, as in Docker. Preconditions: r.mu.
func (r *Room) publish(asked record.Net, v4, v6 *end) error {
	first := v4
	if first == nil {
		first = v6
	}
	ports := asked.Ports
	if asked.PublishAll {
		ports = withExposed(asked)
	}
	if len(ports) == 0 || first == nil || first.net.rec.Driver != driverBridge && first.net.rec.Driver != driverCNI {
		return nil
	}
	for _, p := range ports {
		if err := r.publishOne(p, v4, v6); err != nil {
			return external(first, err)
		}
	}
	if first.net.rec.Driver == driverCNI {
		return nil // its plugins do
	}
	var s nft.State
	for _, e := range []*end{v4, v6} {
		if e != nil && (e == v4 || v4 != v6) {
			rules := e.rules()
			s.Ports, s.Published = append(s.Ports, rules.Ports...), append(s.Published, rules.Published...)
		}
	}
	if err := r.inTable(s, true); err != nil {
		for _, e := range []*end{v4, v6} { // nothing of it is in the table
			if e != nil {
				for _, b := range e.ports {
					r.ports.free(b)
				}
				e.ports = nil
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
	low, high := 32768, 60999
	if f := strings.Fields(link.Get("ipv4/ip_local_port_range")); len(f) == 2 {
		a, err1 := strconv.Atoi(f[0])
		b, err2 := strconv.Atoi(f[1])
		if err1 == nil && err2 == nil && a > 0 && b >= a && b < 65536 {
			low, high = a, b
		}
	}
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

func (r *Room) tryPort(p record.Port, port uint16, v4, v6 *end) error {
	var made []*binding
	var owner []*end
	for _, at := range addressesFor(p, v4, v6) {
		b := &binding{pub: record.Published{Proto: p.Proto, Container: p.Container, HostIP: at, Host: port}}
		e := b.lead(v4, v6)
		if e == nil {
			if p.HostIP.IsValid() {
				return fault.Say(fault.Invalid, "cannot publish "+p.Key()+" on "+at.String()+": the container has no address of that family, and only TCP is passed on")
			}
			continue
		}
		if err := r.ports.bind(b); err != nil {
			for _, undo := range made {
				r.ports.free(undo)
			}
			return inUse(b, err)
		}
		made, owner = append(made, b), append(owner, e)
	}
	for i, b := range made {
		owner[i].ports = append(owner[i].ports, b)
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
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		var errno unix.Errno
		if errors.As(op.Err, &errno) {
			cause = errno
		}
	}
	class := fault.Conflict
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		class = fault.Denied
	}
	return fault.Wrap(class, "", "", errors.New("failed to bind host port for "+at+":"+b.target.String()+"/"+b.pub.Proto+": "+cause.Error()), "")
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

// lead decides who a binding leads to, and how; nil when it cannot. The table
// rewrites within a family; TCP is passed on between them.
func (b *binding) lead(v4, v6 *end) *end {
	same, other := v4, v6
	if b.pub.HostIP.Is6() {
		same, other = v6, v4
	}
	e := same
	if e == nil {
		e = other
	}
	if e == nil || same == nil && b.pub.Proto != "tcp" {
		return nil
	}
	if e.net.rec.Driver == driverCNI {
		b.leadTo(e.listed(b.pub))
		return e
	}
	b.nat = same != nil
	ip := e.ep.IP4
	if b.pub.HostIP.Is6() == b.nat {
		ip = e.ep.IP6
	}
	b.leadTo(netip.AddrPortFrom(ip.Addr(), b.pub.Container))
	return e
}

// rebind takes a port again that an earlier daemon had.
func (r *Room) rebind(pub record.Published, v4, v6 *end) error {
	b := &binding{pub: pub}
	e := b.lead(v4, v6)
	if e == nil {
		return fault.New(fault.NotFound, "publish", pub.Key(), "its network is gone", "")
	}
	err := r.ports.bind(b)
	if err != nil { // the rules stay: connections of before use them
		err = inUse(b, err)
		b.socket = nil
	}
	e.ports = append(e.ports, b)
	return err
}
