package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Table is the name of a table in family inet. Each daemon of a host has its
// own.
type Table string

// Mode is how containers of a bridge are reached from elsewhere than the host and
// the bridge itself, in one family.
type Mode uint8

// The modes.
const (
	NAT    Mode = iota // by ports of the host alone
	Routed             // directly, at ports that are open; they go out under their own address
	Open               // as NAT, and directly at any port, but not by other bridges' containers
)

// Bridge is a network's bridge device.
type Bridge struct {
	Name         string
	Internal     bool // nothing beyond the bridge is reached
	Masquerade   bool // what leaves by other devices has the host's address
	Separate     bool // its containers do not reach each other
	Mode4, Mode6 Mode
	Trusted      []string // devices by which open ports are reached directly
}

// Direct is a port of a container that is open: reached at its own address, by
// whom its bridge lets.
type Direct struct {
	Proto uint8 // as of a Port
	At    netip.AddrPort
}

// Port is a published port. Host unspecified (0.0.0.0 or ::) is every address
// of the host in that family. To has the same family.
type Port struct {
	Proto uint8 // IPPROTO_TCP, UDP or SCTP
	Host  netip.AddrPort
	To    netip.AddrPort
}

// State is everything the table says.
type State struct {
	Bridges   []Bridge
	Ports     []Port
	Published []netip.Addr // of containers with published ports
	Direct    []Direct
}

// table is the objects of the ruleset; sets are found by name.
type table struct {
	t     *nftables.Table
	sets  map[string]*nftables.Set
	conn  *nftables.Conn
	rules int
}

// The sets. Those of ports are maps; the first address is the host's.
const (
	setNets     = "nets"     // bridges of fief
	setInternal = "internal" // those without a way out
	setMasq4    = "masq4"    // those whose containers go out with the host's address
	setMasq6    = "masq6"
	setRouted4  = "routed4" // those whose open ports are reached from anywhere
	setRouted6  = "routed6"
	setOpen4    = "open4" // those of which every port is reached from beyond the bridges
	setOpen6    = "open6"
	setTrusted  = "trusted" // device . bridge, of which the first reaches open ports
	setDirect4  = "direct4" // address . protocol . port that is open
	setDirect6  = "direct6"
	setSame     = "same" // bridge . bridge, where containers may reach each other
	mapAt4      = "at4"  // address . protocol . port → address . port
	mapAny4     = "any4" // protocol . port → address . port
	mapAt6      = "at6"
	mapAny6     = "any6"
	setSelf4    = "self4" // container . the same, of those with published ports
	setSelf6    = "self6"
)

// Registers of 4 bytes (NFT_REG32_00 …); a name of a device takes four.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
	reg4 = unix.NFT_REG32_04
	reg5 = unix.NFT_REG32_05
)

func (name Table) objects(c *nftables.Conn) *table {
	t := &table{t: &nftables.Table{Family: nftables.TableFamilyINet, Name: string(name)}, sets: map[string]*nftables.Set{}, conn: c}
	device, at, port := nftables.TypeIFName, nftables.TypeIPAddr, nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	at6 := nftables.TypeIP6Addr
	concat := func(types ...nftables.SetDatatype) nftables.SetDatatype { return nftables.MustConcatSetType(types...) }
	for _, s := range []nftables.Set{
		{Name: setNets, KeyType: device}, {Name: setInternal, KeyType: device}, {Name: setMasq4, KeyType: device}, {Name: setMasq6, KeyType: device},
		{Name: setRouted4, KeyType: device}, {Name: setRouted6, KeyType: device}, {Name: setOpen4, KeyType: device}, {Name: setOpen6, KeyType: device},
		{Name: setTrusted, KeyType: concat(device, device), Concatenation: true},
		{Name: setDirect4, KeyType: concat(at, nftables.TypeInetProto, nftables.TypeInetService), Concatenation: true},
		{Name: setDirect6, KeyType: concat(at6, nftables.TypeInetProto, nftables.TypeInetService), Concatenation: true},
		{Name: setSame, KeyType: concat(device, device), Concatenation: true},
		{Name: mapAt4, KeyType: concat(at, nftables.TypeInetProto, nftables.TypeInetService), DataType: concat(at, nftables.TypeInetService), IsMap: true, Concatenation: true},
		{Name: mapAny4, KeyType: port, DataType: concat(at, nftables.TypeInetService), IsMap: true, Concatenation: true},
		{Name: mapAt6, KeyType: concat(at6, nftables.TypeInetProto, nftables.TypeInetService), DataType: concat(at6, nftables.TypeInetService), IsMap: true, Concatenation: true},
		{Name: mapAny6, KeyType: port, DataType: concat(at6, nftables.TypeInetService), IsMap: true, Concatenation: true},
		{Name: setSelf4, KeyType: concat(at, at), Concatenation: true}, {Name: setSelf6, KeyType: concat(at6, at6), Concatenation: true},
	} {
		s.Table = t.t
		t.sets[s.Name] = &s
	}
	return t
}

// The chains and their rules, in the words of nft(8):
//
//	chain raw        { type filter hook prerouting priority raw
//	  iifname @nets ip daddr 127.0.0.0/8 drop }
//	chain prerouting { type nat hook prerouting priority dstnat
//	  ip daddr 127.0.0.0/8 return
//	  fib daddr type local jump publish }
//	chain output     { type nat hook output priority dstnat
//	  ip6 daddr ::1 return
//	  fib daddr type local jump publish }
//	chain publish    {
//	  dnat ip to ip daddr . meta l4proto . th dport map @at4
//	  dnat ip to meta l4proto . th dport map @any4
//	  and the same for ip6 }
//	chain forward    { type filter hook forward priority filter
//	  ct state established,related accept
//	  iifname . oifname @same accept
//	  iifname @internal drop
//	  oifname @internal drop
//	  oifname @nets ct status dnat accept
//	  iifname != @nets oifname @open4 meta nfproto ipv4 accept
//	  oifname @routed4 meta l4proto icmp accept
//	  oifname @routed4 ip daddr . meta l4proto . th dport @direct4 accept
//	  iifname . oifname @trusted ip daddr . meta l4proto . th dport @direct4 accept
//	  and the same for ip6
//	  oifname @nets drop }
//	chain postrouting { type nat hook postrouting priority srcnat
//	  iifname @nets oifname @nets ct status dnat masquerade
//	  ip saddr . ip daddr @self4 masquerade, and the same for ip6
//	  iifname @masq4 oifname != @nets meta nfproto ipv4 masquerade, and the same for ip6
//	  ip saddr 127.0.0.0/8 oifname @nets masquerade }
//
// The first keeps containers from the host's loopback, which route_localnet on
// a bridge would open to them (CVE-2020-8558); the return in prerouting keeps
// neighbours of the host from ports published on 127.0.0.1, which are rewritten
// before the kernel would drop such packets (moby#45610). A packet of the host's
// own to such a port goes through output, but for one to ::1, which the kernel
// lets nowhere else. A container that uses its own
// published port is told by its address, because with br_netfilter the first rule
// of postrouting does not see where the packet has come in. iifname in postrouting needs Linux 5.7,
// dnat in family inet 5.2.
func (t *table) chains() {
	hook := func(name string, kind nftables.ChainType, h *nftables.ChainHook, p *nftables.ChainPriority) *nftables.Chain {
		return t.conn.AddChain(&nftables.Chain{Name: name, Table: t.t, Type: kind, Hooknum: h, Priority: p})
	}
	raw := hook("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	t.rule(raw, t.from(setNets), loopback(16), drop())

	publish := t.conn.AddChain(&nftables.Chain{Name: "publish", Table: t.t})
	pre := hook("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	t.rule(pre, loopback(16), verdict(expr.VerdictReturn, ""))
	t.rule(pre, local(), verdict(expr.VerdictJump, publish.Name))
	out := hook("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	t.rule(out, family(unix.NFPROTO_IPV6), payload(24, 16, reg0), []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: netip.IPv6Loopback().AsSlice()}}, verdict(expr.VerdictReturn, ""))
	t.rule(out, local(), verdict(expr.VerdictJump, publish.Name))
	t.rule(publish, family(unix.NFPROTO_IPV4), payload(16, 4, reg0), port(reg1, reg2), t.lookup(mapAt4), dnat(unix.NFPROTO_IPV4, reg1))
	t.rule(publish, family(unix.NFPROTO_IPV4), port(reg0, reg1), t.lookup(mapAny4), dnat(unix.NFPROTO_IPV4, reg1))
	t.rule(publish, family(unix.NFPROTO_IPV6), payload(24, 16, reg0), port(reg4, reg5), t.lookup(mapAt6), dnat(unix.NFPROTO_IPV6, reg4))
	t.rule(publish, family(unix.NFPROTO_IPV6), port(reg0, reg1), t.lookup(mapAny6), dnat(unix.NFPROTO_IPV6, reg4))

	forward := hook("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	t.rule(forward, bits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
	t.rule(forward, t.between(setSame), accept())
	t.rule(forward, t.from(setInternal), drop())
	t.rule(forward, t.to(setInternal, false), drop())
	t.rule(forward, t.to(setNets, false), rewritten(), accept())
	t.direct(forward)
	t.rule(forward, t.to(setNets, false), drop())

	post := hook("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	t.rule(post, t.from(setNets), t.to(setNets, false), rewritten(), masquerade())
	t.rule(post, family(unix.NFPROTO_IPV4), payload(12, 8, reg0), t.member(setSelf4), masquerade())
	t.rule(post, family(unix.NFPROTO_IPV6), payload(8, 32, reg0), t.member(setSelf6), masquerade())
	t.rule(post, t.from(setMasq4), t.to(setNets, true), family(unix.NFPROTO_IPV4), masquerade())
	t.rule(post, t.from(setMasq6), t.to(setNets, true), family(unix.NFPROTO_IPV6), masquerade())
	t.rule(post, loopback(12), t.to(setNets, false), masquerade())
}

// direct adds what lets packets to containers' own addresses pass.
func (t *table) direct(c *nftables.Chain) {
	for _, v := range []struct {
		open, routed, direct string
		family, icmp         byte
		offset, size         uint32 // of the destination
		protoReg, portReg    uint32
	}{
		{setOpen4, setRouted4, setDirect4, unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, 16, 4, reg1, reg2},
		{setOpen6, setRouted6, setDirect6, unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, 24, 16, reg4, reg5},
	} {
		at := slices.Concat(family(v.family), payload(v.offset, v.size, reg0), port(v.protoReg, v.portReg), t.member(v.direct))
		t.rule(c, t.name(expr.MetaKeyIIFNAME, setNets, true), t.to(v.open, false), family(v.family), accept())
		t.rule(c, t.to(v.routed, false), []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{v.icmp}}}, accept())
		t.rule(c, t.to(v.routed, false), at, accept())
		t.rule(c, t.between(setTrusted), at, accept())
	}
}

// between: the devices in and out are a pair of a set.
func (t *table) between(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, SetID: t.sets[set].ID},
	}
}

func (t *table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	t.conn.AddRule(&nftables.Rule{Table: t.t, Chain: c, Exprs: all})
	t.rules++
}

func (t *table) name(key expr.MetaKey, set string, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, SetID: t.sets[set].ID, Invert: not}}
}

func (t *table) from(set string) []expr.Any         { return t.name(expr.MetaKeyIIFNAME, set, false) }
func (t *table) to(set string, not bool) []expr.Any { return t.name(expr.MetaKeyOIFNAME, set, not) }

func (t *table) lookup(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: set, SetID: t.sets[set].ID}}
}

func (t *table) member(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: set, SetID: t.sets[set].ID}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any     { return verdict(expr.VerdictAccept, "") }
func drop() []expr.Any       { return verdict(expr.VerdictDrop, "") }
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

func family(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{proto}}}
}

func payload(offset, size, reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

// loopback: the address at that offset of the IPv4 header is in 127.0.0.0/8.
func loopback(offset uint32) []expr.Any {
	return append(family(unix.NFPROTO_IPV4),
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{127}})
}

// port loads protocol and destination port.
func port(proto, dport uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: dport, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// dnat rewrites to the address in the first register and the port in another.
func dnat(family, portReg uint32) []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg0, RegProtoMin: portReg, Specified: true}}
}

// local: the destination is an address of the host.
func local() []expr.Any {
	return []expr.Any{&expr.Fib{Register: unix.NFT_REG_1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
}

// bits: a word of the connection has one of these bits.
func bits(key expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: key, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0, 0, 0, 0}}}
}

// rewritten: the connection's destination was another (IPS_DST_NAT,
// linux/netfilter/nf_conntrack_common.h).
func rewritten() []expr.Any { return bits(expr.CtKeySTATUS, 1<<5) }
