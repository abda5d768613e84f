package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/netin"
	"fief/internal/network/cni"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// list is the text of the list that a network to be is made of; empty for another
// driver. Its plugins were asked. It must not be called with r.mu held.
func (r *Room) list(a ask.CreateNetwork) (string, error) {
	if a.Driver != driverCNI {
		return "", nil
	}
	if r.cfg.CNI == nil {
		return "", fault.New(fault.Unsupported, "create network", a.Name, "this daemon runs no plugins of CNI", "")
	}
	for _, no := range []struct {
		given bool
		what  string
	}{
		{len(a.Subnets) > 0, "subnets, gateways and address ranges"}, {a.IPv6 || a.NoIPv4, "--ipv6 and --ipv4"}, {a.Internal, "--internal"},
	} {
		if no.given {
			return "", fault.New(fault.Invalid, "create network", a.Name, no.what+" are what a list of CNI says itself", "")
		}
	}
	for opt := range a.Options {
		if opt != optList {
			return "", fault.New(fault.Invalid, "create network", a.Name, "driver cni has no option "+opt, "there is "+optList+"=NAME or FILE")
		}
	}
	where := a.Options[optList]
	if where == "" {
		where = a.Name
	}
	l, err := r.cfg.CNI.Load(where)
	if err != nil {
		return "", err
	}
	return l.Text, r.cfg.CNI.Validate(context.Background(), l)
}

// discover brings the networks that are lists of CNI's directory up to date. One
// that a container is on stays as it was when its file has gone. Preconditions:
// r.mu.
func (r *Room) discover() {
	if r.cfg.CNI == nil {
		return
	}
	now := map[string]bool{}
	for _, l := range r.cfg.CNI.Found() {
		id := FixedID("cni " + l.Name)
		if other := r.named(l.Name); other != nil && other.rec.ID != id || l.Name == "default" {
			continue // fief's own go first
		}
		now[id] = true
		rec := record.Network{Version: record.Version, Name: l.Name, ID: id, Created: time.Unix(0, 0).UTC(), Driver: driverCNI, NoIPv4: true,
			List: l.Text, Options: map[string]string{optList: l.Path}}
		if i, err := os.Stat(l.Path); err == nil {
			rec.Created = i.ModTime().UTC()
		}
		if n := r.nets[id]; n != nil {
			n.rec = rec
		} else {
			r.add(rec)
		}
	}
	for id := range r.found {
		switch {
		case now[id]:
		case r.peopled(r.nets[id]):
			now[id] = true
		default:
			delete(r.nets, id)
		}
	}
	r.found = now
}

// members are the endpoints in use. Preconditions: r.mu.
func (r *Room) members() []*end {
	var out []*end
	for _, e := range r.ends {
		out = append(out, e)
	}
	return out
}

// Handover is what whoever makes a container's network namespace is given beside
// its wiring.
type Handover struct {
	// Port is where the sockets of a name server are to listen, which go into the
	// box (netin.Serve); 0: there is none.
	Port uint16
	Box  *os.File
	// Offer, unless nil, is by way of which the namespace is offered to those who
	// connect it before a program runs in it (netin.Offer).
	Offer *os.File

	room *Room
	ours *os.File
}

// Close closes what it has.
func (h *Handover) Close() {
	for _, f := range []*os.File{h.Box, h.Offer, h.ours} {
		if f != nil {
			f.Close()
		}
	}
}

// Plug has the plugins of lists connect the namespace that will be offered. Then
// is told what the container has from then on, before its program runs. The
// returned function waits until nothing more of it happens: nobody else may still
// offer then.
func (h *Handover) Plug(ctx context.Context, has record.Net, then func(record.Net) error) (wait func()) {
	if h.ours == nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		netns, pid, err := netin.Await(h.ours)
		if err != nil {
			return // nobody has offered one, and will say why
		}
		defer netns.Close()
		if has, err = h.room.plugAll(ctx, has, pid, netns); err == nil {
			err = then(has)
		}
		if err := netin.Answer(h.ours, err); err != nil {
			h.room.cfg.Log.Warn("nobody waits for a network any more", "error", err)
		}
	}()
	return func() {
		h.Offer.Close()
		<-done
	}
}

// pluggable reports whether plugins must still be run. Preconditions: r.mu.
func (e *end) pluggable() bool { return e.net.rec.Driver == driverCNI && !e.plugged }

// plugAll runs the plugins of the lists that a container is on and not connected
// to yet, in its network namespace, which is that of process pid, and returns its
// networks with what they gave. What was plugged before a failure is taken back by
// Detach.
func (r *Room) plugAll(ctx context.Context, has record.Net, pid int, netns *os.File) (record.Net, error) {
	var todo []*end
	r.mu.Lock()
	for _, ep := range has.Endpoints {
		if e := r.ends[ep.ID]; e != nil && e.pluggable() {
			todo = append(todo, e)
		}
	}
	r.mu.Unlock()
	has.Endpoints = slices.Clone(has.Endpoints)
	for _, e := range todo {
		ep, err := r.plug(ctx, e, pid, netns)
		if err != nil {
			return has, err
		}
		i := slices.IndexFunc(has.Endpoints, func(o record.Endpoint) bool { return o.ID == ep.ID })
		has.Endpoints[i] = ep
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range todo {
		if old := r.resolving[e.container]; old != nil {
			delete(r.resolving, e.container)
			r.note(e.container, has)
			if now := r.resolving[e.container]; now != nil {
				now.box = old.box
			}
		}
	}
	return has, nil
}

// plug runs the plugins of one list.
func (r *Room) plug(ctx context.Context, e *end, pid int, netns *os.File) (record.Endpoint, error) {
	l, err := cni.Parse([]byte(e.net.rec.List))
	if err != nil {
		return e.ep, err
	}
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return e.ep, fault.Wrap(fault.Exhausted, "keep", "a network namespace", err, "")
	}
	r.mu.Lock()
	w := e.want()
	e.plugged, e.netns = true, os.NewFile(uintptr(fd), "network namespace")
	r.mu.Unlock()
	got, err := r.cfg.CNI.Add(ctx, e.net.rec.Name, l, w, "/proc/"+strconv.Itoa(pid)+"/ns/net")
	if err != nil {
		return e.ep, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ends[e.ep.ID] != e { // it has ended meanwhile; what it had then was taken back
		r.parting.Go(func() { r.cfg.CNI.Delete(context.Background(), w, "") })
		return e.ep, fault.New(fault.Canceled, "connect to network", e.net.rec.Name, "the container has ended meanwhile", "")
	}
	ep := &e.ep
	ep.IP4, ep.IP6, ep.GW4, ep.GW6, ep.MAC = got.IP4, got.IP6, got.GW4, got.GW6, got.MAC
	ep.DNS, ep.DNSSearch, ep.DNSOptions = got.Servers, got.Search, got.Options
	for _, b := range e.ports {
		b.leadTo(e.listed(b.pub))
	}
	r.version.Add(1)
	return e.ep, nil
}

// want is what an endpoint asks of a list. Preconditions: r.mu.
func (e *end) want() cni.Want {
	w := cni.Want{ID: e.ep.ID, Container: e.container, Device: e.ep.Device, MAC: e.ep.WantMAC}
	for _, a := range []netip.Addr{e.ep.WantIP4, e.ep.WantIP6} {
		if a.IsValid() {
			w.IPs = append(w.IPs, a)
		}
	}
	for _, b := range e.ports {
		p := cni.Port{Host: b.pub.HostIP, HostPort: b.pub.Host, Container: b.pub.Container, Proto: b.pub.Proto}
		if p.Host.IsUnspecified() {
			p.Host = netip.Addr{} // of both families; the plugins are told once
		}
		if !slices.Contains(w.Ports, p) {
			w.Ports = append(w.Ports, p)
		}
	}
	return w
}

// listed is where a published port of a container leads, once it is known.
func (e *end) listed(pub record.Published) netip.AddrPort {
	ip, other := e.ep.IP4, e.ep.IP6
	if pub.HostIP.Is6() {
		ip, other = other, ip
	}
	if !ip.IsValid() {
		ip = other
	}
	if !ip.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Addr(), pub.Container)
}

// held tells the room the namespace of a container that an earlier daemon has
// plugged, so that its plugins have it when it ends. They are asked whether all is
// still there: nobody has looked after it meanwhile, and a host's firewall may have
// been made anew.
func (r *Room) held(container string, netns *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.ends {
		if e.container != container || !e.plugged || e.netns != nil {
			continue
		}
		if fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			e.netns = os.NewFile(uintptr(fd), "network namespace")
			r.check(e)
		}
	}
}

// check asks the plugins in the background, and says what is amiss: the container
// runs on, as to plug it anew would end its connections. Preconditions: r.mu.
func (r *Room) check(e *end) {
	if r.cfg.CNI == nil {
		return
	}
	fd, err := unix.FcntlInt(e.netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	netns := os.NewFile(uintptr(fd), "network namespace")
	w := cni.Want{ID: e.ep.ID, Container: e.container, Device: e.ep.Device}
	r.parting.Go(func() {
		defer netns.Close()
		select {
		case r.checks.slots <- struct{}{}:
			defer func() { <-r.checks.slots }()
		case <-r.checks.until.Done():
			return
		}
		if err := r.cfg.CNI.Check(r.checks.until, w, pathOf(netns)); err != nil && r.checks.until.Err() == nil {
			r.cfg.Log.Warn("a container is not connected any more as CNI plugins have done it; a restart of it mends that", "container", e.name, "error", err)
		}
	})
}

// checks bounds how many lists are asked at once, as each starts several programs
// and a daemon takes up all containers at once, and ends with the daemon.
type checks struct {
	slots chan struct{}
	until context.Context
	end   context.CancelFunc
}

func newChecks() checks {
	until, end := context.WithCancel(context.Background())
	return checks{make(chan struct{}, 2), until, end}
}

// pathOf is by what path plugins find a namespace that this process has open.
func pathOf(netns *os.File) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(netns.Fd()))
}

// delete has the plugins take back what they gave. It must not be called with r.mu
// held.
func (r *Room) delete(e *end) error {
	r.mu.Lock()
	netns := e.netns
	e.netns = nil
	r.mu.Unlock()
	path := ""
	if netns != nil { // it lives until the plugins have seen it
		defer netns.Close()
		path = pathOf(netns)
	}
	return r.cfg.CNI.Delete(context.Background(), cni.Want{ID: e.ep.ID, Container: e.container, Device: e.ep.Device}, path)
}

// unplug does so for endpoints that have ended, without being waited for: a
// plugin may take its time, and the next start of the container waits for it.
func (r *Room) unplug(ends []*end) {
	for _, e := range ends {
		if !e.plugged || r.cfg.CNI == nil {
			continue
		}
		r.parting.Go(func() {
			if err := r.delete(e); err != nil {
				r.cfg.Log.Warn("CNI plugins do not take a container off a network; it is tried again when it or a daemon starts", "container", e.name, "error", err)
			}
		})
	}
}

// part has the plugins take back what earlier daemons did not come to take back.
// Preconditions: r.mu.
func (r *Room) part() {
	if r.cfg.CNI == nil {
		return
	}
	for _, w := range r.cfg.CNI.Noted() {
		if r.ends[w.ID] != nil || r.kept[w.ID] {
			continue
		}
		r.parting.Go(func() {
			if err := r.cfg.CNI.Delete(context.Background(), w, ""); err != nil {
				r.cfg.Log.Warn("CNI plugins do not take back what they gave a container that is gone", "container", w.Container, "error", err)
			}
		})
	}
}

// partLimit bounds how long a daemon that ends waits for plugins; the next one
// sees to what they leave.
const partLimit = 10 * time.Second

func (r *Room) parted() {
	done := make(chan struct{})
	go func() {
		r.parting.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(partLimit):
		r.cfg.Log.Warn("CNI plugins are still at work", "error", errors.New("the next daemon sees to what they leave"))
	}
}

// toldNames completes what a container asks for about names by what its networks
// say.
func toldNames(n record.Net) record.Net {
	for _, e := range n.Endpoints {
		if len(n.DNS) == 0 && e.Up() {
			n.DNS = e.DNS
		}
		if len(n.DNSSearch) == 0 && e.Up() {
			n.DNSSearch = e.DNSSearch
		}
		if len(n.DNSOptions) == 0 && e.Up() {
			n.DNSOptions = e.DNSOptions
		}
	}
	return n
}
