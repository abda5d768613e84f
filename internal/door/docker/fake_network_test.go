package docker

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// fakeNetworks are the networks of the fake engine, besides the fixed ones.
func (f *fake) Networks(context.Context) ([]record.Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fixed := []record.Network{{Name: "bridge", Driver: "bridge"}, {Name: "host", Driver: "host"}, {Name: "none", Driver: "null"}}
	for i := range fixed {
		fixed[i].ID, fixed[i].Created = strings.Repeat(string(rune('a'+i)), 64), time.Unix(0, 0)
	}
	return append(fixed, f.made...), nil
}

func (f *fake) Network(ctx context.Context, name string) (record.Network, error) {
	all, _ := f.Networks(ctx)
	for _, n := range all {
		if n.Name == name || n.ID == name {
			return n, nil
		}
	}
	return record.Network{}, fault.Say(fault.NotFound, "network "+name+" not found")
}

func (f *fake) CreateNetwork(_ context.Context, a ask.CreateNetwork) (record.Network, []string, error) {
	n := record.Network{Name: a.Name, ID: ref.NewID(), Driver: a.Driver, Subnets: a.Subnets, Internal: a.Internal, Labels: a.Labels, Options: a.Options, IPv6: a.IPv6, Created: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = append(f.made, n)
	return n, []string{"a firewall"}, nil
}

func (f *fake) RemoveNetwork(ctx context.Context, name string) error {
	n, err := f.Network(ctx, name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made = slices.DeleteFunc(f.made, func(o record.Network) bool { return o.ID == n.ID })
	if n.Driver != "bridge" || n.Name == "bridge" {
		return fault.Say(fault.Denied, n.Name+" is a pre-defined network and cannot be removed")
	}
	return nil
}

func (f *fake) PruneNetworks(ctx context.Context, keep func(record.Network) bool) (record.Pruned, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out record.Pruned
	for _, n := range f.made {
		if !keep(n) {
			out.Networks = append(out.Networks, n.Name)
		}
	}
	f.made = slices.DeleteFunc(f.made, func(n record.Network) bool { return slices.Contains(out.Networks, n.Name) })
	return out, nil
}

func (f *fake) Connect(ctx context.Context, a ask.ConnectNetwork) error {
	n, err := f.Network(ctx, a.Network)
	if err != nil {
		return err
	}
	p, err := f.find(a.Container)
	if err != nil {
		return err
	}
	ep := a.Endpoint
	ep.Network, ep.NetworkID, ep.ID, ep.MAC = n.Name, n.ID, ref.NewID(), "02:42:0a:01:00:02"
	ep.IP4, ep.GW4 = netip.MustParsePrefix("10.1.0.2/24"), netip.MustParseAddr("10.1.0.1")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rec.Net.Endpoints = append(p.rec.Net.Endpoints, ep)
	return nil
}

func (f *fake) Disconnect(ctx context.Context, a ask.DisconnectNetwork) error {
	p, err := f.find(a.Container)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rec.Net.Endpoints = nil
	return nil
}

// knows refuses networks that there are not.
func (f *fake) knows(ctx context.Context, a ask.Container) error {
	names := []string{}
	if a.Network.Named() {
		names = append(names, string(a.Network))
	}
	for _, ep := range a.Net.Endpoints {
		names = append(names, ep.Network)
	}
	for _, name := range names {
		if _, err := f.Network(ctx, name); err != nil {
			return fault.Say(fault.Invalid, err.Error())
		}
	}
	return nil
}
