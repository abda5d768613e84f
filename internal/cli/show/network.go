package show

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Network is a row of network ls. Fields are docker's.
type Network struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label returns one label of the network.
func (n *Network) Label(name string) string { return n.labels[name] }

// NetworkTable is the table of network ls.
func NetworkTable(format string) Table {
	return Table{Format: format, Default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", Headings: Headings{
		"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL",
		"Labels": "LABELS", "CreatedAt": "CREATED AT",
	}}
}

// NetworkRow makes the row of a network.
func NetworkRow(n record.Network, trunc bool) Network {
	row := Network{
		CreatedAt: n.Created.Local().Format("2006-01-02 15:04:05.999999999 -0700 MST"), Driver: n.Driver, ID: n.ID, Name: n.Name, Scope: "local",
		IPv4: strconv.FormatBool(!n.NoIPv4), IPv6: strconv.FormatBool(n.IPv6), Internal: strconv.FormatBool(n.Internal),
		Labels: joinLabels(n.Labels), labels: n.Labels,
	}
	if trunc {
		row.ID = ref.Short(n.ID)
	}
	return row
}

// inspectedNetwork is a network as docker's inspect shows it.
type inspectedNetwork struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       ipam
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom struct{ Network string }
	ConfigOnly bool
	Containers map[string]networkMember
	Options    map[string]string
	Labels     map[string]string
	Device     string `json:"FiefDevice,omitempty"` // docker has no field for it
}

type ipam struct {
	Driver  string
	Options map[string]string
	Config  []ipamConfig
}

type ipamConfig struct {
	Subnet             netip.Prefix
	IPRange            netip.Prefix          `json:",omitzero"`
	Gateway            netip.Addr            `json:",omitzero"`
	AuxiliaryAddresses map[string]netip.Addr `json:",omitempty"`
}

type networkMember struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

// InspectedNetwork returns the object that `network inspect` prints.
func InspectedNetwork(n record.Network) any {
	out := inspectedNetwork{
		Name: n.Name, ID: n.ID, Created: stamp(n.Created), Scope: "local", Driver: n.Driver, EnableIPv4: !n.NoIPv4, EnableIPv6: n.IPv6,
		IPAM: ipam{Driver: "default", Options: map[string]string{}, Config: []ipamConfig{}}, Internal: n.Internal, Attachable: n.Attachable,
		Containers: map[string]networkMember{}, Options: n.Options, Labels: n.Labels, Device: n.Device,
	}
	if out.Options == nil {
		out.Options = map[string]string{}
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for _, s := range n.Subnets {
		out.IPAM.Config = append(out.IPAM.Config, ipamConfig{Subnet: s.Prefix, IPRange: s.Range, Gateway: s.Gateway, AuxiliaryAddresses: s.Aux})
	}
	for _, m := range n.Members {
		out.Containers[m.Container] = networkMember{Name: m.Name, EndpointID: m.Endpoint.ID, MacAddress: m.Endpoint.MAC,
			IPv4Address: prefix(m.Endpoint.IP4), IPv6Address: prefix(m.Endpoint.IP6)}
	}
	return out
}

func prefix(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// networkSettings are those of a container's inspect.
type networkSettings struct {
	SandboxID           string
	SandboxKey          string
	Ports               map[string][]portBinding
	EndpointID          string
	Gateway             string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	MacAddress          string
	Networks            map[string]endpointSettings
}

type portBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

type endpointSettings struct {
	IPAMConfig          *endpointIPAM
	Links               []string
	Aliases             []string
	DriverOpts          map[string]string
	GwPriority          int
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	MacAddress          string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
}

type endpointIPAM struct {
	IPv4Address netip.Addr `json:",omitzero"`
	IPv6Address netip.Addr `json:",omitzero"`
}

func networkSettingsOf(c record.Container) networkSettings {
	out := networkSettings{Ports: portMap(c), Networks: map[string]endpointSettings{}}
	if c.State.PID != 0 {
		out.SandboxID, out.SandboxKey = c.ID, "/proc/"+strconv.Itoa(c.State.PID)+"/ns/net"
	}
	for _, e := range c.Net.Endpoints {
		s := endpointOf(c, e)
		out.Networks[e.Network] = s
		if e.Network == "bridge" {
			out.EndpointID, out.Gateway, out.IPAddress, out.IPPrefixLen, out.MacAddress = s.EndpointID, s.Gateway, s.IPAddress, s.IPPrefixLen, s.MacAddress
			out.IPv6Gateway, out.GlobalIPv6Address, out.GlobalIPv6PrefixLen = s.IPv6Gateway, s.GlobalIPv6Address, s.GlobalIPv6PrefixLen
		}
	}
	if len(c.Net.Endpoints) == 0 {
		out.Networks[c.Network] = endpointSettings{}
	}
	return out
}

func endpointOf(c record.Container, e record.Endpoint) endpointSettings {
	s := endpointSettings{Links: e.Links, Aliases: e.Aliases, DriverOpts: e.DriverOpts, GwPriority: e.GwPriority, NetworkID: e.NetworkID,
		DNSNames: append([]string{c.Name}, append(slices.Clone(e.Aliases), ref.Short(c.ID))...)}
	if e.WantIP4.IsValid() || e.WantIP6.IsValid() {
		s.IPAMConfig = &endpointIPAM{e.WantIP4, e.WantIP6}
	}
	if !e.Up() {
		return s
	}
	s.EndpointID, s.Gateway, s.IPv6Gateway, s.MacAddress = e.ID, address(e.GW4), address(e.GW6), e.MAC
	if e.IP4.IsValid() {
		s.IPAddress, s.IPPrefixLen = e.IP4.Addr().String(), e.IP4.Bits()
	}
	if e.IP6.IsValid() {
		s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = e.IP6.Addr().String(), e.IP6.Bits()
	}
	return s
}

func portMap(c record.Container) map[string][]portBinding {
	out := map[string][]portBinding{}
	if !c.State.Up() {
		return out
	}
	for _, e := range c.Net.Exposed {
		out[e] = nil
	}
	for _, p := range c.Net.Published {
		out[p.Key()] = append(out[p.Key()], portBinding{p.HostIP.String(), strconv.Itoa(int(p.Host))})
	}
	return out
}

// PortLines are the lines of `port`: all, or those of one port of the container.
func PortLines(c record.Container, of string) []string {
	if of != "" && !strings.Contains(of, "/") {
		of += "/tcp"
	}
	var out []string
	for _, p := range c.Net.Published {
		at := netip.AddrPortFrom(p.HostIP, p.Host).String()
		switch of {
		case "":
			out = append(out, p.Key()+" -> "+at)
		case p.Key():
			out = append(out, at)
		}
	}
	slices.Sort(out)
	return out
}

// Ports is the PORTS column of ps: published ports, runs of them together, then
// those that are only exposed.
func Ports(c record.Container) string {
	if !c.State.Up() {
		return ""
	}
	list := slices.Clone(c.Net.Published)
	slices.SortFunc(list, func(a, b record.Published) int {
		for _, d := range []int{strings.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), int(a.Container) - int(b.Container), int(a.Host) - int(b.Host)} {
			if d != 0 {
				return d
			}
		}
		return 0
	})
	var out []string
	published := map[string]bool{}
	for i := 0; i < len(list); {
		j := i + 1
		for j < len(list) && follows(list[j-1], list[j]) {
			j++
		}
		out = append(out, run(list[i], list[j-1]))
		for _, p := range list[i:j] {
			published[p.Key()] = true
		}
		i = j
	}
	for _, e := range c.Net.Exposed {
		if !published[e] {
			out = append(out, e)
		}
	}
	return strings.Join(out, ", ")
}

func follows(a, b record.Published) bool {
	return a.Proto == b.Proto && a.HostIP == b.HostIP && b.Container == a.Container+1 && b.Host == a.Host+1
}

func run(first, last record.Published) string {
	at := netip.AddrPortFrom(first.HostIP, first.Host).String()
	if first == last {
		return at + "->" + first.Key()
	}
	return at + "-" + strconv.Itoa(int(last.Host)) + "->" + strconv.Itoa(int(first.Container)) + "-" + last.Key()
}
