package network

import (
	"net/netip"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// pool gives out the addresses of a subnet, the lowest free one first, so that
// a container that comes back finds its address free as often as possible.
type pool struct {
	subnet record.Subnet
	from   netip.Prefix // what is given out without being asked for
	used   map[netip.Addr]string
	low    netip.Addr // no address of from below it is free
}

func newPool(s record.Subnet) *pool {
	p := &pool{subnet: s, from: s.Prefix, used: map[netip.Addr]string{}}
	if s.Range.IsValid() {
		p.from = s.Range
	}
	p.low = p.from.Masked().Addr()
	p.used[s.Prefix.Masked().Addr()] = "network"
	if last := lastOf(s.Prefix); s.Prefix.Addr().Is4() && s.Prefix.Bits() < 31 {
		p.used[last] = "broadcast"
	}
	if s.Gateway.IsValid() {
		p.used[s.Gateway] = "gateway"
	}
	for name, a := range s.Aux {
		p.used[a] = name
	}
	return p
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// take gives an owner the wanted address, or when that is invalid one of its own
// choice: prefer, if it is free.
func (p *pool) take(owner string, want, prefer netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		if !p.subnet.Prefix.Contains(want) {
			return want, fault.Say(fault.Invalid, "invalid endpoint settings: no configured subnet contains IP address "+want.String())
		}
		if p.used[want] != "" {
			return want, fault.Say(fault.Denied, inUseAddress)
		}
		p.used[want] = owner
		return want, nil
	}
	if prefer.IsValid() && p.from.Contains(prefer) && p.used[prefer] == "" {
		p.used[prefer] = owner
		return prefer, nil
	}
	for a := p.low; p.from.Contains(a); a = a.Next() {
		if p.used[a] == "" {
			p.used[a] = owner
			p.low = a.Next()
			return a, nil
		}
	}
	family := "IPv6"
	if p.from.Addr().Is4() {
		family = "IPv4"
	}
	return netip.Addr{}, fault.Say(fault.Exhausted, "no available "+family+" addresses on this network's address pools")
}

// inUseAddress is Docker's word for an address that cannot be had.
const inUseAddress = "Address already in use"

// hold notes an address that a running container has.
func (p *pool) hold(owner string, a netip.Addr) { p.used[a] = owner }

// release gives an address back that the owner has.
func (p *pool) release(owner string, a netip.Addr) {
	if p.used[a] != owner {
		return
	}
	delete(p.used, a)
	if p.from.Contains(a) && (!p.low.IsValid() || a.Less(p.low)) {
		p.low = a
	}
}
