package main

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"fief/internal/network"
	"fief/internal/network/cni"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// plugins runs the CNI plugins of networks.
func (s settings) plugins() *cni.Driver {
	return cni.New(cni.Config{Lists: s.CNILists, Plugins: s.CNIPlugins, State: filepath.Join(s.DataRoot, "cni"), Limit: s.CNILimit, Log: slog.Default()})
}

// defaultSubnet is that of the default network, in dockerd's words; without a
// prefix it is chosen.
func (s settings) defaultSubnet() (sub record.Subnet, err error) {
	bad := func(what, why string) (record.Subnet, error) {
		return record.Subnet{}, fault.New(fault.Invalid, "use", what, why, "--bip 192.168.5.1/24 --fixed-cidr 192.168.5.128/25 is one that can be")
	}
	if s.BridgeIP != "" {
		what := "--bip " + s.BridgeIP
		p, err := netip.ParsePrefix(s.BridgeIP)
		if err != nil || !p.Addr().Is4() {
			return bad(what, "it is not an IPv4 address with the length of a subnet")
		}
		if p.Bits() > 30 || p.Addr() == p.Masked().Addr() {
			return bad(what, "it is not the address of a host in a subnet")
		}
		sub.Prefix, sub.Gateway = p.Masked(), p.Addr()
	}
	if s.FixedCIDR != "" {
		what := "--fixed-cidr " + s.FixedCIDR
		p, err := netip.ParsePrefix(s.FixedCIDR)
		if err != nil || !p.Addr().Is4() || p != p.Masked() {
			return bad(what, "it is not an IPv4 prefix")
		}
		if !sub.Prefix.IsValid() {
			sub.Prefix = p
		}
		if !sub.Prefix.Contains(p.Addr()) || p.Bits() < sub.Prefix.Bits() || sub.Prefix.Bits() > 30 {
			return bad(what, "it is not in the subnet "+sub.Prefix.String())
		}
		sub.Range = p
	}
	return sub, nil
}

// ranges are what networks get their subnets of, in dockerd's words:
// base=PREFIX,size=BITS. None: the room's defaults.
func (s settings) ranges() ([]network.Range, error) {
	var out []network.Range
	for _, spec := range s.AddressPools {
		r := network.Range{Size: -1}
		for field := range strings.SplitSeq(spec, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			var err error
			switch key {
			case "base":
				r.Base, err = netip.ParsePrefix(value)
			case "size":
				r.Size, err = strconv.Atoi(value)
			default:
				err = fault.Say(fault.Invalid, "unknown field "+key)
			}
			if err != nil {
				return nil, fault.Wrap(fault.Invalid, "use address pool", spec, err, "a pool is base=10.10.0.0/16,size=24")
			}
		}
		if !r.Base.IsValid() || r.Size < r.Base.Bits() || r.Size > r.Base.Addr().BitLen()-2 {
			return nil, fault.New(fault.Invalid, "use address pool", spec, "the size must be that of a network inside the base", "a pool is base=10.10.0.0/16,size=24")
		}
		out = append(out, r)
	}
	return out, nil
}
