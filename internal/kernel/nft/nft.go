package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

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
	for _, set := range []string{setNets, setInternal, setMasq, setSame, mapAt4, mapAny4, mapAt6, mapAny6, setSelf4, setSelf6} {
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
	c := &nftables.Conn{}
	t := name.objects(c)
	do, word := c.SetAddElements, "add to the table of networks"
	if !add {
		do, word = c.SetDeleteElements, "take from the table of networks"
	}
	if err := t.each(elements(s), do); err != nil {
		return err
	}
	return refusal(word, c.Flush())
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
func (t *table) each(lists map[string][]nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) error {
	for name, list := range lists {
		for len(list) > 0 {
			n := min(len(list), chunk)
			if err := do(t.sets[name], list[:n]); err != nil {
				return fault.Wrap(fault.Internal, "describe", "elements of "+name, err, "")
			}
			list = list[n:]
		}
	}
	return nil
}

// elements sorts a state into the sets.
func elements(s State) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	add := func(set string, key, val []byte) {
		out[set] = append(out[set], nftables.SetElement{Key: key, Val: val})
	}
	for _, b := range s.Bridges {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, b.Name)
		add(setNets, name, nil)
		if b.Internal {
			add(setInternal, name, nil)
		} else if b.Masquerade {
			add(setMasq, name, nil)
		}
		if !b.Separate {
			add(setSame, append(append([]byte{}, name...), name...), nil)
		}
	}
	for _, p := range s.Ports {
		val := append(p.To.Addr().AsSlice(), 0, 0, 0, 0)
		binary.BigEndian.PutUint16(val[len(val)-4:], p.To.Port())
		key := []byte{p.Proto, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint16(key[4:], p.Host.Port())
		at, anywhere := mapAt4, mapAny4
		if p.To.Addr().Is6() {
			at, anywhere = mapAt6, mapAny6
		}
		if p.Host.Addr().IsUnspecified() {
			add(anywhere, key, val)
		} else {
			add(at, append(p.Host.Addr().AsSlice(), key...), val)
		}
	}
	for _, a := range s.Published {
		set := setSelf4
		if a.Is6() {
			set = setSelf6
		}
		add(set, append(a.AsSlice(), a.AsSlice()...), nil)
	}
	return out
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

// Watch calls lost whenever something of the table may have been removed, by
// fief or by others, until stop is closed. It returns at once.
func (name Table) Watch(stop <-chan struct{}, lost func()) error {
	const group = 1 << (unix.NFNLGRP_NFTABLES - 1)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: group})
	if err != nil {
		return refusal("watch the tables of networks", err)
	}
	go func() {
		<-stop
		conn.Close()
	}()
	go func() {
		for {
			list, err := conn.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // there was more than the socket holds
				lost()
				continue
			case err != nil:
				return
			}
			for _, m := range list {
				if name.lost(m) {
					lost()
					break
				}
			}
		}
	}()
	return nil
}

// lost reports whether a message tells of a removal from fief's table. Elements
// come and go with every container and are not looked at. The table's name is
// the first attribute of all of them (linux/netfilter/nf_tables.h).
func (name Table) lost(m netlink.Message) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET:
	default:
		return false
	}
	const head = 4 // struct nfgenmsg
	if len(m.Data) < head {
		return false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[head:])
	return err == nil && len(attrs) > 0 && strings.TrimRight(string(attrs[0].Data), "\x00") == string(name)
}
