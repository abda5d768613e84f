package engine

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"fief/internal/monitor"
	"fief/internal/network"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// networks is the room of networks.
type networks interface {
	naming
	Create(ask.CreateNetwork) (record.Network, error)
	Remove(name string) (record.Network, error)
	Find(name string) (record.Network, error)
	List() []record.Network
	Resolve([]record.Endpoint) ([]record.Endpoint, error)
	// Attach gives a container that is to start what it asks for; Detach takes
	// it back.
	Attach(network.Who, record.Net) (record.Net, *network.Wiring, error)
	Detach(record.Net)
	// Connect, carried out by Plug, and Unplug do so for one endpoint of a container
	// that runs.
	Connect(network.Who, record.Net, record.Endpoint) (record.Endpoint, *network.Wiring, error)
	Plug(context.Context, record.Endpoint, *network.Wiring, network.Space) (record.Endpoint, error)
	Unplug(netns *os.File, ep record.Endpoint) error
	Adopt(network.Who, record.Net)
	Settle()
	Close()
}

// naming is the room's part that tells containers of each other.
type naming interface {
	// Name prepares the resolver of a container that has one, whose sockets are
	// to be put into a box, and what others than its wiring connect. Named begins
	// to answer by what is in the box, NameIn by what it opens itself, or asks
	// elsewhere from now on.
	Name(container string) (*network.Handover, error)
	Named(container string) error
	NameIn(container string, netns *os.File) error
	Rename(container, name string)
}

// resolveNetworks completes the networks of a container that is being made. One
// that has none, the host's or another container's has no endpoints.
func (e *Engine) resolveNetworks(rec *record.Container, a ask.Container, img record.Image) error {
	rec.Net = a.Net
	for _, port := range img.Config.ExposedPorts {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		if !slices.Contains(rec.Net.Exposed, port) {
			rec.Net.Exposed = append(rec.Net.Exposed, port)
		}
	}
	if !a.Network.Named() {
		if len(a.Net.Endpoints) > 1 {
			return fault.Say(fault.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		rec.Net.Endpoints = nil
		return nil
	}
	if e.rooms.Networks == nil {
		return fault.New(fault.Unsupported, "use network", string(a.Network), "this daemon has no networks", "use --network none")
	}
	if len(rec.Net.Endpoints) == 0 {
		rec.Net.Endpoints = []record.Endpoint{{Network: string(a.Network)}}
	}
	eps, err := e.rooms.Networks.Resolve(rec.Net.Endpoints)
	if err != nil {
		return err
	}
	rec.Net.Endpoints = eps
	rec.Network = eps[0].Network
	return nil
}

// attach connects a container that is being started, and notes it where the
// next daemon finds it: an address is nobody else's from here on.
func (e *Engine) attach(c *container, rec record.Container, b *bundle) (record.Container, error) {
	if len(rec.Net.Endpoints) == 0 {
		return rec, nil
	}
	e.detach(c)
	rec = c.record()
	net, w, err := e.rooms.Networks.Attach(whoIs(rec), rec.Net)
	if err != nil {
		return rec, err
	}
	b.net = monitor.Net{Outside: w.Outside, Spaces: w.Spaces, Settings: w.Settings, Inside: w.Inside}
	for _, d := range w.Devices {
		b.net.Devices = append(b.net.Devices, monitor.NetDevice(d))
	}
	if b.hand, err = e.rooms.Networks.Name(rec.ID); err != nil {
		e.rooms.Networks.Detach(net)
		return rec, err
	}
	b.net.Port, b.net.Wait = uint32(b.hand.Port), b.hand.Offer != nil
	failpoint.Hit("network-attached")
	rec = c.change(func(r *record.Container) { r.Net = net })
	if err := e.writeRun(rec); err != nil {
		e.detach(c)
		return rec, err
	}
	failpoint.Hit("network-noted")
	return rec, nil
}

func whoIs(rec record.Container) network.Who {
	return network.Who{Container: rec.ID, Name: rec.Name, Hostname: rec.Hostname}
}

// named begins to answer a started container's questions for names. It runs
// without, should that fail.
func (e *Engine) named(rec record.Container) {
	if len(rec.Net.Endpoints) == 0 {
		return
	}
	if err := e.rooms.Networks.Named(rec.ID); err != nil {
		slog.Warn("a container cannot look up names", "container", rec.ID, "error", err)
	}
}

// nameAgain does so for one that an earlier daemon has started.
func (e *Engine) nameAgain(rec record.Container) {
	if !slices.ContainsFunc(rec.Net.Endpoints, record.Endpoint.Up) {
		return
	}
	netns, err := e.rooms.Spaces.Of(rec.State.PID, rec.State.StartedAt, "net")
	if err == nil {
		err = e.rooms.Networks.NameIn(rec.ID, netns)
		netns.Close()
	}
	if err != nil {
		slog.Warn("a container cannot look up names", "container", rec.ID, "error", err)
	}
}

// resolveAnew has the resolv.conf of a running container say who answers it, when
// that is another than before. One that the container has changed is its own.
func (e *Engine) resolveAnew(before, after record.Container) {
	if after.State.Status != record.Running || network.Resolves(before.Net) == network.Resolves(after.Net) {
		return
	}
	old, err := network.FilesFor(before, nil)
	if err != nil {
		return
	}
	path := filepath.Join(e.runDir(after.ID), "resolv.conf")
	if has, err := os.ReadFile(path); err != nil || !bytes.Equal(has, old.Resolv) {
		return
	}
	now, err := network.FilesFor(after, nil)
	if err == nil {
		err = os.WriteFile(path, now.Resolv, 0o644) // in place: it is mounted
	}
	if err != nil {
		slog.Warn("cannot name a container's resolver", "container", after.ID, "error", err)
	}
}

// detach gives back what a container that does not run had of its networks. It
// remembers its addresses, and gets them again when they are free.
func (e *Engine) detach(c *container) {
	rec := c.record()
	if !slices.ContainsFunc(rec.Net.Endpoints, record.Endpoint.Up) {
		return
	}
	e.rooms.Networks.Detach(rec.Net)
	c.change(func(r *record.Container) { r.Net = parted(r.Net) })
}

// parted is what is left of a container's networks when it ends.
func parted(n record.Net) record.Net {
	n.Published = nil
	n.Endpoints = slices.DeleteFunc(slices.Clone(n.Endpoints), func(ep record.Endpoint) bool { return ep.Passing })
	for i := range n.Endpoints {
		n.Endpoints[i].ID, n.Endpoints[i].Host = "", ""
	}
	return n
}

// tellEndpoints tells of a container's endpoints.
func (e *Engine) tellEndpoints(action string, rec record.Container, eps []record.Endpoint) {
	for _, ep := range eps {
		if ep.Up() {
			e.tellNetwork(action, record.Network{ID: ep.NetworkID, Name: ep.Network, Driver: e.driverOf(ep)}, map[string]string{"container": rec.ID})
		}
	}
}

func (e *Engine) driverOf(ep record.Endpoint) string {
	n, err := e.rooms.Networks.Find(ep.NetworkID)
	if err != nil {
		return "bridge"
	}
	return n.Driver
}

func (e *Engine) tellNetwork(action string, n record.Network, more map[string]string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	for k, v := range more {
		attrs[k] = v
	}
	e.rooms.Events.Publish(record.Event{Type: "network", Action: action, ID: n.ID, Attrs: attrs})
}

// linkLines are the lines of a hosts file for the containers that one is linked
// with; they must run, as in Docker.
func (e *Engine) linkLines(rec record.Container) ([]string, error) {
	var out []string
	for i, ep := range rec.Net.Endpoints {
		links := ep.Links
		if i == 0 {
			links = append(slices.Clone(links), rec.Net.Links...)
		}
		for _, l := range links {
			name, alias, ok := strings.Cut(l, ":")
			if !ok {
				alias = name
			}
			other, err := e.table.find(name)
			if err != nil {
				return nil, fault.Say(fault.Invalid, "could not get container for "+name+": "+err.Error())
			}
			line := lineOf(other.record(), ep.NetworkID, alias)
			if line == "" {
				return nil, fault.Say(fault.Conflict, "Cannot link to a non running container: /"+other.record().Name+" AS /"+rec.Name+"/"+alias)
			}
			out = append(out, line)
		}
	}
	return out, nil
}

// lineOf is a container's address on a network with its names.
func lineOf(rec record.Container, networkID, alias string) string {
	for _, ep := range rec.Net.Endpoints {
		if ep.NetworkID != networkID || !ep.Up() {
			continue
		}
		ip := ep.IP4
		if !ip.IsValid() {
			ip = ep.IP6
		}
		names := alias
		for _, n := range []string{rec.Hostname, rec.Name} {
			if n != "" && !slices.Contains(strings.Fields(names), n) {
				names += " " + n
			}
		}
		return ip.Addr().String() + "\t" + names
	}
	return ""
}

// adopt takes up the networks of the containers of an earlier daemon, before
// anything is said of any of them.
func (e *Engine) adopt(stored []record.Container) {
	if e.rooms.Networks == nil {
		return
	}
	for _, rec := range stored {
		if slices.ContainsFunc(rec.Net.Endpoints, record.Endpoint.Up) {
			e.rooms.Networks.Adopt(whoIs(rec), rec.Net)
		}
	}
}

// settleNetworks ends the taking up: what a container that does not run still
// has was given to it by a daemon that was killed before its start.
func (e *Engine) settleNetworks() {
	if e.rooms.Networks == nil {
		return
	}
	for _, c := range e.table.all() {
		if c.record().State.Status != record.Running {
			e.detach(c)
		}
	}
	e.rooms.Networks.Settle()
}

// Networks lists the networks with the containers that run on them.
func (e *Engine) Networks(context.Context) ([]record.Network, error) {
	if e.rooms.Networks == nil {
		return nil, nil
	}
	return e.rooms.Networks.List(), nil
}

// Network finds one by name, id or unique prefix of one.
func (e *Engine) Network(_ context.Context, name string) (record.Network, error) {
	if e.rooms.Networks == nil {
		return record.Network{}, fault.Say(fault.NotFound, "network "+name+" not found")
	}
	return e.rooms.Networks.Find(name)
}

// CreateNetwork makes a network. Warnings say what of the host may keep its
// containers from being reached.
func (e *Engine) CreateNetwork(_ context.Context, a ask.CreateNetwork) (record.Network, []string, error) {
	n, err := e.rooms.Networks.Create(a)
	if err != nil {
		return n, nil, err
	}
	e.tellNetwork("create", n, nil)
	return n, network.Warnings(n), nil
}

// RemoveNetwork removes a network. Containers that are not running forget it
// when they are started: they fail to.
func (e *Engine) RemoveNetwork(_ context.Context, name string) error {
	n, err := e.rooms.Networks.Remove(name)
	if err != nil {
		return err
	}
	e.tellNetwork("destroy", n, nil)
	return nil
}

// PruneNetworks removes the networks that no container has, running or not, and
// that keep says are to go.
func (e *Engine) PruneNetworks(ctx context.Context, keep func(record.Network) bool) (record.Pruned, error) {
	used := map[string]bool{}
	for _, c := range e.table.all() {
		for _, ep := range c.record().Net.Endpoints {
			used[ep.NetworkID] = true
		}
	}
	var out record.Pruned
	for _, n := range e.rooms.Networks.List() {
		if used[n.ID] || network.Fixed(n) || keep != nil && keep(n) {
			continue
		}
		if err := e.RemoveNetwork(ctx, n.ID); err != nil {
			slog.Warn("cannot remove a network", "network", n.Name, "error", err)
			continue
		}
		out.Networks = append(out.Networks, n.Name)
	}
	return out, nil
}

// Connect puts a container on one more network, at once if it runs.
func (e *Engine) Connect(ctx context.Context, a ask.ConnectNetwork) error {
	n, err := e.Network(ctx, a.Network)
	if err != nil {
		return err
	}
	c, err := e.claim(ctx, a.Container)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	if err := mayConnect(rec, n); err != nil {
		return err
	}
	a.Endpoint.Network = n.ID
	eps, err := e.rooms.Networks.Resolve([]record.Endpoint{a.Endpoint})
	if err != nil {
		return err
	}
	ep := eps[0]
	if rec.State.Status == record.Running {
		if ep, err = e.connectNow(ctx, c, ep); err != nil {
			return err
		}
	}
	before := rec
	rec = c.change(func(r *record.Container) {
		r.Net.Endpoints = append(slices.Clone(r.Net.Endpoints), ep)
		if r.Network == string(ask.NetNone) {
			r.Network = n.Name
		}
	})
	e.resolveAnew(before, rec)
	if c.record().State.Status != record.Running {
		e.detach(c) // it has ended meanwhile, and gave back what it had then
	}
	if err := e.keep(c); err != nil {
		return err
	}
	e.tellEndpoints("connect", rec, []record.Endpoint{ep})
	return nil
}

func mayConnect(rec record.Container, n record.Network) error {
	if _, joined := donorOf(rec.Network); joined {
		return fault.Say(fault.Denied, "container sharing network namespace with another container or host cannot be connected to any other network")
	}
	if rec.Network == string(ask.NetHost) || n.Driver == "host" {
		return fault.Say(fault.Denied, "container cannot be connected to host network or disconnected from it: its network namespace is made when it starts")
	}
	if n.Driver == "null" {
		return fault.Say(fault.Denied, "container cannot be connected to multiple networks with one of the networks in none mode")
	}
	for _, ep := range rec.Net.Endpoints {
		if ep.NetworkID == n.ID {
			return fault.Say(fault.Denied, "endpoint with name "+rec.Name+" already exists in network "+n.Name)
		}
	}
	return nil
}

// passing notes, for the next daemon alone, that an endpoint comes or goes.
func (e *Engine) passing(c *container, ep record.Endpoint) error {
	ep.Passing = true
	rec := c.record()
	rec.Net.Endpoints = append(slices.DeleteFunc(slices.Clone(rec.Net.Endpoints), func(old record.Endpoint) bool { return old.NetworkID == ep.NetworkID }), ep)
	return e.writeRun(rec)
}

// passed takes that note back.
func (e *Engine) passed(c *container) {
	if err := e.writeRun(c.record()); err != nil {
		slog.Warn("a container may be taken off a network by the next daemon", "container", c.id, "error", err)
	}
}

// endPassing takes a running container off the networks that an earlier daemon was
// connecting it with or disconnecting it from when it was killed.
func (e *Engine) endPassing(c *container) record.Container {
	rec := c.record()
	isPassing := func(ep record.Endpoint) bool { return ep.Passing }
	if !slices.ContainsFunc(rec.Net.Endpoints, isPassing) {
		return rec
	}
	netns, err := e.rooms.Spaces.Of(rec.State.PID, rec.State.StartedAt, "net")
	if err != nil {
		slog.Warn("cannot take a container off a network", "container", c.id, "error", err)
		return rec
	}
	defer netns.Close()
	for _, ep := range rec.Net.Endpoints {
		if !ep.Passing {
			continue
		}
		if err := e.rooms.Networks.Unplug(netns, ep); err != nil {
			slog.Warn("cannot take a container off a network", "container", c.id, "network", ep.Network, "error", err)
			return rec
		}
		e.rooms.Networks.Detach(record.Net{Endpoints: []record.Endpoint{ep}})
	}
	before := rec
	rec = c.change(func(r *record.Container) { r.Net = left(r.Net, isPassing); r.Network = leftOn(r.Network, r.Net) })
	e.resolveAnew(before, rec)
	if err := e.keep(c); err != nil {
		slog.Warn("cannot write a container's record", "container", c.id, "error", err)
	}
	return rec
}

// left is what a container has without some of its endpoints.
func left(n record.Net, without func(record.Endpoint) bool) record.Net {
	n.Endpoints = slices.DeleteFunc(slices.Clone(n.Endpoints), without)
	if len(n.Endpoints) == 0 {
		n.Published = nil
	}
	return n
}

// leftOn is the network that a container is said to be on then.
func leftOn(was string, n record.Net) string {
	switch {
	case len(n.Endpoints) > 0:
		return n.Endpoints[0].Network
	case ask.Network(was).Named():
		return string(ask.NetNone)
	}
	return was
}

// connectNow connects a running container.
func (e *Engine) connectNow(ctx context.Context, c *container, ep record.Endpoint) (record.Endpoint, error) {
	rec := c.record()
	netns, err := e.rooms.Spaces.Of(rec.State.PID, rec.State.StartedAt, "net")
	if err != nil {
		return ep, err
	}
	defer netns.Close()
	ep, w, err := e.rooms.Networks.Connect(whoIs(rec), rec.Net, ep)
	if err != nil {
		return ep, err
	}
	if err = e.passing(c, ep); err == nil {
		failpoint.Hit("network-joining")
		ep, err = e.rooms.Networks.Plug(ctx, ep, w, network.Space{File: netns, PID: rec.State.PID})
	}
	if err != nil {
		e.rooms.Networks.Detach(record.Net{Endpoints: []record.Endpoint{ep}})
		e.passed(c)
		return ep, err
	}
	failpoint.Hit("network-joined")
	if err := e.rooms.Networks.NameIn(rec.ID, netns); err != nil {
		slog.Warn("a container cannot look up names", "container", rec.ID, "error", err)
	}
	return ep, nil
}

// Disconnect takes a container off a network, at once if it runs.
func (e *Engine) Disconnect(ctx context.Context, a ask.DisconnectNetwork) error {
	n, err := e.Network(ctx, a.Network)
	if err != nil {
		return err
	}
	c, err := e.claim(ctx, a.Container)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	i := slices.IndexFunc(rec.Net.Endpoints, func(ep record.Endpoint) bool { return ep.NetworkID == n.ID })
	if i < 0 {
		return fault.Say(fault.Denied, "container "+rec.ID+" is not connected to network "+n.Name)
	}
	ep := rec.Net.Endpoints[i]
	if ep.Up() {
		netns, err := e.rooms.Spaces.Of(rec.State.PID, rec.State.StartedAt, "net")
		if err != nil {
			return err
		}
		defer netns.Close()
		if err := e.passing(c, ep); err != nil {
			return err
		}
		failpoint.Hit("network-leaving")
		if err := e.rooms.Networks.Unplug(netns, ep); err != nil {
			e.passed(c)
			return err
		}
		failpoint.Hit("network-left")
		e.rooms.Networks.Detach(record.Net{Endpoints: []record.Endpoint{ep}})
	}
	before := rec
	rec = c.change(func(r *record.Container) {
		r.Net = left(r.Net, func(old record.Endpoint) bool { return old.NetworkID == n.ID })
		r.Network = leftOn(r.Network, r.Net)
	})
	e.resolveAnew(before, rec)
	if err := e.keep(c); err != nil {
		return err
	}
	e.tellEndpoints("disconnect", rec, []record.Endpoint{ep})
	return nil
}
