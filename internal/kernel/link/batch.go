package link

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// batch is requests in a row that go to the kernel in one write. It carries
// out each of them, also after one that failed (netlink(7)); what counts is the
// first failure.
type batch struct{ b []byte }

// add appends a request that the kernel answers with a single error or success.
func (b *batch) add(kind, flags uint16, payload []byte) {
	b.b = binary.NativeEndian.AppendUint32(b.b, uint32(unix.SizeofNlMsghdr+len(payload)))
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = binary.NativeEndian.AppendUint16(b.b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	b.b = binary.NativeEndian.AppendUint32(b.b, 0) // numbered by send
	b.b = binary.NativeEndian.AppendUint32(b.b, 0)
	b.b = append(b.b, payload...)
	b.b = append(b.b, make([]byte, -len(b.b)&3)...)
}

// send numbers the requests of a batch, writes them at once and waits for every
// answer. A failure says which kind of request it was about.
func (c *conn) send(b []byte) error {
	n := 0
	for at := 0; at+unix.SizeofNlMsghdr <= len(b); n++ {
		size := int(binary.NativeEndian.Uint32(b[at:]))
		if size < unix.SizeofNlMsghdr || size > len(b)-at {
			return fault.New(fault.Internal, opTalk, "network devices", "a request is cut off", "")
		}
		binary.NativeEndian.PutUint32(b[at+8:], c.seq+1+uint32(n))
		at += (size + 3) &^ 3
	}
	if n == 0 {
		return nil
	}
	first := c.seq + 1
	c.seq += uint32(n)
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fault.Wrap(fault.Internal, opTalk, "network devices", err, "")
	}
	var failure error
	buf := make([]byte, 4096) // an answer repeats its request; only the head is read
	for n > 0 {
		size, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Internal, opTalk, "network devices", err, "")
		}
		const head = unix.SizeofNlMsghdr + 4
		if size < head || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(buf[8:])-first >= c.seq-first+1 {
			continue
		}
		n--
		if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:]))); errno != 0 && failure == nil {
			kind := uint16(0)
			if size >= head+6 {
				kind = binary.NativeEndian.Uint16(buf[head+4:])
			}
			failure = refusal(kind, errno)
		}
	}
	return failure
}

// refusal puts the kernel's refusal of a request into words.
func refusal(kind uint16, errno unix.Errno) error {
	op := map[uint16]string{
		unix.RTM_NEWLINK: "make or change a network device", unix.RTM_SETLINK: "change a network device", unix.RTM_DELLINK: "delete a network device",
		unix.RTM_NEWADDR: "add a network address", unix.RTM_NEWROUTE: "add a route", unix.RTM_DELROUTE: "delete a route",
	}[kind]
	if op == "" {
		op = opTalk + " network devices"
	}
	hint := ""
	switch errno {
	case unix.EPERM:
		hint = "CAP_NET_ADMIN is needed in the network namespace of the daemon"
	case unix.EOPNOTSUPP:
		hint = "the kernel has no such device: load its module (veth, bridge, macvlan, ipvlan)"
	}
	return fault.Wrap(sysx.Class(errno), op, "", errno, hint)
}

// linkHeader is a struct ifinfomsg. A device is named by index, or by an
// IFLA_IFNAME that follows.
func linkHeader(index int32, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

func text(b []byte, kind uint16, s string) []byte { return attribute(b, kind, append([]byte(s), 0)) }

func number(b []byte, kind uint16, n uint32) []byte {
	return attribute(b, kind, binary.NativeEndian.AppendUint32(nil, n))
}

// nest appends an attribute that holds attributes.
func nest(b []byte, kind uint16, inner []byte) []byte {
	return attribute(b, kind|unix.NLA_F_NESTED, inner)
}

// Addr is an address with the length of its network: 4 bytes or 16.
type Addr struct {
	IP   []byte
	Bits uint8
}

func (a Addr) family() uint8 {
	if len(a.IP) == 4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// message is a RTM_NEWADDR for the device with that index. Addresses of IPv6
// are used without looking for duplicates (RFC 4862, 5.4): the network gives
// each only once, and a program would wait a second for it.
func (a Addr) message(index int32) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1], b[3] = a.family(), a.Bits, unix.RT_SCOPE_UNIVERSE
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b = attribute(b, unix.IFA_LOCAL, a.IP)
	b = attribute(b, unix.IFA_ADDRESS, a.IP)
	if a.family() == unix.AF_INET6 {
		return number(b, unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
	if a.Bits < 31 {
		b = attribute(b, unix.IFA_BROADCAST, a.broadcast())
	}
	return b
}

func (a Addr) broadcast() []byte {
	n := binary.BigEndian.Uint32(a.IP) | ^uint32(0)>>a.Bits
	return binary.BigEndian.AppendUint32(nil, n)
}

// Route leads to To, everything when that has no IP, by a gateway of the same
// family, or when Via is empty straight out of the device.
type Route struct {
	To     Addr
	Via    []byte
	Metric uint32
}

func (r Route) message(index int32) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	family := Addr{IP: r.Via}.family()
	if r.Via == nil {
		family = r.To.family()
	}
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if r.Via == nil && family == unix.AF_INET {
		scope = unix.RT_SCOPE_LINK
	}
	b[0], b[1], b[4], b[5], b[6], b[7] = family, r.To.Bits, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST
	if len(r.To.IP) > 0 {
		b = attribute(b, unix.RTA_DST, r.To.IP)
	}
	b = number(b, unix.RTA_OIF, uint32(index))
	if r.Via != nil {
		b = attribute(b, unix.RTA_GATEWAY, r.Via)
	}
	if r.Metric != 0 {
		b = number(b, unix.RTA_PRIORITY, r.Metric)
	}
	return b
}
