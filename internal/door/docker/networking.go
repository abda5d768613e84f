package docker

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// networking fills what an ask says of networks, ports and names. The first
// endpoint is the network mode's; a map has no order, so the others are sorted.
func (b *createBody) networking(a *ask.Container) error {
	h := b.HostConfig
	mode := string(h.NetworkMode)
	if b.NetworkDisabled {
		mode = "none"
	}
	a.Network, a.NetworkDefault = networkAsked(mode)
	if err := b.ports(&a.Net); err != nil {
		return err
	}
	for _, spec := range h.ExtraHosts {
		host, err := ask.CheckHost(spec)
		if err != nil {
			return err
		}
		a.Net.Hosts = append(a.Net.Hosts, host)
	}
	for _, dns := range h.DNS {
		a.Net.DNS = append(a.Net.DNS, dns.String())
	}
	a.Net.DNSSearch, a.Net.DNSOptions, a.Net.Links = h.DNSSearch, h.DNSOptions, h.Links
	return b.endpoints(a, mode)
}

// maxName bounds the names of networks that are looked for: longer ones are
// nobody's, and would be repeated in an error.
const maxName = 255

func (b *createBody) endpoints(a *ask.Container, mode string) error {
	if len(mode) > maxName {
		return noNetwork(mode)
	}
	given := map[string]*network.EndpointSettings{}
	if b.NetworkingConfig != nil {
		given = maps.Clone(b.NetworkingConfig.EndpointsConfig)
	}
	for name := range given {
		if len(name) > maxName {
			return noNetwork(name)
		}
		if joins(name) && name != mode {
			return noNetwork(name)
		}
	}
	if !a.Network.Named() {
		delete(given, mode)
		delete(given, string(a.Network))
		for name := range given {
			return invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes: %s", short(name))
		}
		return nil
	}
	first := (*network.EndpointSettings)(nil)
	for _, name := range []string{mode, string(a.Network), "default", "bridge"} {
		if ep, ok := given[name]; ok && (name == mode || a.NetworkDefault || name == string(a.Network)) {
			first = ep
			delete(given, name)
			break
		}
	}
	ep, err := endpointAsked(string(a.Network), first)
	if err != nil {
		return err
	}
	ep.WantMAC = cmp.Or(ep.WantMAC, b.MacAddress)
	a.Net.Endpoints = []record.Endpoint{ep}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if ep, err = endpointAsked(name, given[name]); err != nil {
			return err
		}
		a.Net.Endpoints = append(a.Net.Endpoints, ep)
	}
	return nil
}

// networkAsked says which network a mode stands for.
func networkAsked(mode string) (n ask.Network, byDefault bool) {
	switch mode {
	case "", "default":
		return ask.NetBridge, true
	case networkID("host"):
		return ask.NetHost, false
	case networkID("none"):
		return ask.NetNone, false
	}
	return ask.Network(mode), false
}

// ports reads what is to be published. A binding without a port of the host is
// for any.
func (b *createBody) ports(n *record.Net) error {
	n.PublishAll = b.HostConfig.PublishAllPorts
	for p := range b.ExposedPorts {
		n.Exposed = append(n.Exposed, p.String())
	}
	slices.Sort(n.Exposed)
	for _, p := range slices.SortedFunc(maps.Keys(b.HostConfig.PortBindings), func(x, y network.Port) int { return cmp.Compare(x.String(), y.String()) }) {
		if proto := p.Proto(); proto != "tcp" && proto != "udp" && proto != "sctp" {
			return invalid("invalid port specification: %q", p.String())
		}
		if key := p.String(); !slices.Contains(n.Exposed, key) {
			n.Exposed = append(n.Exposed, key)
		}
		bindings := b.HostConfig.PortBindings[p]
		if len(bindings) == 0 {
			bindings = []network.PortBinding{{}}
		}
		for _, bind := range bindings {
			one := record.Port{Proto: string(p.Proto()), Container: p.Num()}
			if ip := bind.HostIP; ip.IsValid() && !(ip.IsUnspecified() && ip.Is4()) {
				one.HostIP = ip.Unmap()
			} else if ip.IsValid() {
				one.HostIP = ip
			}
			if bind.HostPort != "" {
				ranged, err := ask.ParsePort(bind.HostPort + ":1")
				if err != nil || strings.Contains(bind.HostPort, ":") {
					return invalid("invalid port specification: %q", bind.HostPort)
				}
				one.Host, one.HostEnd = ranged[0].Host, ranged[0].HostEnd
			}
			n.Ports = append(n.Ports, one)
		}
	}
	return nil
}

// portMap shows published ports, and exposed ones without a binding.
func portMap(c record.Container) network.PortMap {
	out := network.PortMap{}
	if !running(c) {
		return out
	}
	for _, e := range c.Net.Exposed {
		if p, err := network.ParsePort(e); err == nil {
			out[p] = nil
		}
	}
	for _, p := range c.Net.Published {
		if key, ok := network.PortFrom(p.Container, network.IPProtocol(p.Proto)); ok {
			out[key] = append(out[key], network.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.Host))})
		}
	}
	return out
}

// portsAsked shows what was asked to be published.
func portsAsked(c record.Container) network.PortMap {
	out := network.PortMap{}
	for _, p := range c.Net.Ports {
		key, ok := network.PortFrom(p.Container, network.IPProtocol(p.Proto))
		if !ok {
			continue
		}
		port := ""
		if p.Host != 0 {
			port = strconv.Itoa(int(p.Host))
		}
		if p.HostEnd != 0 {
			port += "-" + strconv.Itoa(int(p.HostEnd))
		}
		out[key] = append(out[key], network.PortBinding{HostIP: p.HostIP, HostPort: port})
	}
	return out
}

func exposedOf(c record.Container) network.PortSet {
	out := network.PortSet{}
	for _, e := range c.Net.Exposed {
		if p, err := network.ParsePort(e); err == nil {
			out[p] = struct{}{}
		}
	}
	return out
}

// portSummaries are the ports of a list.
func portSummaries(c record.Container) []container.PortSummary {
	out := []container.PortSummary{}
	if !running(c) {
		return out
	}
	published := map[string]bool{}
	for _, p := range c.Net.Published {
		published[p.Key()] = true
		out = append(out, container.PortSummary{IP: p.HostIP, PrivatePort: p.Container, PublicPort: p.Host, Type: p.Proto})
	}
	for _, e := range c.Net.Exposed {
		number, proto, _ := strings.Cut(e, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && !published[e] {
			out = append(out, container.PortSummary{PrivatePort: uint16(n), Type: proto})
		}
	}
	return out
}

// networkSettingsOf are the settings of an inspect.
func networkSettingsOf(c record.Container) networkSettings {
	s := networkSettings{Ports: portMap(c), Networks: networksOf(c)}
	if c.State.PID != 0 {
		s.SandboxID, s.SandboxKey = c.ID, "/proc/"+strconv.Itoa(c.State.PID)+"/ns/net"
	}
	for _, e := range c.Net.Endpoints {
		if e.Network != "bridge" || !e.Up() {
			continue
		}
		s.EndpointID, s.Gateway, s.IPv6Gateway, s.MacAddress = e.ID, text(e.GW4), text(e.GW6), e.MAC
		if e.IP4.IsValid() {
			s.IPAddress, s.IPPrefixLen = text(e.IP4.Addr()), e.IP4.Bits()
		}
		if e.IP6.IsValid() {
			s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = text(e.IP6.Addr()), e.IP6.Bits()
		}
	}
	return s
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// networkID is the id of a network that is always there.
func networkID(name string) string {
	sum := sha256.Sum256([]byte("fief network " + name))
	return hex.EncodeToString(sum[:])
}

// noNetwork is no 404: `docker run` takes every 404 of a create for a missing
// image and pulls it. dockerd says the same words when the container starts.
func noNetwork(name string) error { return invalid("network %s not found", short(name)) }

// hasPort answers the filters publish and expose: PORT[-END][/PROTO].
func hasPort(value string, keys []string) (bool, error) {
	ports, err := ask.ParseExpose(value)
	if err != nil {
		return false, fault.Say(fault.Invalid, "invalid filter '"+value+"'")
	}
	return slices.ContainsFunc(ports, func(p string) bool { return slices.Contains(keys, p) }), nil
}

// publishes reports whether a port of the host in the range is the container's.
func publishes(c record.Container, value string) bool {
	var keys []string
	for _, p := range c.Net.Published {
		keys = append(keys, strconv.Itoa(int(p.Host))+"/"+p.Proto)
	}
	found, err := hasPort(value, keys)
	return err == nil && found
}

func exposes(c record.Container, value string) bool {
	found, err := hasPort(value, c.Net.Exposed)
	return err == nil && found
}

// onNetwork reports whether a container is on the network of a name or an id's
// beginning.
func onNetwork(c record.Container, v string) bool {
	return v == c.Network || strings.HasPrefix(networkID(c.Network), v) ||
		slices.ContainsFunc(c.Net.Endpoints, func(e record.Endpoint) bool { return e.Network == v || strings.HasPrefix(e.NetworkID, v) })
}

func dnsOf(c record.Container) []netip.Addr {
	out := []netip.Addr{}
	for _, s := range c.Net.DNS {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}
