package cmdline

import (
	"encoding/csv"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// networkOptions are the flags of run and create about networks, as typed.
type networkOptions struct {
	networks, publish, expose, aliases, links []string
	hosts, dns, dnsSearch, dnsOptions         []string
	ip, ip6, mac                              string
	publishAll                                bool
}

func (o *networkOptions) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.networks, "network", nil, `Connect a container to a network ("none", "host", "container:NAME", NAME, "name=NAME,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=…,gw-priority=…")`)
	fs.StringArrayVar(&o.networks, "net", nil, "Connect a container to a network")
	fs.StringArrayVarP(&o.publish, "publish", "p", nil, "Publish a container's port(s) to the host: [[ADDRESS:][HOSTPORT]:]PORT[/PROTO], with ranges")
	fs.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.StringArrayVar(&o.expose, "expose", nil, "Expose a port or a range of ports")
	fs.StringArrayVar(&o.aliases, "network-alias", nil, "Add network-scoped alias for the container")
	fs.StringArrayVar(&o.aliases, "net-alias", nil, "Add network-scoped alias for the container")
	fs.StringVar(&o.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&o.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&o.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.StringArrayVar(&o.links, "link", nil, "Add link to another container")
	fs.StringArrayVar(&o.hosts, "add-host", nil, "Add a custom host-to-IP mapping (host:ip)")
	fs.StringArrayVar(&o.dns, "dns", nil, "Set custom DNS servers")
	fs.StringArrayVar(&o.dnsSearch, "dns-search", nil, "Set custom DNS search domains")
	fs.StringArrayVar(&o.dnsOptions, "dns-option", nil, "Set DNS options")
	fs.StringArrayVar(&o.dnsOptions, "dns-opt", nil, "Set DNS options")
	for _, hidden := range []string{"net", "net-alias", "dns-opt"} {
		fs.Lookup(hidden).Hidden = true
	}
}

func (o *RunOptions) networked(r *Run, _ Client) error {
	n := &r.Ask.Net
	for _, spec := range o.network.publish {
		ports, err := ask.ParsePort(spec)
		if err != nil {
			return conflict(err.Error())
		}
		n.Ports = append(n.Ports, ports...)
	}
	for _, spec := range o.network.expose {
		ports, err := ask.ParseExpose(spec)
		if err != nil {
			return conflict(err.Error())
		}
		n.Exposed = append(n.Exposed, ports...)
	}
	for _, p := range n.Ports {
		if !slices.Contains(n.Exposed, p.Key()) {
			n.Exposed = append(n.Exposed, p.Key())
		}
	}
	for _, spec := range o.network.hosts {
		h, err := ask.CheckHost(spec)
		if err != nil {
			return invalid("--add-host", spec, err.Error())
		}
		n.Hosts = append(n.Hosts, h)
	}
	for _, a := range o.network.dns {
		if _, err := netip.ParseAddr(a); err != nil {
			return invalid("--dns", a, "IP address is not correctly formatted: "+a)
		}
	}
	n.PublishAll = o.network.publishAll
	n.DNS, n.DNSSearch, n.DNSOptions = o.network.dns, o.network.dnsSearch, o.network.dnsOptions
	return o.endpoints(r)
}

// endpoints makes the list of networks, the first with what the flags of one
// endpoint say.
func (o *RunOptions) endpoints(r *Run) error {
	var eps []record.Endpoint
	for _, spec := range o.network.networks {
		ep, err := endpoint(spec)
		if err != nil {
			return err
		}
		eps = append(eps, ep)
	}
	if len(eps) == 0 || eps[0].Network == "default" || eps[0].Network == "" {
		r.Ask.NetworkDefault = true
		if len(eps) == 0 {
			eps = []record.Endpoint{{}}
		}
		eps[0].Network = string(ask.NetBridge)
	}
	first := &eps[0]
	r.Ask.Network = ask.Network(first.Network)
	mac := o.network.mac
	if mac != "" && first.WantMAC != "" {
		return conflict("conflicting options: cannot specify both --mac-address and the mac-address option of --network")
	}
	if mac != "" {
		first.WantMAC = mac
	}
	if err := addresses(first, o.network.ip, o.network.ip6, "--ip", "--ip6"); err != nil {
		return err
	}
	first.Aliases = append(first.Aliases, o.network.aliases...)
	if r.Ask.Network == ask.NetBridge {
		r.Ask.Net.Links = o.network.links
	} else {
		first.Links = append(first.Links, o.network.links...)
	}
	if r.Ask.Network.Named() {
		if len(eps) > 1 || !bare(eps[0]) {
			r.Ask.Net.Endpoints = eps
		}
		return nil
	}
	_, joined := r.Ask.Network.Container()
	switch {
	case len(eps) > 1:
		return conflict("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	case joined && (len(r.Ask.Net.Ports) > 0 || r.Ask.Net.PublishAll):
		return conflict("conflicting options: port publishing and the container type network mode")
	case joined && len(o.network.expose) > 0:
		return conflict("conflicting options: port exposing and the container type network mode")
	case joined && len(o.network.links) > 0:
		return conflict("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case joined && len(o.network.dns) > 0:
		return conflict("conflicting options: dns and the network mode")
	case joined && len(o.network.hosts) > 0:
		return conflict("conflicting options: custom host-to-IP mapping and the network mode")
	case joined && mac != "":
		return conflict("conflicting options: mac-address and the network mode")
	case r.Ask.Network == ask.NetHost && len(o.network.links) > 0:
		return conflict("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case first.WantIP4.IsValid() || first.WantIP6.IsValid():
		return conflict("user specified IP address is supported on user defined networks only")
	case len(first.Aliases) > 0:
		return conflict("network-scoped aliases are only supported for user-defined networks")
	}
	return nil
}

// bare reports whether an endpoint says no more than the name of its network.
func bare(ep record.Endpoint) bool {
	return len(ep.Aliases)+len(ep.Links)+len(ep.DriverOpts) == 0 && ep.GwPriority == 0 && ep.WantMAC == "" && !ep.WantIP4.IsValid() && !ep.WantIP6.IsValid()
}

func addresses(ep *record.Endpoint, ip, ip6, flag, flag6 string) error {
	for _, a := range []struct {
		text, flag string
		four       bool
		to         *netip.Addr
	}{{ip, flag, true, &ep.WantIP4}, {ip6, flag6, false, &ep.WantIP6}} {
		if a.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil || addr.Is4() != a.four || addr.Zone() != "" {
			return invalid(a.flag, a.text, "no such address of that family")
		}
		*a.to = addr
	}
	return nil
}

// endpoint reads one --network: a name, or name=NAME with options, quoted as in
// CSV.
func endpoint(spec string) (record.Endpoint, error) {
	if !strings.Contains(spec, "=") {
		return record.Endpoint{Network: spec}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return record.Endpoint{}, invalid("--network", spec, err.Error())
	}
	var ep record.Endpoint
	var ip, ip6 string
	for _, f := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(f), "=")
		if !ok {
			return ep, invalid("--network", spec, "invalid field "+f+" must be a key=value pair")
		}
		switch strings.ToLower(key) {
		case "name":
			ep.Network = value
		case "alias":
			ep.Aliases = append(ep.Aliases, value)
		case "ip":
			ip = value
		case "ip6":
			ip6 = value
		case "mac-address":
			ep.WantMAC = value
		case "gw-priority":
			if ep.GwPriority, err = strconv.Atoi(value); err != nil {
				return ep, invalid("--network", spec, "invalid gw-priority: "+value)
			}
		case "driver-opt":
			k, v, ok := strings.Cut(value, "=")
			if !ok {
				return ep, invalid("--network", spec, "invalid key value pair format in driver options")
			}
			if ep.DriverOpts == nil {
				ep.DriverOpts = map[string]string{}
			}
			ep.DriverOpts[k] = v
		default:
			return ep, invalid("--network", spec, "invalid field key "+key)
		}
	}
	if ep.Network == "" {
		return ep, invalid("--network", spec, "network name must be specified")
	}
	return ep, addresses(&ep, ip, ip6, "--network", "--network")
}
