// Package netin puts a service of the daemon's into another network namespace:
// sockets that listen on an address of its loopback, and a table of its own that
// leads the port by which the service is known to them. The port itself is left
// to the programs of the namespace. No library of nf_tables is used, so that a
// process that is paid for by every container can do it.
package netin

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Sockets are a datagram socket and a listening stream socket that are bound to
// the same port.
type Sockets struct{ UDP, TCP *os.File }

// Close closes both.
func (s Sockets) Close() {
	for _, f := range []*os.File{s.UDP, s.TCP} {
		if f != nil {
			f.Close()
		}
	}
}

// backlog bounds the connections that nobody has accepted yet.
const backlog = 64

const opListen = "listen in network namespace"

// Listen opens the sockets in a network namespace, of whose loopback at is an
// address, and sets the loopback up: without it there is no such address. (With
// IP_FREEBIND one could be bound even so, but where a namespace has no table of
// local addresses yet the kernel forgets it again, inet_bind, and answers would
// come from another.) A port that is taken is Exists, an address that is no IPv4
// address Invalid. The sockets keep the namespace alive.
func Listen(netns *os.File, at netip.AddrPort) (s Sockets, err error) {
	if !at.Addr().Is4() {
		return s, fault.New(fault.Invalid, opListen, at.String(), "only IPv4 is led", "")
	}
	err = link.Within(netns, func() error {
		if err := raise(); err != nil {
			return err
		}
		if s.UDP, err = bound(unix.SOCK_DGRAM, at); err != nil {
			return err
		}
		s.TCP, err = bound(unix.SOCK_STREAM, at)
		return err
	})
	if err != nil {
		s.Close()
		return Sockets{}, err
	}
	return s, nil
}

// raise sets the loopback up (netdevice(7)).
func raise() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return sysx.Fault("open", "a socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return sysx.Fault("name", "the loopback", err)
	}
	if err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err == nil && req.Uint16()&unix.IFF_UP == 0 {
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}
	return sysx.Fault("set up", "the loopback", err)
}

func bound(kind int, at netip.AddrPort) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, failed(at, err)
	}
	f := os.NewFile(uintptr(fd), at.String())
	if kind == unix.SOCK_STREAM {
		// Connections of an earlier daemon may still be ending (socket(7)).
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		f.Close()
		return nil, failed(at, err)
	}
	return f, nil
}

func failed(at netip.AddrPort, err error) error {
	class := fault.Internal
	if errno, ok := err.(unix.Errno); ok {
		if class = sysx.Class(errno); errno == unix.EADDRINUSE {
			class = fault.Exists
		}
	}
	return fault.Wrap(class, opListen, at.String(), err, "")
}
