package link

import (
	"encoding/binary"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Bridge is a bridge device of the caller's network namespace.
type Bridge struct {
	Name     string
	MAC      [6]byte
	MTU      uint32 // 0: 1500
	Addrs    []Addr
	Settings []string // as Wiring's, written before the device is up
}

// Make makes the bridge, or makes an existing one what it should be, and
// returns its index. Another device of the name is Exists, also a bridge with
// another hardware address.
func (b Bridge) Make() (int32, error) {
	if err := validName(b.Name); err != nil {
		return 0, fault.New(fault.Invalid, "make bridge", b.Name, "not a name of a network device", "a name has 1 to 15 characters, without / and :")
	}
	c, err := open()
	if err != nil {
		return 0, err
	}
	defer c.close()
	if err := b.device(c); err != nil {
		return 0, err
	}
	index, err := c.index(b.Name)
	if err != nil {
		return 0, err
	}
	for _, s := range b.Settings {
		if err := Set(s); err != nil {
			return 0, err
		}
	}
	var up batch
	for _, a := range b.Addrs {
		up.add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.message(index))
	}
	up.add(unix.RTM_NEWLINK, 0, linkHeader(index, unix.IFF_UP, unix.IFF_UP))
	return index, c.send(up.b)
}

// device makes the device unless there is such a bridge.
func (b Bridge) device(c *conn) error {
	all, err := c.devices()
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.Name != b.Name {
			continue
		}
		if d.Kind != "bridge" || d.MAC != b.MAC {
			return fault.New(fault.Exists, "make bridge", b.Name, "there is another network device of that name", "choose another with -o com.docker.network.bridge.name=NAME")
		}
		return nil
	}
	m := text(linkHeader(0, 0, 0), unix.IFLA_IFNAME, b.Name)
	m = Port{MTU: b.MTU}.mtu(m)
	m = attribute(m, unix.IFLA_ADDRESS, b.MAC[:]) // else it changes with its ports
	m = nest(m, unix.IFLA_LINKINFO, text(nil, unix.IFLA_INFO_KIND, "bridge"))
	var one batch
	one.add(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m)
	return c.send(one.b)
}

// Delete deletes a device of the caller's network namespace; NotFound when
// there is none. It takes the kernel 15 to 40 ms.
func Delete(name string) error { return deleteIn(nil, name) }

// DeleteIn is Delete in another network namespace.
func DeleteIn(netns *os.File, name string) error { return deleteIn(netns, name) }

func deleteIn(netns *os.File, name string) error {
	do := func() error {
		c, err := open()
		if err != nil {
			return err
		}
		defer c.close()
		index, err := c.index(name)
		if err != nil {
			return err
		}
		var one batch
		one.add(unix.RTM_DELLINK, 0, linkHeader(index, 0, 0))
		return c.send(one.b)
	}
	if netns == nil {
		return do()
	}
	return within(netns, do)
}

// Found is a network device that there is. Master is the index of the bridge it
// is a port of, 0 for none.
type Found struct {
	Index, Master int32
	Name, Kind    string
	MAC           [6]byte // zero: it has none of that length
}

// Index is the number of a device of the caller's network namespace; NotFound
// when there is none.
func Index(name string) (int32, error) {
	c, err := open()
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.index(name)
}

// Devices lists the devices of the caller's network namespace.
func Devices() ([]Found, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.devices()
}

func (c *conn) devices() ([]Found, error) {
	list, err := c.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, err
	}
	var out []Found
	for _, m := range list {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		attrs := attributes(m[unix.SizeofIfInfomsg:])
		d := Found{Index: int32(binary.NativeEndian.Uint32(m[4:])), Name: trim(attrs[unix.IFLA_IFNAME])}
		d.Kind = trim(attributes(attrs[unix.IFLA_LINKINFO])[unix.IFLA_INFO_KIND])
		if mac := attrs[unix.IFLA_ADDRESS]; len(mac) == len(d.MAC) {
			d.MAC = [6]byte(mac)
		}
		if v := attrs[unix.IFLA_MASTER]; len(v) == 4 {
			d.Master = int32(binary.NativeEndian.Uint32(v))
		}
		out = append(out, d)
	}
	return out, nil
}

func trim(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// Destinations lists what the routes of the caller's network namespace lead to,
// addresses of its own among them, default routes left out; multicast and local
// broadcast are none.
func Destinations() ([]Addr, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer c.close()
	list, err := c.dump(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg))
	if err != nil {
		return nil, err
	}
	var out []Addr
	for _, m := range list {
		if len(m) < unix.SizeofRtMsg || m[1] == 0 || m[7] != unix.RTN_UNICAST && m[7] != unix.RTN_LOCAL {
			continue
		}
		if dst := attributes(m[unix.SizeofRtMsg:])[unix.RTA_DST]; len(dst) == 4 || len(dst) == 16 {
			out = append(out, Addr{IP: dst, Bits: m[1]})
		}
	}
	return out, nil
}

// HasDefault reports whether a route of the address family, 4 or 6, leads
// everywhere.
func HasDefault(family int) bool {
	c, err := open()
	if err != nil {
		return false
	}
	defer c.close()
	head := make([]byte, unix.SizeofRtMsg)
	head[0] = unix.AF_INET
	if family == 6 {
		head[0] = unix.AF_INET6
	}
	list, _ := c.dump(unix.RTM_GETROUTE, head)
	for _, m := range list {
		if len(m) >= unix.SizeofRtMsg && m[1] == 0 && m[7] == unix.RTN_UNICAST {
			return true
		}
	}
	return false
}
