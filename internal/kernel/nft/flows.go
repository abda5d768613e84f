package nft

import (
	"encoding/binary"
	"errors"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of connections (linux/netfilter/nfnetlink_conntrack.h), which x/sys
// does not name.
const (
	subsysConntrack = 1
	getConnection   = 1
	delConnection   = 2
	tupleOriginal   = 1
	tupleProto      = 2
	protoNumber     = 1
	protoDestPort   = 3
)

// Forget ends what the kernel remembers of UDP that was sent to ports of the
// host. A flow keeps the rules it has begun under for as long as its sender goes
// on: one that began before a port was published would never be led to the
// container, and one of a container that has ended would be led to whoever has
// its address next.
func Forget(ports []uint16) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return refusal("forget flows", err)
	}
	defer conn.Close()
	wanted := map[uint16]bool{}
	for _, p := range ports {
		wanted[p] = true
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		head := []byte{family, 0, 0, 0} // struct nfgenmsg
		list, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: subsysConntrack<<8 | getConnection, Flags: netlink.Request | netlink.Dump}, Data: head,
		})
		if err != nil {
			return refusal("forget flows", err)
		}
		for _, m := range list {
			tuple := sentTo(m.Data, wanted)
			if tuple == nil {
				continue
			}
			data, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: tupleOriginal | unix.NLA_F_NESTED, Data: tuple}})
			if err != nil {
				return refusal("forget flows", err)
			}
			_, err = conn.Execute(netlink.Message{
				Header: netlink.Header{Type: subsysConntrack<<8 | delConnection, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append(append([]byte{}, head...), data...),
			})
			if err != nil && !errors.Is(err, unix.ENOENT) { // it has ended by itself
				return refusal("forget flows", err)
			}
		}
	}
	return nil
}

// sentTo returns the first packet's addresses of a flow if it is UDP to one of
// the ports.
func sentTo(m []byte, ports map[uint16]bool) []byte {
	tuple := inner(m, 4, tupleOriginal)
	proto := inner(tuple, 0, tupleProto)
	number, port := inner(proto, 0, protoNumber), inner(proto, 0, protoDestPort)
	if len(number) != 1 || number[0] != unix.IPPROTO_UDP || len(port) != 2 || !ports[binary.BigEndian.Uint16(port)] {
		return nil
	}
	return tuple
}

// inner finds an attribute behind a header; nil when there is none.
func inner(b []byte, skip int, kind uint16) []byte {
	if len(b) < skip {
		return nil
	}
	attrs, err := netlink.UnmarshalAttributes(b[skip:])
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		if a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return a.Data
		}
	}
	return nil
}
