package netin

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nfwire"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Table is the name of the table that leads, of the family ip.
const Table = "fief-dns"

// NFT_META_L4PROTO, NF_INET_LOCAL_OUT and others that x/sys does not name
// (linux/netfilter/nf_tables.h, linux/netfilter.h, linux/netfilter_ipv4.h).
const (
	hookOutput     = 3
	priorityDstNAT = -100 // also of the filter, which stands where dnat would
)

const (
	opLead = "lead a port in network namespace"
	needed = "the kernel needs nf_tables (CONFIG_NF_TABLES_IPV4), since Linux 7.2 with NAT (CONFIG_NFT_NAT); without it names of containers cannot be looked up"
)

// Lead has what programs of the namespace send to a well-known address and port,
// by UDP and TCP, arrive at another port of that address. It replaces what an
// earlier call said. Whoever is root in the namespace can alter it, to their own
// programs' loss only: the table is theirs, and the sockets answer nobody else.
//
// Ports are rewritten packet by packet, questions' and answers'. The kernel could
// do the latter by its table of connections (dnat), but once a namespace has a rule
// that needs the table, every packet of every connection in it pays for that. It is
// done where nothing else is allowed: since Linux 7.2 nf_tables writes no packets in
// a network namespace that is not the initial user namespace's (EPERM of
// nft_payload_set_init; netfilter, "disable payload mangling in userns").
func Lead(netns *os.File, known netip.AddrPort, to uint16) error {
	if !known.Addr().Is4() {
		return fault.New(fault.Invalid, opLead, known.String(), "only IPv4 is led", "")
	}
	err := rewriting.lead(netns, known, to)
	if err == unix.EPERM {
		err = translating.lead(netns, known, to)
	}
	return refused(known, err)
}

// way is how ports are led: a chain at the hook of output, and what it does.
type way struct {
	chain string // its type
	rules func(p protocol, known netip.AddrPort, to uint16) [][]byte
}

var (
	rewriting = way{"filter", func(p protocol, known netip.AddrPort, to uint16) [][]byte {
		return [][]byte{p.there(known, to), p.back(known, to)}
	}}
	translating = way{"nat", func(p protocol, known netip.AddrPort, to uint16) [][]byte {
		return [][]byte{p.translate(known, to)}
	}}
)

func (w way) lead(netns *os.File, known netip.AddrPort, to uint16) error {
	err := commit(netns, w.table(known, to, false))
	if err == unix.EEXIST {
		err = commit(netns, w.table(known, to, true))
	}
	return err
}

// commit makes the table. The error is the kernel's errno, or link's.
func commit(netns *os.File, table *nfwire.Batch) error {
	fd := -1 // of this transaction alone: what else it is told of a failed one goes with it
	err := link.Within(netns, func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return table.Commit(fd)
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

// table is the requests that make the table, in one transaction, in place of one
// there is or only where there is none: to remove one, though it be made in the same
// transaction, takes the kernel half a millisecond.
func (w way) table(known netip.AddrPort, to uint16, again bool) *nfwire.Batch {
	var b nfwire.Batch
	name := nfwire.Text(nil, unix.NFTA_TABLE_NAME, Table)
	if again {
		b.Add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.AF_INET, name) // one that is not there cannot be deleted
		b.Add(unix.NFT_MSG_DELTABLE, 0, unix.AF_INET, name)
	}
	b.Add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.AF_INET, name)
	const chain = "output"
	hook := nfwire.Number(nil, unix.NFTA_HOOK_HOOKNUM, hookOutput)
	hook = nfwire.Number(hook, unix.NFTA_HOOK_PRIORITY, uint32(priorityDstNAT&0xffffffff))
	c := nfwire.Text(nil, unix.NFTA_CHAIN_TABLE, Table)
	c = nfwire.Text(c, unix.NFTA_CHAIN_NAME, chain)
	c = nfwire.Nest(c, unix.NFTA_CHAIN_HOOK, hook)
	c = nfwire.Text(c, unix.NFTA_CHAIN_TYPE, w.chain)
	b.Add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, unix.AF_INET, c)
	for _, p := range protocols {
		for _, list := range w.rules(p, known, to) {
			r := nfwire.Text(nil, unix.NFTA_RULE_TABLE, Table)
			r = nfwire.Text(r, unix.NFTA_RULE_CHAIN, chain)
			r = nfwire.Nest(r, unix.NFTA_RULE_EXPRESSIONS, list)
			b.Add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, unix.AF_INET, r)
		}
	}
	return &b
}

// protocol is one whose ports are the first of its header.
type protocol struct {
	number   byte
	checksum uint32 // where it is in the header
}

var protocols = []protocol{{unix.IPPROTO_UDP, 6}, {unix.IPPROTO_TCP, 16}}

// Offsets in headers: struct iphdr, and of the ports of both protocols.
const (
	sourceAddress, destinationAddress = 12, 16
	sourcePort, destinationPort       = 0, 2
)

// there is "ip daddr ADDR meta l4proto PROTO th dport PORT th dport set TO".
func (p protocol) there(known netip.AddrPort, to uint16) []byte {
	return p.write(p.match(known, destinationAddress, destinationPort, known.Port()), destinationPort, to)
}

// back is "ip saddr ADDR meta l4proto PROTO th sport TO th sport set PORT".
func (p protocol) back(known netip.AddrPort, to uint16) []byte {
	return p.write(p.match(known, sourceAddress, sourcePort, to), sourcePort, known.Port())
}

// translate is "ip daddr ADDR meta l4proto PROTO th dport PORT dnat to ADDR:TO".
func (p protocol) translate(known netip.AddrPort, to uint16) []byte {
	b := p.match(known, destinationAddress, destinationPort, known.Port())
	for _, r := range []struct {
		register uint32
		v        []byte
	}{{unix.NFT_REG_1, known.Addr().AsSlice()}, {unix.NFT_REG_2, binary.BigEndian.AppendUint16(nil, to)}} {
		b = expr(b, "immediate", value(nfwire.Number(nil, unix.NFTA_IMMEDIATE_DREG, r.register), unix.NFTA_IMMEDIATE_DATA, r.v))
	}
	nat := nfwire.Number(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
	nat = nfwire.Number(nat, unix.NFTA_NAT_FAMILY, unix.AF_INET)
	nat = nfwire.Number(nat, unix.NFTA_NAT_REG_ADDR_MIN, unix.NFT_REG_1)
	nat = nfwire.Number(nat, unix.NFTA_NAT_REG_PROTO_MIN, unix.NFT_REG_2)
	return expr(b, "nat", nat)
}

func (p protocol) match(known netip.AddrPort, addressAt, portAt uint32, port uint16) (b []byte) {
	b = expr(b, "payload", load(unix.NFT_PAYLOAD_NETWORK_HEADER, addressAt, 4))
	b = expr(b, "cmp", equals(known.Addr().AsSlice()))
	b = expr(b, "meta", nfwire.Number(nfwire.Number(nil, unix.NFTA_META_DREG, unix.NFT_REG_1), unix.NFTA_META_KEY, unix.NFT_META_L4PROTO))
	b = expr(b, "cmp", equals([]byte{p.number}))
	b = expr(b, "payload", load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, portAt, 2))
	return expr(b, "cmp", equals(binary.BigEndian.AppendUint16(nil, port)))
}

// write has the packet say another port.
func (p protocol) write(b []byte, portAt uint32, port uint16) []byte {
	b = expr(b, "immediate", value(nfwire.Number(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1), unix.NFTA_IMMEDIATE_DATA, binary.BigEndian.AppendUint16(nil, port)))
	w := nfwire.Number(nil, unix.NFTA_PAYLOAD_SREG, unix.NFT_REG_1)
	w = nfwire.Number(w, unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
	w = nfwire.Number(w, unix.NFTA_PAYLOAD_OFFSET, portAt)
	w = nfwire.Number(w, unix.NFTA_PAYLOAD_LEN, 2)
	w = nfwire.Number(w, unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
	w = nfwire.Number(w, unix.NFTA_PAYLOAD_CSUM_OFFSET, p.checksum)
	return expr(b, "payload", w)
}

func load(base, offset, size uint32) []byte {
	b := nfwire.Number(nil, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
	b = nfwire.Number(b, unix.NFTA_PAYLOAD_BASE, base)
	b = nfwire.Number(b, unix.NFTA_PAYLOAD_OFFSET, offset)
	return nfwire.Number(b, unix.NFTA_PAYLOAD_LEN, size)
}

func equals(v []byte) []byte {
	b := nfwire.Number(nil, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
	b = nfwire.Number(b, unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
	return value(b, unix.NFTA_CMP_DATA, v)
}

func value(b []byte, kind uint16, v []byte) []byte {
	return nfwire.Nest(b, kind, nfwire.Attribute(nil, unix.NFTA_DATA_VALUE, v))
}

func expr(b []byte, name string, data []byte) []byte {
	return nfwire.Nest(b, unix.NFTA_LIST_ELEM, nfwire.Nest(nfwire.Text(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA, data))
}
