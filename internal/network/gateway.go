package network

import (
	"net/netip"
	"strings"

	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Options of how a bridge leads on, in Docker's words.
const (
	optMode4   = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6   = "com.docker.network.bridge.gateway_mode_ipv6"
	optTrusted = "com.docker.network.bridge.trusted_host_interfaces"
	optInhibit = "com.docker.network.bridge.inhibit_ipv4"
	optPrefix  = "com.docker.network.container_iface_prefix"
)

// mode is how containers of a bridge are reached and go out in one family
// (Docker's documentation, "Packet filtering and firewalls", gateway modes).
type mode string

const (
	modeNAT      mode = "nat"             // as the host: by its ports and under its address
	modeRouted   mode = "routed"          // as themselves, at published ports
	modeOpen     mode = "nat-unprotected" // as the host, and as themselves at any port
	modeIsolated mode = "isolated"        // not at all; the bridge has no address of the host
)

// modeOf is the mode of a network in a family.
func modeOf(rec record.Network, four bool) mode {
	v := rec.Options[optMode6]
	if four {
		v = rec.Options[optMode4]
	}
	if v == "" || rec.Driver != driverBridge {
		return modeNAT
	}
	return mode(v)
}

func (n *network) mode(four bool) mode { return modeOf(n.rec, four) }

// kernel is the mode as the table of rules knows it: an isolated network is an
// internal one there.
func (m mode) kernel() nft.Mode {
	switch m {
	case modeRouted:
		return nft.Routed
	case modeOpen:
		return nft.Open
	}
	return nft.NAT
}

// trusted are the devices of the host by which published ports are reached at
// containers' own addresses.
func (n *network) trusted() []string {
	var out []string
	for _, name := range strings.Split(n.rec.Options[optTrusted], ":") {
		if name != "" {
			out = append(out, name)
		}
	}
	return out
}

// checkGateways refuses what a bridge cannot be told about its ways out.
func checkGateways(rec record.Network) error {
	for _, opt := range []string{optMode4, optMode6} {
		switch m := mode(rec.Options[opt]); m {
		case "", modeNAT, modeRouted, modeOpen:
		case modeIsolated:
			if !rec.Internal {
				return fault.New(fault.Invalid, "use option", opt+"="+string(m), "gateway mode 'isolated' can only be used for an internal network", "add --internal")
			}
			for _, s := range rec.Subnets {
				if s.Gateway.IsValid() && s.Prefix.Addr().Is4() == (opt == optMode4) {
					return fault.New(fault.Invalid, "use --gateway", s.Gateway.String(), "the host has no address on a network of gateway mode 'isolated'", "leave it out")
				}
			}
		default:
			return fault.New(fault.Invalid, "use option", opt+"="+string(m), "unknown gateway mode", "there are nat, nat-unprotected, routed and, with --internal, isolated")
		}
	}
	if v, set := rec.Options[optTrusted]; set {
		for _, name := range strings.Split(v, ":") {
			if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
				return fault.New(fault.Invalid, "use option", optTrusted+"="+v, "not a list of names of network devices", "write them with colons between: eth0:eth1")
			}
		}
	}
	if v := rec.Options[optInhibit]; v != "" && v != "false" && v != "0" {
		return fault.New(fault.Unsupported, "use option", optInhibit+"="+v, "fief gives the bridge its address", "leave it out; --internal with "+optMode4+"=isolated has none")
	}
	if v := rec.Options[optPrefix]; v != "" && v != "eth" {
		return fault.New(fault.Unsupported, "use option", optPrefix+"="+v, "devices of containers are eth0 and so on", "leave it out")
	}
	return nil
}

// onlyDirectly reports whether whom a port on an address of the host would lead to
// is reached under its own address instead.
func onlyDirectly(at netip.Addr, v4, v6 *end) bool {
	e, four := v4, true
	if at.Is6() && v6 != nil || v4 == nil {
		e, four = v6, false
	}
	return e != nil && e.net.mode(four) == modeRouted
}

// openDirectly notes which ports the endpoints that lead out open at their own
// addresses. The host's address in a port only says of which family it is then.
func openDirectly(ports []record.Port, v4, v6 *end) {
	for _, e := range []*end{v4, v6} {
		if e != nil {
			e.direct = nil
		}
	}
	for _, way := range []struct {
		e    *end
		four bool
	}{{v4, true}, {v6, false}} {
		e := way.e
		if e == nil || e.net.rec.Driver != driverBridge || e.net.mode(way.four) != modeRouted && len(e.net.trusted()) == 0 {
			continue
		}
		ip := e.ep.IP6
		if way.four {
			ip = e.ep.IP4
		}
		seen := map[nft.Direct]bool{}
		for _, p := range ports {
			d := nft.Direct{Proto: protocols[p.Proto], At: netip.AddrPortFrom(ip.Addr(), p.Container)}
			if (!p.HostIP.IsValid() || p.HostIP.Is4() == way.four) && !seen[d] {
				seen[d] = true
				e.direct = append(e.direct, d)
			}
		}
	}
}
