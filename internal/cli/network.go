package cli

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func networkCommands() []Command {
	return []Command{
		{Name: "network-create", Use: "[OPTIONS] NETWORK", Short: "Create a network", Min: 1, Max: 1, Setup: setupNetworkCreate},
		{Name: "network-ls", Use: "[OPTIONS]", Short: "List networks", Setup: setupNetworkList},
		{Name: "network-inspect", Use: "[OPTIONS] NETWORK [NETWORK...]", Short: "Display detailed information on one or more networks", Min: 1, Max: -1, Setup: setupNetworkInspect},
		{Name: "network-rm", Use: "NETWORK [NETWORK...]", Short: "Remove one or more networks", Min: 1, Max: -1, Setup: setupNetworkRemove},
		{Name: "network-connect", Use: "[OPTIONS] NETWORK CONTAINER", Short: "Connect a container to a network", Min: 2, Max: 2, Setup: setupNetworkConnect},
		{Name: "network-disconnect", Use: "[OPTIONS] NETWORK CONTAINER", Short: "Disconnect a container from a network", Min: 2, Max: 2, Setup: setupNetworkDisconnect},
		{Name: "network-prune", Use: "[OPTIONS]", Short: "Remove all unused networks", Setup: setupNetworkPrune},
		{Name: "port", Use: "CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List port mappings or a specific mapping for the container", Min: 1, Max: 2, Objects: containers, Setup: setupPort},
	}
}

func setupNetworkCreate(fs *pflag.FlagSet) action {
	var a ask.CreateNetwork
	var subnets, gateways, ranges, aux, labels, options []string
	var ipam string
	four := fs.Bool("ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&a.IPv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&a.Internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&a.Attachable, "attachable", false, "Enable manual container attachment")
	fs.StringVarP(&a.Driver, "driver", "d", "bridge", `Driver to manage the Network ("bridge", "macvlan", "ipvlan", "cni")`)
	fs.StringSliceVar(&subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.StringSliceVar(&ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringArrayVar(&aux, "aux-address", nil, "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.StringArrayVar(&labels, "label", nil, "Set metadata on a network")
	fs.StringArrayVarP(&options, "opt", "o", nil, "Set driver specific options")
	fs.StringVar(&ipam, "ipam-driver", "default", "IP Address Management Driver")
	fs.Lookup("ipam-driver").Hidden = true
	return func(c *Client, args []string) error {
		a.Name, a.NoIPv4 = args[0], !*four
		if ipam != "default" {
			return fault.New(fault.Unsupported, "use IPAM driver", ipam, "there is only the default one", "leave out --ipam-driver")
		}
		var err error
		if a.Subnets, err = subnetsAsked(subnets, gateways, ranges, aux); err != nil {
			return err
		}
		if a.Labels, err = pairs("network create", "--label", labels); err != nil {
			return err
		}
		if a.Options, err = pairs("network create", "--opt", options); err != nil {
			return err
		}
		var made wire.NetworkReply
		if err := c.call(wire.CreateNetwork, a, &made); err != nil {
			return err
		}
		c.line(made.Network.ID)
		for _, w := range made.Warnings {
			c.warning(w)
		}
		return nil
	}
}

func (c *Client) warning(w string) { _, _ = c.Err.Write([]byte("WARNING: " + w + "\n")) }

// pairs reads the NAME=VALUE words of a command's flag; a word alone has an empty
// value, as in Docker.
func pairs(command, flag string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	out := map[string]string{}
	for _, g := range given {
		k, v, _ := strings.Cut(g, "=")
		if k == "" {
			return nil, cmdline.Usage(command, fault.Say(fault.Invalid, "invalid argument "+g+" for "+flag))
		}
		out[k] = v
	}
	return out, nil
}

// subnetsAsked puts gateways, ranges and addresses to the subnets they are in,
// as docker's client does.
func subnetsAsked(subnets, gateways, ranges, aux []string) ([]record.Subnet, error) {
	var out []record.Subnet
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fault.Say(fault.Invalid, "invalid subnet "+s+": "+err.Error())
		}
		out = append(out, record.Subnet{Prefix: p.Masked()})
	}
	in := func(a netip.Addr) *record.Subnet {
		for i := range out {
			if out[i].Prefix.Contains(a) {
				return &out[i]
			}
		}
		return nil
	}
	for _, r := range ranges {
		p, err := netip.ParsePrefix(r)
		s := in(p.Addr())
		if err != nil || s == nil {
			return nil, fault.Say(fault.Invalid, "no matching subnet for range "+r)
		}
		s.Range = p
	}
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		s := in(a)
		if err != nil || s == nil {
			return nil, fault.Say(fault.Invalid, "no matching subnet for gateway "+g)
		}
		s.Gateway = a
	}
	for _, x := range aux {
		name, value, _ := strings.Cut(x, "=")
		a, err := netip.ParseAddr(value)
		s := in(a)
		if err != nil || s == nil {
			return nil, fault.Say(fault.Invalid, "no matching subnet for aux-address "+x)
		}
		if s.Aux == nil {
			s.Aux = map[string]netip.Addr{}
		}
		s.Aux[name] = a
	}
	return out, nil
}

func (c *Client) networks() (all []record.Network, err error) {
	err = c.call(wire.Networks, struct{}{}, &all)
	return all, err
}

func setupNetworkList(fs *pflag.FlagSet) action {
	filters := fs.StringArrayP("filter", "f", nil, `Provide filter values (e.g. "driver=bridge")`)
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	noTrunc := fs.Bool("no-trunc", false, "Do not truncate the output")
	quiet := fs.BoolP("quiet", "q", false, "Only display network IDs")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		all, err := c.networks()
		if err != nil {
			return err
		}
		keep, err := c.networkFilter(*filters)
		if err != nil {
			return err
		}
		if *quiet {
			*format = "{{.ID}}"
		}
		var rows []show.Network
		for _, n := range all {
			if keep(n) {
				rows = append(rows, show.NetworkRow(n, !*noTrunc))
			}
		}
		return show.Write(c.Out, show.NetworkTable(*format), rows)
	}
}

func builtin(n record.Network) bool {
	return n.Driver == "host" || n.Driver == "null" || n.Name == "bridge"
}

// networkFilter makes the predicate of network ls --filter.
func (c *Client) networkFilter(given []string) (func(record.Network) bool, error) {
	f, err := parseFilters(given, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	if len(f["dangling"]) > 0 {
		list, err := c.list()
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			for _, ep := range r.Net.Endpoints {
				used[ep.NetworkID] = true
			}
		}
	}
	return func(n record.Network) bool {
		kind := "custom"
		if builtin(n) {
			kind = "builtin"
		}
		dangling := kind == "custom" && !used[n.ID]
		return f.any("driver", func(v string) bool { return v == n.Driver }) &&
			f.any("id", func(v string) bool { return strings.HasPrefix(n.ID, v) }) &&
			f.any("name", func(v string) bool { return strings.Contains(n.Name, v) }) &&
			f.any("scope", func(v string) bool { return v == "local" }) && f.any("type", func(v string) bool { return v == kind }) &&
			f.any("dangling", func(v string) bool { return (v == "true" || v == "1") == dangling }) && f.labels("label", n.Labels)
	}, nil
}

func setupNetworkInspect(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	fs.BoolP("verbose", "v", false, "Verbose output for diagnostics")
	fs.Lookup("verbose").Hidden = true
	return func(c *Client, args []string) error {
		return c.inspectAll(args, *format, func(name string) (any, error) {
			var n record.Network
			if err := c.call(wire.Network, wire.Name{Name: name}, &n); err != nil {
				return nil, err
			}
			return show.InspectedNetwork(n), nil
		})
	}
}

func setupNetworkRemove(fs *pflag.FlagSet) action {
	force := fs.BoolP("force", "f", false, "Do not error if the network does not exist")
	return func(c *Client, args []string) error {
		failed := false
		for _, name := range args {
			err := c.call(wire.RemoveNetwork, wire.Name{Name: name}, nil)
			if err != nil && !(*force && fault.Is(err, fault.NotFound)) {
				Print(c.Err, err)
				failed = true
				continue
			}
			c.line(name)
		}
		return statusOf(failed)
	}
}

func setupNetworkConnect(fs *pflag.FlagSet) action {
	var ep record.Endpoint
	var ip, ip6 string
	var options, local []string
	fs.StringArrayVar(&ep.Aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringArrayVar(&ep.Links, "link", nil, "Add link to another container")
	fs.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	fs.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	fs.StringArrayVar(&options, "driver-opt", nil, "driver options for the network")
	fs.IntVar(&ep.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	fs.StringArrayVar(&local, "link-local-ip", nil, "Add a link-local address for the container")
	fs.Lookup("link-local-ip").Hidden = true
	return func(c *Client, args []string) error {
		if len(local) > 0 {
			return fault.New(fault.Unsupported, "give", "link-local addresses", "networks have none", "leave out --link-local-ip")
		}
		var err error
		if ep.DriverOpts, err = pairs("network connect", "--driver-opt", options); err != nil {
			return err
		}
		for _, a := range []struct {
			text string
			to   *netip.Addr
		}{{ip, &ep.WantIP4}, {ip6, &ep.WantIP6}} {
			if a.text == "" {
				continue
			}
			if *a.to, err = netip.ParseAddr(a.text); err != nil {
				return fault.Say(fault.Invalid, "invalid IP address: "+a.text)
			}
		}
		return c.call(wire.ConnectNetwork, ask.ConnectNetwork{Network: args[0], Container: args[1], Endpoint: ep}, nil)
	}
}

func setupNetworkDisconnect(fs *pflag.FlagSet) action {
	force := fs.BoolP("force", "f", false, "Force the container to disconnect from a network")
	return func(c *Client, args []string) error {
		return c.call(wire.DisconnectNetwork, ask.DisconnectNetwork{Network: args[0], Container: args[1], Force: *force}, nil)
	}
}

func setupNetworkPrune(fs *pflag.FlagSet) action {
	flags := newPruneFlags(fs)
	return func(c *Client, args []string) error {
		if err := flags.only(); err != nil {
			return err
		}
		if !*flags.force && !c.confirm("WARNING! This will remove all custom networks not used by at least one container.") {
			return nil
		}
		return c.pruneNetworks(*flags.filters)
	}
}

// pruneNetworks removes networks that no container has.
func (c *Client) pruneNetworks(filters []string) error {
	f, err := parseFilters(filters, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := f.time("until", time.Now())
	if err != nil {
		return err
	}
	all, err := c.networks()
	if fault.Is(err, fault.Unsupported) {
		return nil // a daemon without networks has none to remove
	}
	if err != nil {
		return err
	}
	var keep []string
	for _, n := range all {
		goes := f.labels("label", n.Labels) && (len(f["label!"]) == 0 || !f.labels("label!", n.Labels)) && (until.IsZero() || n.Created.Before(until))
		if !goes {
			keep = append(keep, n.ID)
		}
	}
	var gone record.Pruned
	if err := c.call(wire.PruneNetworks, wire.PruneNetworksCall{Keep: keep}, &gone); err != nil {
		return err
	}
	slices.Sort(gone.Networks)
	c.block("Deleted Networks:", gone.Networks)
	return nil
}

func setupPort(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		r, err := c.inspect(args[0])
		if err != nil {
			return err
		}
		of := ""
		if len(args) > 1 {
			of = args[1]
		}
		lines := show.PortLines(r, of)
		if of != "" && len(lines) == 0 {
			return fault.Say(fault.NotFound, "no public port '"+of+"' published for "+args[0])
		}
		for _, l := range lines {
			c.line(l)
		}
		return nil
	}
}
