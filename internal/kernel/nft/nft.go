package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/nfwire"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// chunk bounds the elements of one message: the length of a list of attributes
// is 16 bits (netlink(7)).
const chunk = 256

const needed = "fief needs CAP_NET_ADMIN in the daemon's network namespace and a kernel with nf_tables (CONFIG_NF_TABLES_INET, NFT_NAT, NFT_MASQ, NFT_FIB_INET); --network none and host work without"

// Replace makes the table say what s says, and that only, in one transaction:
// no packet meets half of it, and connections that were rewritten stay so. A
// kernel without nf_tables is Unsupported, a missing capability Denied.
func (name Table) Replace(s State) error {
	c := &nftables.Conn{}
	t := name.objects(c)
	c.AddTable(t.t) // a table that is not there cannot be deleted
	c.DelTable(t.t)
	c.AddTable(t.t)
	lists := elements(s)
	for _, set := range slices.Sorted(maps.Keys(t.sets)) {
		if err := c.AddSet(t.sets[set], nil); err != nil {
			return fault.Wrap(fault.Internal, "describe", "set "+set, err, "")
		}
	}
	t.chains()
	if err := t.each(lists, t.conn.SetAddElements); err != nil {
		return err
	}
	return refusal("make the table of networks", c.Flush())
}

// Add adds to the table what s says. Without the table, NotFound. What is there
// already with another meaning is Exists, and nothing is added.
func (name Table) Add(s State) error { return name.change(s, true) }

// Remove takes away what s says. Without the table, or without one of the
// elements, NotFound; nothing is taken away then.
func (name Table) Remove(s State) error { return name.change(s, false) }

func (name Table) change(s State, add bool) error {
	kind, flags, word := uint16(unix.NFT_MSG_NEWSETELEM), uint16(unix.NLM_F_CREATE), "add to the table of networks"
	if !add {
		kind, flags, word = unix.NFT_MSG_DELSETELEM, 0, "take from the table of networks"
	}
	var b nfwire.Batch
	for set, list := range elements(s) {
		for piece := range slices.Chunk(list, chunk) {
			b.Add(kind, flags, unix.NFPROTO_INET, name.list(set, piece))
		}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return refusal(word, err)
	}
	defer unix.Close(fd)
	return refusal(word, b.Commit(fd))
}

// list writes elements of a set: those of a map with what they lead to.
func (name Table) list(set string, elements []element) []byte {
	b := make([]byte, 0, 64+len(elements)*96)
	b = nfwire.Text(b, unix.NFTA_SET_ELEM_LIST_TABLE, string(name))
	b = nfwire.Text(b, unix.NFTA_SET_ELEM_LIST_SET, set)
	b, all := nfwire.Open(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, e := range elements {
		var one, part int
		b, one = nfwire.Open(b, unix.NFTA_LIST_ELEM)
		b, part = nfwire.Open(b, unix.NFTA_SET_ELEM_KEY)
		b = nfwire.Attribute(b, unix.NFTA_DATA_VALUE, e.key)
		nfwire.Close(b, part)
		if e.val != nil {
			b, part = nfwire.Open(b, unix.NFTA_SET_ELEM_DATA)
			b = nfwire.Attribute(b, unix.NFTA_DATA_VALUE, e.val)
			nfwire.Close(b, part)
		}
		nfwire.Close(b, one)
	}
	nfwire.Close(b, all)
	return b
}

// Drop removes the table, if there is one.
func (name Table) Drop() error {
	c := &nftables.Conn{}
	t := name.objects(c)
	c.AddTable(t.t)
	c.DelTable(t.t)
	return refusal("remove the table of networks", c.Flush())
}

// Present reports whether there is a table.
func (name Table) Present() (bool, error) {
	all, err := (&nftables.Conn{}).ListTablesOfFamily(nftables.TableFamilyINet)
	for _, t := range all {
		if t.Name == string(name) {
			return true, nil
		}
	}
	return false, refusal("read", err)
}

// Intact reports whether the table is as Replace makes it for s, by the number
// of its rules and elements.
func (name Table) Intact(s State) (bool, error) {
	c := &nftables.Conn{}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, refusal("read", err)
	}
	rules := 0
	for _, ch := range chains {
		if ch.Table.Name != string(name) {
			continue
		}
		list, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return false, nil // it has gone meanwhile
		}
		rules += len(list)
	}
	scratch := name.objects(&nftables.Conn{})
	scratch.chains()
	if rules != scratch.rules {
		return false, nil
	}
	want := elements(s)
	for which, set := range scratch.sets {
		have, err := c.GetSetElements(set)
		if err != nil || len(have) != len(want[which]) {
			return false, nil
		}
	}
	return true, nil
}

// each hands lists of elements on in pieces that fit into a message.
func (t *table) each(lists map[string][]element, do func(*nftables.Set, []nftables.SetElement) error) error {
	for name, list := range lists {
		for piece := range slices.Chunk(list, chunk) {
			var all []nftables.SetElement
			for _, e := range piece {
				all = append(all, nftables.SetElement{Key: e.key, Val: e.val})
			}
			if err := do(t.sets[name], all); err != nil {
				return fault.Wrap(fault.Internal, "describe", "elements of "+name, err, "")
			}
		}
	}
	return nil
}

// element is a member of a set; val is nil but in a map.
type element struct{ key, val []byte }

// elements sorts a state into the sets.
func elements(s State) map[string][]element {
	out := map[string][]element{}
	for _, b := range s.Bridges {
		b.into(out)
	}
	for _, d := range s.Direct {
		set := setDirect4
		if d.At.Addr().Is6() {
			set = setDirect6
		}
		key, _ := d.At.Addr().AppendBinary(nil)
		out[set] = append(out[set], element{key: append(binary.BigEndian.AppendUint16(append(key, d.Proto, 0, 0, 0), d.At.Port()), 0, 0)})
	}
	var space []byte // of the ports' keys and values, of which there may be many
	const most = 16 + 8 + 16 + 4
	for i, p := range s.Ports {
		if cap(space)-len(space) < most {
			space = make([]byte, 0, most*min(len(s.Ports)-i, 256))
		}
		host, to := p.Host.Addr(), p.To.Addr()
		set := mapAt4
		switch {
		case to.Is6() && host.IsUnspecified():
			set = mapAny6
		case to.Is6():
			set = mapAt6
		case host.IsUnspecified():
			set = mapAny4
		}
		from := len(space)
		if set == mapAt4 || set == mapAt6 {
			space, _ = host.WithZone("").AppendBinary(space)
		}
		space = append(binary.BigEndian.AppendUint16(append(space, p.Proto, 0, 0, 0), p.Host.Port()), 0, 0)
		mid := len(space)
		space, _ = to.AppendBinary(space)
		space = append(binary.BigEndian.AppendUint16(space, p.To.Port()), 0, 0)
		if out[set] == nil {
			out[set] = make([]element, 0, len(s.Ports)-i)
		}
		out[set] = append(out[set], element{space[from:mid:mid], space[mid:len(space):len(space)]})
	}
	for _, a := range s.Published {
		set := setSelf4
		if a.Is6() {
			set = setSelf6
		}
		out[set] = append(out[set], element{key: append(a.AsSlice(), a.AsSlice()...)})
	}
	return out
}

// into sorts a bridge into the sets.
func (b Bridge) into(out map[string][]element) {
	device := func(s string) []byte {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, s)
		return name
	}
	name := device(b.Name)
	add := func(set string, when bool) {
		if when {
			out[set] = append(out[set], element{key: name})
		}
	}
	add(setNets, true)
	add(setInternal, b.Internal)
	add(setMasq4, b.Masquerade && !b.Internal && b.Mode4 != Routed)
	add(setMasq6, b.Masquerade && !b.Internal && b.Mode6 != Routed)
	add(setRouted4, b.Mode4 == Routed)
	add(setRouted6, b.Mode6 == Routed)
	add(setOpen4, b.Mode4 == Open)
	add(setOpen6, b.Mode6 == Open)
	if !b.Separate {
		out[setSame] = append(out[setSame], element{key: slices.Concat(name, name)})
	}
	for _, t := range b.Trusted {
		out[setTrusted] = append(out[setTrusted], element{key: append(device(t), name...)})
	}
}

// refusal puts the kernel's refusal of a transaction into words.
func refusal(op string, err error) error {
	if err == nil {
		return nil
	}
	class, hint := fault.Internal, ""
	var errno unix.Errno
	if errors.As(err, &errno) {
		class = sysx.Class(errno)
		switch errno {
		case unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL:
			hint = needed
		}
	}
	if op == "read" {
		return fault.Wrap(class, op, "the table of networks", err, hint)
	}
	return fault.Wrap(class, op, "", err, hint)
}

// Droppers lists chains of others, "family table chain", at which a packet that
// is to be forwarded is dropped unless a rule of theirs lets it pass: what one
// table accepts another may still drop (nft(8), "VERDICT STATEMENT").
func Droppers() ([]string, error) {
	chains, err := (&nftables.Conn{}).ListChains()
	if err != nil {
		return nil, refusal("read", err)
	}
	var out []string
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward ||
			c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		if word, ip := map[nftables.TableFamily]string{
			nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		}[c.Table.Family]; ip {
			out = append(out, fmt.Sprintf("%s %s %s", word, c.Table.Name, c.Name))
		}
	}
	return out, nil
}
