package network

import (
	"cmp"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/netin"
	"fief/internal/network/resolver"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// resolving is what the resolver of a container asks others by, and until it
// answers the box in which its sockets arrive.
type resolving struct {
	dns, options []string // of the container, or of a network of its; the host's where there are none
	servers      []resolver.Server
	qualified    bool
	box          *os.File
}

// dnsPort is where servers are asked.
const dnsPort = 53

// Resolves reports whether a container's names are looked up by fief: it is on a
// network that is not the default one, which has no names, as in Docker.
func Resolves(n record.Net) bool {
	return slices.ContainsFunc(n.Endpoints, func(e record.Endpoint) bool { return e.NetworkID != "" && e.NetworkID != FixedID(DefaultName) })
}

// note remembers who a container wants to be asked, once it has a resolver: on
// the default network nothing need be read. Preconditions: r.mu.
func (r *Room) note(container string, n record.Net) {
	if r.resolving[container] != nil || !Resolves(n) {
		return
	}
	if len(r.resolving) == 0 {
		r.resolv.seen = stampOf(hostConf) // before it is read
	}
	n = toldNames(n)
	to := &resolving{dns: n.DNS, options: n.DNSOptions}
	to.read(r.hostConf())
	r.resolving[container] = to
}

// read takes from the host's configuration what the container does not say itself.
func (to *resolving) read(host conf) {
	servers, options := to.dns, to.options
	if len(servers) == 0 {
		servers = host.servers
	}
	if len(options) == 0 {
		options = host.options
	}
	to.servers = nil
	for _, s := range servers {
		if a, err := netip.ParseAddr(s); err == nil {
			to.servers = append(to.servers, resolver.Server{Addr: netip.AddrPortFrom(a, dnsPort), Host: len(to.dns) == 0})
		}
	}
	dots, set := ndots(options)
	to.qualified = set && dots > 0
}

const hostConf = "/etc/resolv.conf"

func (r *Room) hostConf() conf {
	b, err := readBounded(hostConf)
	if err != nil && !os.IsNotExist(err) {
		r.cfg.Log.Warn("cannot read the host's name servers", "error", err)
	}
	return parse(b)
}

// followed is what is known of the host's resolv.conf.
type followed struct {
	next atomic.Int64 // Unix nanoseconds: it is not looked at before
	seen stamp        // with r.mu: when it was read
}

// stamp tells one content of a file from another: a file is written anew, or
// another is put in its place.
type stamp struct {
	inode, size uint64
	changed     unix.Timespec
}

func stampOf(path string) stamp {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return stamp{}
	}
	return stamp{s.Ino, uint64(s.Size), s.Ctim}
}

// followEvery is how often the host's resolv.conf is looked at, while others are
// asked at all: nothing is done by a daemon that nobody asks.
const followEvery = 100 * time.Millisecond

// follow reads the host's resolv.conf again when it has changed, for the containers
// that run as well.
func (r *Room) follow() {
	now := time.Now().UnixNano()
	next := r.resolv.next.Load()
	if now < next || !r.resolv.next.CompareAndSwap(next, now+int64(followEvery)) {
		return
	}
	is := stampOf(hostConf)
	r.mu.Lock()
	changed := map[string]resolver.Upstream{}
	if is != r.resolv.seen {
		r.resolv.seen = is
		host := r.hostConf()
		for container, to := range r.resolving {
			to.read(host)
			changed[container], _ = r.upstream(container)
		}
	}
	r.mu.Unlock()
	for container, up := range changed {
		r.names.Update(container, up)
	}
}

// ndots is the option of that name (resolv.conf(5)), the last one.
func ndots(options []string) (n int, set bool) {
	for _, o := range options {
		if v, ok := strings.CutPrefix(o, "ndots:"); ok {
			if d, err := strconv.Atoi(v); err == nil && d >= 0 {
				n, set = d, true
			}
		}
	}
	return n, set
}

// upstream is who is asked for a container now, and whether it has a resolver at
// all. Preconditions: r.mu.
func (r *Room) upstream(container string) (up resolver.Upstream, needed bool) {
	to := r.resolving[container]
	if to == nil {
		return up, false
	}
	up = resolver.Upstream{Servers: to.servers, Qualified: to.qualified, Closed: true}
	for _, e := range r.ends {
		if e.container == container {
			needed = needed || e.net.rec.Name != DefaultName
			up.Closed = up.Closed && e.net.rec.Internal
		}
	}
	return up, needed
}

// Name prepares the resolver of a container that was attached: whoever has its
// network namespace first opens the sockets on the port and puts them into the
// box (netin.Serve). Port 0: it has none.
func (r *Room) Name(container string) (*Handover, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &Handover{room: r}
	if slices.ContainsFunc(r.members(), func(e *end) bool { return e.container == container && e.pluggable() }) {
		var err error
		if h.ours, h.Offer, err = netin.Box(); err != nil {
			return nil, err
		}
	}
	if _, needed := r.upstream(container); !needed {
		return h, nil
	}
	ours, theirs, err := netin.Box()
	if err != nil {
		h.Close()
		return nil, err
	}
	to := r.resolving[container]
	if to.box != nil {
		to.box.Close()
	}
	to.box = ours
	h.Port, h.Box = resolver.Port(container), theirs
	return h, nil
}

// Named begins to answer a container by the sockets that are in its box.
func (r *Room) Named(container string) error {
	r.mu.Lock()
	up, needed := r.upstream(container)
	var box *os.File
	if to := r.resolving[container]; to != nil {
		box, to.box = to.box, nil
	}
	r.mu.Unlock()
	if box == nil {
		return nil
	}
	defer box.Close()
	netns, sockets, err := netin.Take(box)
	if err != nil {
		return err
	}
	defer netns.Close()
	if !needed { // it has ended already
		sockets.Close()
		return nil
	}
	return r.answer(container, netns, sockets, up)
}

// NameIn is Named for a container that runs, in whose namespace the sockets are
// opened now, unless it has a resolver, which is then told who to ask.
func (r *Room) NameIn(container string, netns *os.File) error {
	r.held(container, netns)
	r.mu.Lock()
	up, needed := r.upstream(container)
	r.mu.Unlock()
	if !needed || r.names.Update(container, up) {
		return nil
	}
	sockets, err := resolver.Prepare(netns, container)
	if err != nil {
		return err
	}
	return r.answer(container, netns, sockets, up)
}

// answer opens a resolver, unless its container has ended meanwhile: nobody would
// close it.
func (r *Room) answer(container string, netns *os.File, sockets netin.Sockets, up resolver.Upstream) error {
	if err := r.names.Open(container, netns, sockets, up); err != nil {
		return err
	}
	r.mu.Lock()
	_, needed := r.upstream(container)
	r.mu.Unlock()
	if !needed {
		r.names.Close(container)
	}
	return nil
}

// unname ends the resolvers of containers that have left all networks with names;
// those of others are told where they can still ask. It waits for questions that
// are being answered, and these may wait for r.mu.
func (r *Room) unname(left []*end) {
	for _, e := range left {
		r.mu.Lock()
		up, needed := r.upstream(e.container)
		if to := r.resolving[e.container]; to != nil && !needed {
			if to.box != nil {
				to.box.Close()
			}
			delete(r.resolving, e.container)
		}
		r.mu.Unlock()
		if needed {
			r.names.Update(e.container, up)
		} else {
			r.names.Close(e.container)
		}
	}
}

// Version is that of resolver.Directory.
func (r *Room) Version() uint64 { return r.version.Load() }

// Hosts is that of resolver.Directory: first the network that leads out, as in
// Docker. What is linked is known by its alias to the one that links it only.
func (r *Room) Hosts(container string) []resolver.Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	var own []*end
	on := map[*network][]*end{}
	for _, e := range r.ends {
		on[e.net] = append(on[e.net], e)
		if e.container == container && e.net.rec.Name != DefaultName {
			own = append(own, e)
		}
	}
	slices.SortFunc(own, before)
	var out []resolver.Host
	for _, mine := range own {
		for _, e := range on[mine.net] {
			out = append(out, e.host(e.names()...))
		}
		for _, l := range mine.ep.Links {
			name, alias, ok := strings.Cut(l, ":")
			for _, e := range on[mine.net] {
				if ok && (e.name == name || len(name) > 0 && strings.HasPrefix(e.container, name)) && !slices.Contains(e.names(), alias) {
					out = append(out, e.host(alias)) // compose links by names that there are, too
				}
			}
		}
	}
	return out
}

// names are what everybody on its network knows an endpoint by.
func (e *end) names() []string {
	return slices.Concat([]string{e.name}, e.ep.Aliases, []string{ref.Short(e.container), e.hostname})
}

func (e *end) host(names ...string) resolver.Host {
	h := resolver.Host{Network: e.net.rec.Name, Names: names}
	for _, p := range []netip.Prefix{e.ep.IP4, e.ep.IP6} {
		if p.IsValid() {
			h.Addrs = append(h.Addrs, p.Addr())
		}
	}
	return h
}

// before orders a container's endpoints by where its names are looked for.
func before(a, b *end) int {
	return cmp.Or(
		cmp.Compare(order(a.net.rec.Internal), order(b.net.rec.Internal)),
		cmp.Compare(b.ep.GwPriority, a.ep.GwPriority),
		cmp.Compare(a.net.rec.Name, b.net.rec.Name),
	)
}

func order(last bool) int {
	if last {
		return 1
	}
	return 0
}

// resolvNamed is the resolv.conf of a container whose names fief looks up. A name
// of one label is asked for as it is first: it is a container's (ndots:0).
func resolvNamed(host []byte, n record.Net) []byte {
	r := parse(host)
	n = toldNames(n)
	r.servers = []string{resolver.Address.String()}
	if len(n.DNSSearch) > 0 {
		r.search = n.DNSSearch
	}
	if len(n.DNSOptions) > 0 {
		r.options = n.DNSOptions
	}
	r.options = slices.Clone(r.options)
	if _, set := ndots(r.options); !set {
		r.options = append(r.options, "ndots:0")
	}
	return r.text()
}
