package netin

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Table is the name of the table that leads, of the family ip.
const Table = "fief-dns"

// NFT_META_L4PROTO, NF_INET_LOCAL_OUT and others that x/sys does not name
// (linux/netfilter/nf_tables.h, linux/netfilter.h, linux/netfilter_ipv4.h).
const (
	hookOutput     = 3
	priorityDstNAT = -100
	batchBegin     = 0x10 // NFNL_MSG_BATCH_BEGIN, of no subsystem
	batchEnd       = 0x11
)

const (
	opLead = "lead a port in network namespace"
	needed = "the kernel needs nf_tables with NAT (CONFIG_NF_TABLES_IPV4, CONFIG_NFT_NAT); without it names of containers cannot be looked up"
)

// Lead has what programs of the namespace send to a well-known address and port,
// by UDP and TCP, arrive at another port of that address. It replaces what an
// earlier call said. Whoever is root in the namespace can alter it, to their own
// programs' loss only: the table is theirs, and the sockets answer nobody else.
//
// The answers find their way back by the kernel's table of connections: a rule
// for them is not needed, as every answer belongs to a question.
func Lead(netns *os.File, known netip.AddrPort, to uint16) error {
	if !known.Addr().Is4() {
		return fault.New(fault.Invalid, opLead, known.String(), "only IPv4 is led", "")
	}
	err := commit(netns, known, to, false)
	if err == unix.EEXIST {
		err = commit(netns, known, to, true)
	}
	return refused(known, err)
}

// commit makes the table, in place of one there is or only where there is none:
// to remove one, though it be made in the same transaction, takes the kernel half
// a millisecond. The error is the kernel's errno, or link's.
func commit(netns *os.File, known netip.AddrPort, to uint16, again bool) error {
	fd := -1 // of this transaction alone: what else it is told of a failed one goes with it
	err := link.Within(netns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b, last := table(known, to, again)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return answered(fd, last)
}

// answered waits for what the kernel says of a batch: the first failure of any
// request, or that the last one was carried out, which is said only when all
// were (nfnetlink_rcv_batch).
func answered(fd int, last uint32) error {
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.SizeofNlMsghdr+4; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr+4 || size > len(b) {
				return unix.EBADMSG
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				errno := -int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:]))
				if errno != 0 {
					return unix.Errno(errno)
				}
				if binary.NativeEndian.Uint32(b[8:]) == last {
					return nil
				}
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func refused(known netip.AddrPort, err error) error {
	if err == nil {
		return nil
	}
	class, hint := fault.Internal, ""
	if errno, ok := err.(unix.Errno); ok {
		switch class = sysx.Class(errno); errno {
		case unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.ENOENT:
			class, hint = fault.Unsupported, needed
		}
	}
	return fault.Wrap(class, opLead, known.String(), err, hint)
}

// table is the requests that make the table anew, in one transaction, and the
// number of the last one that the kernel answers.
func table(known netip.AddrPort, to uint16, again bool) ([]byte, uint32) {
	var b batch
	name := text(nil, unix.NFTA_TABLE_NAME, Table)
	b.add(batchBegin, 0, unix.AF_UNSPEC, nil)
	if again {
		b.add(msg(unix.NFT_MSG_NEWTABLE), unix.NLM_F_CREATE, unix.AF_INET, name) // one that is not there cannot be deleted
		b.add(msg(unix.NFT_MSG_DELTABLE), 0, unix.AF_INET, name)
	}
	b.add(msg(unix.NFT_MSG_NEWTABLE), unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.AF_INET, name)
	const chain = "output"
	hook := number(nil, unix.NFTA_HOOK_HOOKNUM, hookOutput)
	hook = number(hook, unix.NFTA_HOOK_PRIORITY, uint32(priorityDstNAT&0xffffffff))
	c := text(nil, unix.NFTA_CHAIN_TABLE, Table)
	c = text(c, unix.NFTA_CHAIN_NAME, chain)
	c = nest(c, unix.NFTA_CHAIN_HOOK, hook)
	c = text(c, unix.NFTA_CHAIN_TYPE, "nat")
	b.add(msg(unix.NFT_MSG_NEWCHAIN), unix.NLM_F_CREATE, unix.AF_INET, c)
	for i, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		r := text(nil, unix.NFTA_RULE_TABLE, Table)
		r = text(r, unix.NFTA_RULE_CHAIN, chain)
		r = nest(r, unix.NFTA_RULE_EXPRESSIONS, rule(proto, known, to))
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
		if i == 1 {
			flags |= unix.NLM_F_ACK
		}
		b.add(msg(unix.NFT_MSG_NEWRULE), flags, unix.AF_INET, r)
	}
	last := b.seq
	b.add(batchEnd, 0, unix.AF_UNSPEC, nil)
	return b.b, last
}

func msg(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

// rule is "ip daddr ADDR meta l4proto PROTO th dport PORT dnat to ADDR:TO".
func rule(proto byte, known netip.AddrPort, to uint16) []byte {
	ip := known.Addr().AsSlice()
	port := binary.BigEndian.AppendUint16(nil, known.Port())
	var b []byte
	b = expr(b, "payload", load(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4)) // struct iphdr, daddr
	b = expr(b, "cmp", equals(ip))
	b = expr(b, "meta", number(number(nil, unix.NFTA_META_DREG, unix.NFT_REG_1), unix.NFTA_META_KEY, unix.NFT_META_L4PROTO))
	b = expr(b, "cmp", equals([]byte{proto}))
	b = expr(b, "payload", load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)) // the destination's port, of both protocols
	b = expr(b, "cmp", equals(port))
	b = expr(b, "immediate", value(number(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1), unix.NFTA_IMMEDIATE_DATA, ip))
	b = expr(b, "immediate", value(number(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_2), unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, to)))
	nat := number(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
	nat = number(nat, unix.NFTA_NAT_FAMILY, unix.AF_INET)
	nat = number(nat, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	nat = number(nat, unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2)
	return expr(b, "nat", nat)
}

func load(base, offset, size uint32) []byte {
	b := number(nil, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
	b = number(b, unix.NFTA_PAYLOAD_BASE, base)
	b = number(b, unix.NFTA_PAYLOAD_OFFSET, offset)
	return number(b, unix.NFTA_PAYLOAD_LEN, size)
}

func equals(v []byte) []byte {
	b := number(nil, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
	b = number(b, unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
	return value(b, unix.NFTA_CMP_DATA, v)
}

func value(b []byte, kind uint16, v []byte) []byte {
	return nest(b, kind, attribute(nil, unix.NFTA_DATA_VALUE, v))
}

func expr(b []byte, name string, data []byte) []byte {
	return nest(b, unix.NFTA_LIST_ELEM, nest(text(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA, data))
}

// batch is requests in a row (netlink(7), linux/netfilter/nfnetlink.h).
type batch struct {
	b   []byte
	seq uint32 // of the last one
}

func (b *batch) add(kind, flags uint16, family byte, payload []byte) {
	b.seq++
	const head = unix.SizeofNlMsghdr + 4 // and a struct nfgenmsg
	b.b = binary.NativeEndian.AppendUint32(b.b, uint32(head+len(payload)))
	b.b = binary.NativeEndian.AppendUint16(b.b, kind)
	b.b = binary.NativeEndian.AppendUint16(b.b, unix.NLM_F_REQUEST|flags)
	b.b = binary.NativeEndian.AppendUint32(b.b, b.seq)
	b.b = binary.NativeEndian.AppendUint32(b.b, 0)
	b.b = append(b.b, family, unix.NFNETLINK_V0)
	res := uint16(0)
	if kind == batchBegin || kind == batchEnd {
		res = unix.NFNL_SUBSYS_NFTABLES
	}
	b.b = binary.BigEndian.AppendUint16(b.b, res)
	b.b = append(b.b, payload...) // attributes are padded
}

// attribute appends one; numbers of nf_tables are in the order of the network.
func attribute(b []byte, kind uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&3)...)
}

func text(b []byte, kind uint16, s string) []byte { return attribute(b, kind, append([]byte(s), 0)) }

func number(b []byte, kind uint16, n uint32) []byte {
	return attribute(b, kind, binary.BigEndian.AppendUint32(nil, n))
}

func nest(b []byte, kind uint16, inner []byte) []byte {
	return attribute(b, kind|unix.NLA_F_NESTED, inner)
}
