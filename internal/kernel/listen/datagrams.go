package listen

import (
	"container/list"
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Lead says where datagrams that came by IPv4, or by IPv6, are passed on to;
// an address that is not valid: nowhere, they are dropped. It must not wait.
type Lead func(four bool) netip.AddrPort

const (
	// idleFor is how long a flow is remembered after its last datagram in either
	// direction, as long as by docker-proxy.
	idleFor = 90 * time.Second
	// mostFlows bounds the flows of all ports, each of which has a descriptor. Of
	// too many the one that was idle longest ends: its client goes on as another.
	mostFlows = 4096
	// round bounds the datagrams that are passed on before another socket has its
	// turn.
	round = 64
)

// datagrams is what a keeper has for passing on datagrams. What is in it is
// guarded by Keeper.mu.
type datagrams struct {
	flows map[flowKey]*list.Element
	used  list.List // of *flow, the last used first
	sweep *time.Timer
	buf   []byte
	oob   []byte
}

// flowKey is a client as a port sees it: under which of the host's addresses it
// speaks to whom counts, as an answer has to come from there.
type flowKey struct {
	port   *Port
	client netip.AddrPort
	here   netip.Addr
}

// flow is the datagrams between a client and where its port leads: a socket of its
// own, so that answers are known to be its.
type flow struct {
	flowKey
	fd     int
	key    int32
	to     unix.Sockaddr // the client's
	source []byte        // the control message by which answers come from here
	last   time.Time
	peer   netip.AddrPort
}

// UDP keeps a port of UDP, as TCP does. Datagrams that come to it are passed on to
// where lead says, and their answers back, by the daemon; with no lead, what comes
// is not read.
func (k *Keeper) UDP(at netip.AddrPort, both bool, lead Lead) (*Port, error) {
	fd, err := bound(unix.SOCK_DGRAM, at, both)
	if err != nil {
		return nil, err
	}
	p := &Port{keeper: k, fd: fd, lead: lead}
	if lead == nil {
		return p, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err = k.begin(); err == nil {
		err = told(fd, at.Addr().Is4())
	}
	if err == nil {
		p.key = k.key()
		err = k.control(unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: p.key})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	k.byKey[p.key] = p
	return p, nil
}

// told has a socket say to which address of the host a datagram was sent: ip(7),
// ipv6(7). A socket of IPv6 says it of IPv4 as well, as an address of ::ffff:0:0/96.
func told(fd int, four bool) error {
	if four {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// receive passes on what clients have sent to a port. Preconditions: k.mu.
func (k *Keeper) receive(p *Port) {
	if k.buf == nil {
		k.buf, k.oob = make([]byte, 1<<16), make([]byte, 256)
	}
	for range round {
		n, oobn, flags, from, err := unix.Recvmsg(p.fd, k.buf, k.oob, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		if flags&unix.MSG_TRUNC != 0 {
			continue
		}
		if f := k.flow(p, from, k.oob[:oobn]); f != nil {
			unix.Sendto(f.fd, k.buf[:n], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) // what is lost is lost, as on any way
		}
	}
}

// answer passes on what a client is answered. Preconditions: k.mu.
func (k *Keeper) answer(f *flow) {
	for range round {
		n, _, err := unix.Recvfrom(f.fd, k.buf, unix.MSG_DONTWAIT)
		switch err {
		case nil:
			k.reply(f, k.buf[:n])
			k.touch(f)
		case unix.EAGAIN:
			return
		}
		// Another error is of a datagram before: nobody listened. The client may try
		// again.
	}
}

// reply sends a client what it is answered. The address that it has sent to may be
// none that an answer can come from, of a broadcast for one: the kernel chooses
// then.
func (k *Keeper) reply(f *flow, data []byte) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if err := unix.Sendmsg(f.port.fd, data, f.source, f.to, flags); err == unix.EINVAL && f.source != nil {
		f.source = nil
		unix.Sendmsg(f.port.fd, data, nil, f.to, flags)
	}
}

// touch notes that a flow is used. Preconditions: k.mu.
func (k *Keeper) touch(f *flow) {
	f.last = time.Now()
	k.used.MoveToFront(k.flows[f.flowKey])
}

// flow finds the flow of a client, or begins it; nil when there is nowhere to lead
// it, or no socket for it. Preconditions: k.mu.
func (k *Keeper) flow(p *Port, from unix.Sockaddr, oob []byte) *flow {
	client := addrPort(from)
	here, source := source(oob)
	key := flowKey{p, client, here}
	to := p.lead(client.Addr().Unmap().Is4())
	if e := k.flows[key]; e != nil {
		f := e.Value.(*flow)
		if f.peer == to {
			k.touch(f)
			return f
		}
		k.end(f)
	}
	if !client.IsValid() || !to.IsValid() {
		return nil
	}
	if len(k.flows) >= k.most() {
		k.end(k.used.Back().Value.(*flow))
	}
	fd, err := connected(to)
	if err != nil {
		return nil
	}
	f := &flow{flowKey: key, fd: fd, key: k.key(), to: from, source: source, last: time.Now(), peer: to}
	if err := k.control(unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: f.key}); err != nil {
		unix.Close(fd)
		return nil
	}
	if k.flows == nil {
		k.flows = map[flowKey]*list.Element{}
	}
	k.flows[key] = k.used.PushFront(f)
	k.byKey[f.key] = f
	if len(k.flows) == 1 {
		k.sweepIn(k.idle())
	}
	return f
}

func (k *Keeper) idle() time.Duration {
	if k.Idle > 0 {
		return k.Idle
	}
	return idleFor
}

func (k *Keeper) most() int {
	if k.Flows > 0 {
		return k.Flows
	}
	return mostFlows
}

// end ends a flow. Preconditions: k.mu.
func (k *Keeper) end(f *flow) {
	k.used.Remove(k.flows[f.flowKey])
	delete(k.flows, f.flowKey)
	delete(k.byKey, f.key)
	unix.Close(f.fd)
}

// endAll ends the flows of a port, or of all with nil. Preconditions: k.mu.
func (k *Keeper) endAll(p *Port) {
	for e := k.used.Front(); e != nil; {
		f := e.Value.(*flow)
		e = e.Next()
		if p == nil || f.port == p {
			k.end(f)
		}
	}
	if k.sweep != nil && len(k.flows) == 0 {
		k.sweep.Stop()
	}
}

// sweepIn ends flows that have been idle, once the one that was used least lately
// may be one. Preconditions: k.mu.
func (k *Keeper) sweepIn(d time.Duration) {
	k.sweep = time.AfterFunc(d, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for e := k.used.Back(); e != nil; e = k.used.Back() {
			f := e.Value.(*flow)
			if left := k.idle() - time.Since(f.last); left > 0 {
				k.sweepIn(left)
				return
			}
			k.end(f)
		}
	})
}

// connected is a socket that speaks with one peer alone.
func connected(to netip.AddrPort) (int, error) {
	family, sa, err := sockaddr(to)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// addrPort is a socket's address; the zone of a link-local one is its number.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// source is the address of the host that a datagram was sent to, and the control
// message by which the answer comes from there. Without one, and of a datagram to
// several, the kernel chooses.
func source(oob []byte) (here netip.Addr, control []byte) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return here, nil
	}
	for _, m := range list {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: the device, the local address, the header's address.
			local := [4]byte(m.Data[4:8])
			return netip.AddrFrom4(local), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local})
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			ip := netip.AddrFrom16([16]byte(m.Data[:16]))
			if ip.IsMulticast() {
				return here, nil
			}
			info := unix.Inet6Pktinfo{Addr: ip.As16()}
			if ip.IsLinkLocalUnicast() {
				info.Ifindex = binary.NativeEndian.Uint32(m.Data[16:])
				ip = ip.WithZone(strconv.Itoa(int(info.Ifindex)))
			}
			return ip, unix.PktInfo6(&info)
		}
	}
	return here, nil
}
