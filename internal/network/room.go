package network

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fief/internal/kernel/nft"
	"fief/internal/network/cni"
	"fief/internal/network/resolver"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The drivers.
const (
	driverBridge  = "bridge"
	driverMacvlan = "macvlan"
	driverIPvlan  = "ipvlan"
	driverCNI     = "cni"
	driverNull    = "null"
	driverHost    = "host"
)

// DefaultName is the network of containers for which none is named. Its bridge
// is fief0, or fief1 and so on where that is another daemon's.
const (
	DefaultName    = "bridge"
	defaultDevices = "fief"
)

// Config is what a room is made of.
type Config struct {
	Networks documents     // records of networks
	Ranges   []Range       // of subnets that are not named; empty: DefaultRanges
	Default  record.Subnet // of the default network; without a prefix it is chosen
	Turns    string        // a file that all daemons of the host have; empty: there is no other
	Seed     string        // of addresses that are to differ between hosts: the data root's id
	CNI      *cni.Driver   // nil: there are no networks of driver cni
	Log      *slog.Logger
}

// documents is a bucket of state.db.
type documents interface {
	Put(key string, v any) error
	Delete(key string) error
	Each(func(key string, raw []byte) error) error
}

// Room is the networks of a daemon. Its methods may be called from any
// goroutine. Nothing of a network is made in the kernel before a container is
// connected or, but for the default one, before it is created.
type Room struct {
	cfg Config

	mu     sync.Mutex          // may be held while the kernel is asked
	nets   map[string]*network // by id
	ends   map[string]*end     // by endpoint id
	ports  portTable
	tabled bool          // the table of rules has been made
	stop   chan struct{} // closed by Close; nil until the table is watched
	closed bool

	names     *resolver.Service
	resolv    followed
	version   atomic.Uint64         // of what may be known by name
	resolving map[string]*resolving // by container
	found     map[string]bool       // networks that are lists of CNI's directory, by id
	kept      map[string]bool       // endpoints of containers that run, whose network is gone
	parting   sync.WaitGroup        // plugins that take back what they gave, or are asked for it
	checks    checks
}

// network is a network with what is alive about it.
type network struct {
	rec   record.Network
	pools []*pool
	index int32 // of the bridge; 0: not made by this daemon yet
}

// end is an endpoint in use.
type end struct {
	container, name string
	hostname        string
	net             *network
	ep              record.Endpoint
	ports           []*binding // published by way of it
	direct          []nft.Direct
	plugged         bool     // by the plugins of a list
	netns           *os.File // of one that is or will be plugged, once it is known
}

// Open makes the room over the records of networks.
func Open(cfg Config) (*Room, error) {
	if len(cfg.Ranges) == 0 {
		cfg.Ranges = DefaultRanges()
	}
	r := &Room{cfg: cfg, nets: map[string]*network{}, ends: map[string]*end{}, resolving: map[string]*resolving{}, found: map[string]bool{}, kept: map[string]bool{}, checks: newChecks()}
	r.names = resolver.New(r, cfg.Log)
	r.names.Before = r.follow
	err := cfg.Networks.Each(func(id string, raw []byte) error {
		var rec record.Network
		if err := json.Unmarshal(raw, &rec); err != nil {
			return fault.Wrap(fault.Corrupt, "read network", id, err, "")
		}
		r.add(rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, fixed := range []record.Network{{Name: "none", Driver: driverNull}, {Name: "host", Driver: driverHost}, {Name: DefaultName, Driver: driverBridge, Device: defaultDevices + "0"}} {
		if r.named(fixed.Name) == nil {
			fixed.Version, fixed.ID, fixed.Created = record.Version, FixedID(fixed.Name), time.Unix(0, 0).UTC()
			r.add(fixed)
		}
	}
	r.discover()
	return r, nil
}

// FixedID is the id of a network that is always there.
func FixedID(name string) string {
	sum := sha256.Sum256([]byte("fief network " + name))
	return hex.EncodeToString(sum[:])
}

func (r *Room) add(rec record.Network) *network {
	n := &network{rec: rec}
	n.open()
	r.nets[rec.ID] = n
	return n
}

func (n *network) open() {
	n.pools = nil
	for _, s := range n.rec.Subnets {
		n.pools = append(n.pools, newPool(s))
	}
}

func (r *Room) named(name string) *network {
	for _, n := range r.nets {
		if n.rec.Name == name {
			return n
		}
	}
	return nil
}

// find looks a network up by name, id or unique prefix of one.
func (r *Room) find(name string) (*network, error) {
	n := r.named(name)
	if n == nil || r.found[n.rec.ID] {
		r.discover()
		n = r.named(name)
	}
	if n != nil {
		return n, nil
	}
	var found *network
	for id, n := range r.nets {
		if name == "" || !strings.HasPrefix(id, name) {
			continue
		}
		if found != nil {
			return nil, fault.Say(fault.Invalid, "network "+name+" is ambiguous (2 matches found based on ID prefix)")
		}
		found = n
	}
	if found == nil {
		return nil, fault.Say(fault.NotFound, "network "+name+" not found")
	}
	return found, nil
}

// Find returns a network with the containers that run on it. The default one has
// its subnet from then on: scripts ask for its gateway before they start anything.
func (r *Room) Find(name string) (record.Network, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.find(name)
	if err != nil {
		return record.Network{}, err
	}
	if n.rec.Name == DefaultName && n.index == 0 {
		done := r.turn()
		err = r.prepareDefault(n)
		done()
	}
	if err != nil { // there is the network to be shown, if nothing of it
		r.cfg.Log.Warn("the default network has no subnet yet", "error", err)
	}
	return r.shown(n), nil
}

// List returns all networks by name, as Find does each.
func (r *Room) List() []record.Network {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.discover()
	var out []record.Network
	for _, n := range r.nets {
		out = append(out, r.shown(n))
	}
	slices.SortFunc(out, func(a, b record.Network) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return out
}

func (r *Room) shown(n *network) record.Network {
	rec := n.rec
	for _, e := range r.ends {
		if e.net == n {
			rec.Members = append(rec.Members, record.Member{Container: e.container, Name: e.name, Endpoint: e.ep})
		}
	}
	slices.SortFunc(rec.Members, func(a, b record.Member) int { return cmp.Compare(a.Container, b.Container) })
	return rec
}

// Neighbours are the endpoints that the containers of a network that a container
// is on have there, its own among them: what its programs may know by name. It
// is what a name server needs; a container's names are its name, its aliases and
// the first twelve digits of its id.
func (r *Room) Neighbours(container string) []record.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	on := map[*network]bool{}
	for _, e := range r.ends {
		on[e.net] = on[e.net] || e.container == container
	}
	var out []record.Member
	for _, e := range r.ends {
		if on[e.net] {
			out = append(out, record.Member{Container: e.container, Name: e.name, Endpoint: e.ep})
		}
	}
	slices.SortFunc(out, func(a, b record.Member) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Endpoint.Device, b.Endpoint.Device))
	})
	return out
}

// Rename notes a container's new name.
func (r *Room) Rename(container, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.ends {
		if e.container == container {
			e.name = name
			r.version.Add(1)
		}
	}
}
