package docker

import (
	"context"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// networker is an engine that has networks of containers besides none and the
// host's.
type networker interface {
	Networks(context.Context) ([]record.Network, error)
	Network(ctx context.Context, name string) (record.Network, error)
	CreateNetwork(context.Context, ask.CreateNetwork) (record.Network, []string, error)
	RemoveNetwork(ctx context.Context, name string) error
	PruneNetworks(ctx context.Context, keep func(record.Network) bool) (record.Pruned, error)
	Connect(context.Context, ask.ConnectNetwork) error
	Disconnect(context.Context, ask.DisconnectNetwork) error
}

func (d *door) networker() (networker, error) {
	if n, ok := d.engine.(networker); ok {
		return n, nil
	}
	return nil, refuse("networks of containers", "use --network none or --network host")
}

func (d *door) networkRoutes() []route {
	return []route{
		on("GET /networks", d.networkList),
		on("GET /networks/", d.networkList),
		on("POST /networks/create", d.networkCreate),
		on("POST /networks/prune", d.networkPrune),
		on("POST /networks/*/connect", d.networkConnect),
		on("POST /networks/*/disconnect", d.networkDisconnect),
		on("GET /networks/*", d.networkInspect),
		on("DELETE /networks/*", d.networkRemove),
	}
}

// networkOf is a network as the API shows it.
func networkOf(n record.Network) network.Network {
	out := network.Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: !n.NoIPv4, EnableIPv6: n.IPv6,
		IPAM:     network.IPAM{Driver: "default", Options: map[string]string{}, Config: []network.IPAMConfig{}},
		Internal: n.Internal, Attachable: n.Attachable, Options: labelsOf(n.Options), Labels: labelsOf(n.Labels),
	}
	for _, s := range n.Subnets {
		out.IPAM.Config = append(out.IPAM.Config, network.IPAMConfig{Subnet: s.Prefix, IPRange: s.Range, Gateway: s.Gateway, AuxAddress: s.Aux})
	}
	return out
}

// inspectNetwork is networkOf with the containers that run on it.
func inspectNetwork(n record.Network) network.Inspect {
	out := network.Inspect{Network: networkOf(n), Containers: map[string]network.EndpointResource{}}
	for _, m := range n.Members {
		r := network.EndpointResource{Name: m.Name, EndpointID: m.Endpoint.ID, IPv4Address: m.Endpoint.IP4, IPv6Address: m.Endpoint.IP6}
		_ = r.MacAddress.UnmarshalText([]byte(m.Endpoint.MAC)) // stays empty when it is none
		out.Containers[m.Container] = r
	}
	return out
}

var networkFilters = []string{"dangling", "driver", "id", "label", "name", "scope", "type"}

// network reports whether a network passes the filters; used are the ids of
// those that containers have.
func (f filters) network(n record.Network, used map[string]bool) bool {
	kind := "custom"
	if predefined(n) {
		kind = "builtin"
	}
	return f.any("driver", func(v string) bool { return v == n.Driver }) &&
		f.any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
		f.any("name", func(v string) bool { return matches(v, n.Name) }) &&
		f.any("scope", func(v string) bool { return v == "local" }) &&
		f.any("type", func(v string) bool { return v == kind }) &&
		f.any("dangling", func(v string) bool { return isTrue(v) == (kind == "custom" && !used[n.ID]) }) && f.labels(n.Labels)
}

func predefined(n record.Network) bool {
	return n.Driver == "host" || n.Driver == "null" || n.Name == "bridge"
}

// matches reports whether a pattern is in a name, as a regular expression or as
// it is.
func matches(pattern, name string) bool {
	if re, err := regexp.Compile(pattern); err == nil && re.MatchString(name) {
		return true
	}
	return strings.Contains(name, pattern)
}

func (d *door) networkList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), networkFilters)
	if err != nil {
		return err
	}
	if _, err := f.truth("dangling", false); err != nil {
		return err
	}
	n, err := d.networker()
	if err != nil {
		return ok(w, []network.Inspect{})
	}
	list, err := n.Networks(r.Context())
	if err != nil {
		return err
	}
	used := map[string]bool{}
	if f.has("dangling") {
		all, err := d.engine.List(r.Context())
		if err != nil {
			return err
		}
		for _, c := range all {
			for _, ep := range c.Net.Endpoints {
				used[ep.NetworkID] = true
			}
		}
	}
	out := []network.Inspect{}
	for _, one := range list {
		if f.network(one, used) {
			out = append(out, network.Inspect{Network: networkOf(one), Containers: map[string]network.EndpointResource{}})
		}
	}
	return ok(w, out)
}

func (d *door) networkInspect(w http.ResponseWriter, r *request) error {
	n, err := d.networker()
	if err != nil {
		return notFound("network %s not found", r.name)
	}
	one, err := n.Network(r.Context(), r.name)
	if err != nil {
		return err
	}
	out := inspectNetwork(one)
	if one.Driver != "host" && one.Driver != "null" {
		return ok(w, out)
	}
	list, err := d.engine.List(r.Context())
	if err != nil {
		return err
	}
	for _, c := range list {
		if running(c) && c.Network == one.Name {
			out.Containers[c.ID] = network.EndpointResource{Name: c.Name}
		}
	}
	return ok(w, out)
}

func (d *door) networkCreate(w http.ResponseWriter, r *request) error {
	n, err := d.networker()
	if err != nil {
		return err
	}
	var body network.CreateRequest
	if err := r.body(&body, true); err != nil {
		return err
	}
	a, err := createAsked(body)
	if err != nil {
		return err
	}
	made, warnings, err := n.CreateNetwork(r.uncut(), a)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: made.ID, Warning: strings.Join(warnings, "\n")})
}

func createAsked(b network.CreateRequest) (ask.CreateNetwork, error) {
	a := ask.CreateNetwork{Name: b.Name, Driver: b.Driver, Internal: b.Internal, Attachable: b.Attachable, Labels: b.Labels, Options: b.Options,
		IPv6: b.EnableIPv6 != nil && *b.EnableIPv6, NoIPv4: b.EnableIPv4 != nil && !*b.EnableIPv4}
	if b.Driver == "default" {
		a.Driver = ""
	}
	err := refuseSet(
		field{"Scope " + b.Scope, b.Scope != "" && b.Scope != "local", "leave it out"},
		field{"Ingress", b.Ingress, "leave it out"},
		field{"ConfigOnly", b.ConfigOnly, "leave it out"},
		field{"ConfigFrom", b.ConfigFrom != nil && b.ConfigFrom.Network != "", "leave it out"},
	)
	if err != nil || b.IPAM == nil {
		return a, err
	}
	if b.IPAM.Driver != "" && b.IPAM.Driver != "default" {
		return a, refuse("IPAM driver "+b.IPAM.Driver, "leave out --ipam-driver")
	}
	for _, c := range b.IPAM.Config {
		a.Subnets = append(a.Subnets, record.Subnet{Prefix: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
	}
	return a, nil
}

func (d *door) networkConnect(_ http.ResponseWriter, r *request) error {
	n, err := d.networker()
	if err != nil {
		return err
	}
	var body network.ConnectRequest
	if err := r.body(&body, true); err != nil {
		return err
	}
	ep, err := endpointAsked(r.name, body.EndpointConfig)
	if err != nil {
		return err
	}
	return n.Connect(r.uncut(), ask.ConnectNetwork{Network: r.name, Container: body.Container, Endpoint: ep})
}

func (d *door) networkDisconnect(_ http.ResponseWriter, r *request) error {
	n, err := d.networker()
	if err != nil {
		return err
	}
	var body network.DisconnectRequest
	if err := r.body(&body, true); err != nil {
		return err
	}
	return n.Disconnect(r.uncut(), ask.DisconnectNetwork{Network: r.name, Container: body.Container, Force: body.Force})
}

func (d *door) networkRemove(w http.ResponseWriter, r *request) error {
	n, err := d.networker()
	if err != nil {
		return fault.Say(fault.Denied, r.name+" is a pre-defined network and cannot be removed")
	}
	if err := n.RemoveNetwork(r.uncut(), r.name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *door) networkPrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"label", "label!", "until"})
	if err != nil {
		return err
	}
	until, err := f.moment("until")
	if err != nil {
		return err
	}
	n, err := d.networker()
	if err != nil {
		return ok(w, network.PruneReport{})
	}
	gone, err := n.PruneNetworks(r.uncut(), func(n record.Network) bool {
		return !f.labels(n.Labels) || !until.IsZero() && !n.Created.Before(until)
	})
	if err != nil {
		return err
	}
	return ok(w, network.PruneReport{NetworksDeleted: gone.Networks})
}

// endpointAsked reads what a client wants of a network.
func endpointAsked(name string, ep *network.EndpointSettings) (record.Endpoint, error) {
	out := record.Endpoint{Network: name}
	if ep == nil {
		return out, nil
	}
	out.Aliases, out.Links, out.DriverOpts, out.GwPriority = ep.Aliases, ep.Links, ep.DriverOpts, ep.GwPriority
	if len(ep.MacAddress) > 0 {
		out.WantMAC = ep.MacAddress.String()
	}
	if c := ep.IPAMConfig; c != nil {
		if len(c.LinkLocalIPs) > 0 {
			return out, refuse("LinkLocalIPs on network "+name, without("--link-local-ip"))
		}
		out.WantIP4, out.WantIP6 = c.IPv4Address, c.IPv6Address
	}
	for _, a := range []struct {
		ip   netip.Addr
		four bool
	}{{out.WantIP4, true}, {out.WantIP6, false}} {
		if a.ip.IsValid() && a.ip.Is4() != a.four {
			return out, invalid("invalid endpoint settings:\ninvalid IP address of network %s: %s", name, a.ip)
		}
	}
	return out, nil
}

// settingsOf is an endpoint as a container's inspect shows it; addresses are
// shown while it runs.
func settingsOf(c record.Container, e record.Endpoint) *network.EndpointSettings {
	s := &network.EndpointSettings{
		Links: e.Links, Aliases: e.Aliases, DriverOpts: e.DriverOpts, GwPriority: e.GwPriority, NetworkID: e.NetworkID,
	}
	if e.WantIP4.IsValid() || e.WantIP6.IsValid() {
		s.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: e.WantIP4, IPv6Address: e.WantIP6}
	}
	for _, name := range slices.Concat([]string{c.Name}, e.Aliases, []string{c.ID[:min(12, len(c.ID))], c.Hostname}) {
		if name != "" && !slices.Contains(s.DNSNames, name) {
			s.DNSNames = append(s.DNSNames, name)
		}
	}
	if !e.Up() {
		return s
	}
	s.EndpointID, s.Gateway, s.IPv6Gateway = e.ID, e.GW4, e.GW6
	_ = s.MacAddress.UnmarshalText([]byte(e.MAC))
	if e.IP4.IsValid() {
		s.IPAddress, s.IPPrefixLen = e.IP4.Addr(), e.IP4.Bits()
	}
	if e.IP6.IsValid() {
		s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = e.IP6.Addr(), e.IP6.Bits()
	}
	return s
}
