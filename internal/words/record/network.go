package record

import (
	"net/netip"
	"strconv"
	"time"
)

// Network is a network that containers can be on.
type Network struct {
	Version    int
	Name       string
	ID         string // 64 hex digits
	Created    time.Time
	Driver     string // "bridge", "macvlan", "ipvlan", "cni", "null" or "host"
	Subnets    []Subnet
	IPv6       bool // it was asked for
	NoIPv4     bool
	Internal   bool
	Attachable bool
	Labels     map[string]string
	Options    map[string]string // of the driver, as they were given
	List       string            `json:",omitempty"` // of driver "cni": the configuration list, JSON
	Device     string            // the bridge, or the host's device that macvlan and ipvlan are on
	Members    []Member          `json:",omitempty"` // containers on it; not stored
}

// Subnet is a range of addresses of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Range   netip.Prefix          // that containers get addresses of; invalid: Prefix
	Gateway netip.Addr            // invalid: there is none
	Aux     map[string]netip.Addr // not given to containers
	Chosen  bool                  // by fief, and not by the user
}

// Member is a running container as its network sees it.
type Member struct {
	Container, Name string
	Endpoint        Endpoint
}

// Net is how a container is connected: what was asked, and while it runs what
// it has. It is kept whole in the container's record: addresses in use are noted
// nowhere else.
type Net struct {
	Endpoints  []Endpoint  `json:",omitempty"` // in the order of the devices; the first is the network mode's
	Ports      []Port      `json:",omitempty"` // to be published
	PublishAll bool        `json:",omitempty"`
	Exposed    []string    `json:",omitempty"` // "80/tcp", of the image as well
	Published  []Published `json:",omitempty"` // while it runs
	Hosts      []string    `json:",omitempty"` // "name:address" of --add-host
	Links      []string    `json:",omitempty"` // "container:alias" on the default network
	DNS        []string    `json:",omitempty"`
	DNSSearch  []string    `json:",omitempty"`
	DNSOptions []string    `json:",omitempty"`
}

// Endpoint is a container's place on a network.
type Endpoint struct {
	Network    string // its name
	NetworkID  string
	Aliases    []string          `json:",omitempty"`
	Links      []string          `json:",omitempty"` // "container:alias"
	DriverOpts map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`
	WantIP4    netip.Addr        // invalid: any
	WantIP6    netip.Addr
	WantMAC    string `json:",omitempty"`

	// What it has; ID is empty while the container does not run, and what else
	// there is then is what it had and gets again if it is free.
	ID       string       `json:",omitempty"` // 64 hex digits, new at each start
	Device   string       `json:",omitempty"` // inside: eth0 …
	Host     string       `json:",omitempty"` // the host's end
	IP4, IP6 netip.Prefix // address and length of the network
	GW4, GW6 netip.Addr   // invalid: none
	MAC      string       `json:",omitempty"`
	// What the driver says of names: as in Net, which goes before it.
	DNS, DNSSearch, DNSOptions []string `json:",omitempty"`
	// Passing says that a running container is just being connected or
	// disconnected: of such an endpoint any part may be there.
	Passing bool `json:",omitempty"`
}

// Up reports whether the endpoint is in use.
func (e Endpoint) Up() bool { return e.ID != "" }

// Port is a port to publish. HostIP invalid: every address of the host. A
// range of host ports means any one of it, 0 any port.
type Port struct {
	Proto         string // "tcp", "udp" or "sctp"
	Container     uint16
	HostIP        netip.Addr
	Host, HostEnd uint16 // HostEnd 0: Host alone
}

// Published is a port of the host that leads to one of the container.
type Published struct {
	Proto     string
	Container uint16
	HostIP    netip.Addr
	Host      uint16
}

// Key is the container's side in Docker's words, "80/tcp".
func (p Published) Key() string { return strconv.Itoa(int(p.Container)) + "/" + p.Proto }

// Key is the container's side in Docker's words, "80/tcp".
func (p Port) Key() string { return strconv.Itoa(int(p.Container)) + "/" + p.Proto }

// Pruned says what a prune of networks removed, by name.
type Pruned struct{ Networks []string }
