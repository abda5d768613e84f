package link

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Wiring is everything that connects a network namespace with the caller's: the
// requests, ready to be sent, but for what only the one who has the namespace
// knows. It is made in one process and carried out in another.
//
// Devices are made in the namespace by the request that makes them at all: to
// make one outside and move it takes the kernel 31 ms instead of 0.4.
type Wiring struct {
	Outside []byte   // requests for the caller's namespace
	Spaces  []uint32 // where in Outside a descriptor of the namespace belongs
	// Settings are files below /proc/sys/net as the namespace has them, each
	// "ipv6/conf/eth0/disable_ipv6=1". What this kernel has not is passed over.
	Settings []string
	Inside   []byte   // requests for the namespace
	Devices  []Device // which devices they are about
}

// Device says where in Inside the index of a device belongs.
type Device struct {
	Name string
	At   []uint32
}

// Port is one end of a pair of network devices, of which the other is in the
// namespace, or with a Kind another device that goes there.
type Port struct {
	Kind   string // "": veth; "macvlan", "ipvlan"
	Mode   uint32 // of a macvlan or ipvlan: MACVLAN_MODE_*, IPVLAN_MODE_*
	Host   string // name of the host's end of a veth
	Master int32  // index: of a veth the bridge of the host's end, else the parent
	// Isolated ports of a bridge reach the bridge and no other such port
	// (bridge(8)). A Hairpin port is sent what came from it.
	Isolated, Hairpin bool

	Name     string  // inside
	MAC      [6]byte // zero: the kernel's choice
	MTU      uint32  // 0: 1500
	Addrs    []Addr
	Routes   []Route
	Settings []string // as Wiring's
}

// IFLA_BRPORT_ISOLATED and others that x/sys does not name (linux/if_link.h).
const (
	brportMode      = 4
	brportIsolated  = 33
	vethInfoPeer    = 1
	macvlanInfoMode = 1
	ipvlanInfoMode  = 1
)

// Connect adds a port.
func (w *Wiring) Connect(p Port) {
	if p.Kind == "" {
		w.veth(p)
	} else {
		w.slave(p)
	}
	w.Settings = append(w.Settings, p.Settings...)
	w.configure(p)
}

// outside adds a request for the caller's namespace, of which the last four
// bytes of space, when there, are the namespace's descriptor.
func (w *Wiring) outside(kind, flags uint16, payload []byte, space int) {
	b := batch{w.Outside}
	if space >= 0 {
		w.Spaces = append(w.Spaces, uint32(len(b.b)+unix.SizeofNlMsghdr+space))
	}
	b.add(kind, flags, payload)
	w.Outside = b.b
}

func (w *Wiring) veth(p Port) {
	b := linkHeader(0, unix.IFF_UP, unix.IFF_UP)
	b = text(b, unix.IFLA_IFNAME, p.Host)
	b = p.mtu(b)
	b = number(b, unix.IFLA_MASTER, uint32(p.Master))
	peer := linkHeader(0, 0, 0)
	peer = text(peer, unix.IFLA_IFNAME, p.Name)
	peer = p.mtu(peer)
	if p.MAC != [6]byte{} {
		peer = attribute(peer, unix.IFLA_ADDRESS, p.MAC[:])
	}
	peer = number(peer, unix.IFLA_NET_NS_FD, 0)
	info := text(nil, unix.IFLA_INFO_KIND, "veth")
	info = nest(info, unix.IFLA_INFO_DATA, nest(nil, vethInfoPeer, peer))
	b = nest(b, unix.IFLA_LINKINFO, info)
	w.outside(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b, len(b)-4)
	if !p.Isolated && !p.Hairpin {
		return
	}
	b = text(linkHeader(0, 0, 0), unix.IFLA_IFNAME, p.Host)
	var port []byte
	if p.Isolated {
		port = attribute(port, brportIsolated, []byte{1})
	}
	if p.Hairpin {
		port = attribute(port, brportMode, []byte{1})
	}
	info = nest(text(nil, unix.IFLA_INFO_SLAVE_KIND, "bridge"), unix.IFLA_INFO_SLAVE_DATA, port)
	w.outside(unix.RTM_NEWLINK, 0, nest(b, unix.IFLA_LINKINFO, info), -1)
}

// slave is a device on top of one of the host's.
func (w *Wiring) slave(p Port) {
	b := linkHeader(0, 0, 0)
	b = text(b, unix.IFLA_IFNAME, p.Name)
	b = number(b, unix.IFLA_LINK, uint32(p.Master))
	if p.MTU != 0 {
		b = p.mtu(b)
	}
	info := text(nil, unix.IFLA_INFO_KIND, p.Kind)
	if p.Kind == "macvlan" {
		if p.MAC != [6]byte{} {
			b = attribute(b, unix.IFLA_ADDRESS, p.MAC[:])
		}
		info = nest(info, unix.IFLA_INFO_DATA, number(nil, macvlanInfoMode, p.Mode))
	} else {
		info = nest(info, unix.IFLA_INFO_DATA, attribute(nil, ipvlanInfoMode, binary.NativeEndian.AppendUint16(nil, uint16(p.Mode))))
	}
	b = nest(b, unix.IFLA_LINKINFO, info)
	b = number(b, unix.IFLA_NET_NS_FD, 0)
	w.outside(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b, len(b)-4)
}

func (p Port) mtu(b []byte) []byte {
	n := p.MTU
	if n == 0 {
		n = 1500
	}
	return number(b, unix.IFLA_MTU, n)
}

// configure adds what is done in the namespace.
func (w *Wiring) configure(p Port) {
	d := Device{Name: p.Name}
	b := batch{w.Inside}
	add := func(kind, flags uint16, payload []byte, index int) {
		if index >= 0 {
			d.At = append(d.At, uint32(len(b.b)+unix.SizeofNlMsghdr+index))
		}
		b.add(kind, flags, payload)
	}
	add(unix.RTM_NEWLINK, 0, text(linkHeader(0, unix.IFF_UP, unix.IFF_UP), unix.IFLA_IFNAME, p.Name), -1)
	for _, a := range p.Addrs {
		add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.message(0), 4)
	}
	for _, r := range p.Routes {
		m := r.message(0)
		add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, oifAt(m))
	}
	w.Inside = b.b
	w.Devices = append(w.Devices, d)
}

// oifAt finds the value of RTA_OIF in the request for a route.
func oifAt(m []byte) int {
	for at := unix.SizeofRtMsg; at+8 <= len(m); at += (int(binary.NativeEndian.Uint16(m[at:])) + 3) &^ 3 {
		if binary.NativeEndian.Uint16(m[at+2:]) == unix.RTA_OIF {
			return at + 4
		}
	}
	return -1
}

// Empty reports whether there is nothing to do.
func (w *Wiring) Empty() bool { return len(w.Outside)+len(w.Inside)+len(w.Settings) == 0 }

// ApplyTo is Apply for the network namespace of a process that is known not to
// be reaped meanwhile.
func (w *Wiring) ApplyTo(pid string) error {
	netns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return fault.Wrap(fault.Internal, "open", "network namespace", err, "")
	}
	defer netns.Close()
	return w.Apply(netns)
}

// Apply carries the wiring out. Devices that were made before a failure go
// with the namespace. CAP_NET_ADMIN over both namespaces is needed. It writes
// into the requests, and is for one namespace only.
func (w *Wiring) Apply(netns *os.File) error {
	for _, at := range w.Spaces {
		if int(at)+4 > len(w.Outside) {
			return fault.New(fault.Internal, opTalk, "network devices", "a request is cut off", "")
		}
		binary.NativeEndian.PutUint32(w.Outside[at:], uint32(netns.Fd()))
	}
	if len(w.Outside) > 0 {
		here, err := open()
		if err != nil {
			return err
		}
		err = here.send(w.Outside)
		here.close()
		if err != nil {
			return err
		}
	}
	return within(netns, w.inside)
}

// inside is what is done on a thread in the namespace. The files below
// /proc/sys/net are those of the namespace of whoever opens them (proc(5)).
func (w *Wiring) inside() error {
	there, err := open()
	if err != nil {
		return err
	}
	defer there.close()
	for _, s := range w.Settings {
		if err := Set(s); err != nil {
			return err
		}
	}
	for _, d := range w.Devices {
		index, err := there.index(d.Name)
		if err != nil {
			return err
		}
		for _, at := range d.At {
			if int(at)+4 > len(w.Inside) {
				return fault.New(fault.Internal, opTalk, "network devices", "a request is cut off", "")
			}
			binary.NativeEndian.PutUint32(w.Inside[at:], uint32(index))
		}
	}
	return there.send(w.Inside)
}

// index is the number of a device, by the ioctl that every socket has
// (netdevice(7)).
func (c *conn) index(name string) (int32, error) {
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		class := fault.Internal
		if err == unix.ENODEV {
			class = fault.NotFound
		}
		return 0, fault.Wrap(class, "find network device", name, err, "")
	}
	return int32(req.Uint32()), nil
}

// Set writes a setting of the calling thread's network namespace, "name=value",
// where name is a path below /proc/sys/net. One that this kernel does not have
// is passed over.
func Set(setting string) error {
	for i := range setting {
		if setting[i] != '=' {
			continue
		}
		name := "/proc/sys/net/" + setting[:i]
		fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Denied, "open", name, err, "")
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte(setting[i+1:]))
		return fault.Wrap(fault.Invalid, "write "+setting[i+1:]+" to", name, err, "")
	}
	return fault.New(fault.Internal, "write", setting, "it has no value", "")
}

// Get reads a setting of the calling thread's network namespace without its
// newline, empty when this kernel does not have it.
func Get(name string) string {
	b, err := os.ReadFile("/proc/sys/net/" + name)
	if err != nil {
		return ""
	}
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return string(b)
}
