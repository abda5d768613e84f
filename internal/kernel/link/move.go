package link

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Move takes network device name of the caller's network namespace into netns,
// under newName (empty: the name it has; "eth%d": the first free number), gives
// it back the permanent addresses of global scope that the kernel takes from a
// device that moves, and sets it up (OCI runtime spec, Network Devices).
//
// A name that is taken in netns is Exists, a device that is not there or cannot
// move NotFound or Invalid; it then stays where it is. A failure after the move
// leaves it in netns, which owns it. CAP_NET_ADMIN over both namespaces is
// needed. It may be called from any goroutine.
func Move(netns *os.File, name, newName string) error {
	if newName == "" {
		newName = name
	}
	if err := validName(name); err != nil {
		return err
	}
	if err := validName(strings.TrimSuffix(newName, "%d")); err != nil {
		return err
	}
	here, err := open()
	if err != nil {
		return err
	}
	defer here.close()
	var there *conn
	if err := within(netns, func() (err error) { there, err = open(); return err }); err != nil {
		return err
	}
	defer there.close()
	index, addresses, err := here.find(name)
	if err != nil {
		return err
	}
	before, err := there.links()
	if err != nil {
		return err
	}
	for _, taken := range before {
		if taken == newName {
			return fault.New(fault.Exists, "move network device", name, "the container already has a "+newName, "give it another name")
		}
	}
	if err := here.move(index, int(netns.Fd()), newName); err != nil {
		return fault.Wrap(sysx.Class(err.(unix.Errno)), "move network device", name, err, "")
	}
	after, err := there.links()
	if err != nil {
		return err
	}
	for n := range after {
		if _, old := before[n]; !old {
			return there.raise(name, n, addresses)
		}
	}
	return fault.New(fault.Internal, "move network device", name, "it did not arrive", "")
}

// validName: what the kernel takes (dev_valid_name), and no pattern.
func validName(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/:% \t\n\v\f\r\x00") {
		return fault.New(fault.Invalid, "move network device", name, "not a name of a network device", "")
	}
	return nil
}

// within calls do on a thread that is in netns. A thread that cannot go back is
// never used again.
func within(netns *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			done <- fault.Wrap(fault.Invalid, "enter network namespace", netns.Name(), err, "")
			return
		}
		err = do()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// conn is a rtnetlink socket, of the network namespace it was opened in.
type conn struct {
	fd  int
	seq uint32
}

const opTalk = "talk to the kernel about"

func open() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	return &conn{fd: fd}, fault.Wrap(fault.Unsupported, opTalk, "network devices", err, "")
}

func (c *conn) close() { unix.Close(c.fd) }

// request sends a message and returns the payloads of what the kernel answers
// (netlink(7)). The error is the kernel's errno, always a unix.Errno.
func (c *conn) request(kind, flags uint16, payload []byte) ([][]byte, error) {
	c.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if err := unix.Sendto(c.fd, append(b, payload...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out [][]byte
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := syscall.ParseNetlinkMessage(slices.Clone(buf[:n]))
		if err != nil {
			return nil, unix.EBADMSG
		}
		for _, m := range list {
			switch {
			case m.Header.Seq != c.seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return out, nil
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
					return nil, unix.Errno(errno)
				}
				return out, nil
			default:
				out = append(out, m.Data)
			}
		}
	}
}

// dump asks for all objects of a kind.
func (c *conn) dump(kind uint16, payload []byte) ([][]byte, error) {
	out, err := c.request(kind, unix.NLM_F_DUMP, payload)
	return out, fault.Wrap(fault.Internal, opTalk, "network devices", err, "")
}

// links lists the devices by their index.
func (c *conn) links() (map[int32]string, error) {
	list, err := c.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, err
	}
	out := map[int32]string{}
	for _, m := range list {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		name := attributes(m[unix.SizeofIfInfomsg:])[unix.IFLA_IFNAME]
		out[int32(binary.NativeEndian.Uint32(m[4:]))] = strings.TrimRight(string(name), "\x00")
	}
	return out, nil
}

// find looks for a device and its addresses worth keeping, each a payload for
// RTM_NEWADDR.
func (c *conn) find(name string) (index int32, addresses [][]byte, err error) {
	links, err := c.links()
	if err != nil {
		return 0, nil, err
	}
	for n, have := range links {
		if have == name {
			index = n
		}
	}
	if index == 0 {
		return 0, nil, fault.New(fault.NotFound, "move network device", name, "there is no such device", "")
	}
	list, err := c.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return 0, nil, err
	}
	for _, m := range list {
		if len(m) < unix.SizeofIfAddrmsg || int32(binary.NativeEndian.Uint32(m[4:])) != index || m[3] != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		attrs := attributes(m[unix.SizeofIfAddrmsg:])
		flags := uint32(m[2])
		if f := attrs[unix.IFA_FLAGS]; len(f) == 4 {
			flags = binary.NativeEndian.Uint32(f)
		}
		if flags&unix.IFA_F_PERMANENT != 0 {
			addresses = append(addresses, address(m[:unix.SizeofIfAddrmsg], attrs, flags))
		}
	}
	return index, addresses, nil
}

// address makes the request for an address like one the kernel has told of.
func address(header []byte, attrs map[uint16][]byte, flags uint32) []byte {
	const keep = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_HOMEADDRESS
	b := slices.Clone(header)
	b[2] = 0
	for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST} {
		if v := attrs[kind]; v != nil {
			b = attribute(b, kind, v)
		}
	}
	return attribute(b, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags&keep))
}

// move changes namespace and name in one request: the device is down meanwhile,
// which a change of the name takes on older kernels.
func (c *conn) move(index int32, netns int, name string) error {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b = attribute(b, unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(netns)))
	b = attribute(b, unix.IFLA_IFNAME, append([]byte(name), 0))
	_, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, b)
	return err
}

// raise gives a device that has arrived its addresses and sets it up.
func (c *conn) raise(name string, index int32, addresses [][]byte) error {
	for _, a := range addresses {
		binary.NativeEndian.PutUint32(a[4:], uint32(index))
		if _, err := c.request(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, a); err != nil {
			return fault.Wrap(fault.Internal, "give back the addresses of", name, err, "")
		}
	}
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP)
	_, err := c.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, b)
	return fault.Wrap(fault.Internal, "set up network device", name, err, "")
}

// attribute appends a struct rtattr, padded to 4 bytes (rtnetlink(7)).
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// attributes reads a list of struct rtattr; what does not fit ends it.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED] = b[unix.SizeofRtAttr:n]
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}
