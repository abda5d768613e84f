// Package listen keeps ports of the host from its programs by sockets, takes the
// connections that come to them and passes their datagrams on: any number of ports
// with one goroutine.
//
// Package net is not used for the sockets. For each it makes an MPTCP socket,
// asks for its address, and needs a goroutine that waits in Accept: a hundred
// published ports cost a daemon 35 ms of processor by it, and 3 ms by this.
package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Taker is given a connection that came to a port, to close it. Four says that
// it came by IPv4. It is called on a goroutine of its own.
type Taker func(c net.Conn, four bool)

// Keeper is the ports that are kept. The zero Keeper keeps none. Its methods may
// be called from any goroutine.
type Keeper struct {
	Idle  time.Duration // after which a flow of datagrams is forgotten; 0: 90 s
	Flows int           // of datagrams, at most; 0: 4096

	mu     sync.Mutex    // held while something is accepted or passed on, which does not wait
	wait   *os.File      // the epoll(7) instance of the sockets; nil until there is one
	byKey  map[int32]any // *Port or *flow
	next   int32
	closed bool
	datagrams
}

// Port is a port that is kept until it is closed.
type Port struct {
	keeper *Keeper
	fd     int
	key    int32 // 0: what comes is left where it is
	take   Taker // of a port of TCP
	lead   Lead  // of one of UDP
}

// TCP keeps a port of TCP at an address: [::] with both is 0.0.0.0 as well, in one
// socket. Errors are those of socket(2), bind(2) and listen(2), of type
// unix.Errno: EADDRINUSE when a program of the host has the port.
func (k *Keeper) TCP(at netip.AddrPort, both bool, take Taker) (*Port, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.begin(); err != nil {
		return nil, err
	}
	fd, err := bound(unix.SOCK_STREAM, at, both)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		return nil, err
	}
	p := &Port{keeper: k, fd: fd, key: k.key(), take: take}
	if err := k.control(unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: p.key}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	k.byKey[p.key] = p
	return p, nil
}

// backlog is bounded by net.core.somaxconn (listen(2)).
const backlog = 65535

// Close gives the port back. Connections that it has led to go on; flows of
// datagrams end.
func (p *Port) Close() {
	p.keeper.mu.Lock()
	defer p.keeper.mu.Unlock()
	if p.fd < 0 {
		return
	}
	delete(p.keeper.byKey, p.key)
	if p.lead != nil {
		p.keeper.endAll(p)
	}
	unix.Close(p.fd) // which ends the waiting for it, epoll(7)
	p.fd = -1
}

// Close ends the waiting for connections and datagrams. Ports stay kept until each
// is closed.
func (k *Keeper) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.endAll(nil)
	if k.wait != nil {
		k.wait.Close()
	}
}

// key is a number that no open port has. Preconditions: k.mu.
func (k *Keeper) key() int32 {
	for {
		k.next++
		if k.next > 0 && k.byKey[k.next] == nil {
			return k.next
		}
		if k.next < 0 {
			k.next = 0
		}
	}
}

// begin makes what waits for connections. Preconditions: k.mu.
func (k *Keeper) begin() error {
	if k.closed {
		return unix.EBADF
	}
	if k.wait != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or package os has a thread wait for it
		unix.Close(fd)
		return err
	}
	k.wait, k.byKey = os.NewFile(uintptr(fd), "epoll"), map[int32]any{}
	conn, err := k.wait.SyscallConn()
	if err != nil {
		return err
	}
	go k.serve(conn)
	return nil
}

func (k *Keeper) control(op, fd int, e *unix.EpollEvent) error {
	conn, err := k.wait.SyscallConn()
	if err != nil {
		return err
	}
	if failed := conn.Control(func(wait uintptr) { err = unix.EpollCtl(int(wait), op, fd, e) }); failed != nil {
		return failed
	}
	return err
}

// serve accepts until the keeper is closed. The descriptor that says which ports
// have connections is itself waited for by the runtime's poller.
func (k *Keeper) serve(conn syscall.RawConn) {
	events := make([]unix.EpollEvent, 32)
	for {
		n := 0
		err := conn.Read(func(wait uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(wait), events, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		if err != nil { // the keeper is closed
			return
		}
		for _, e := range events[:max(n, 0)] {
			k.ready(e.Fd)
		}
	}
}

// ready does what there is to do with a socket. The lock keeps its descriptor from
// being closed and given to something else meanwhile.
func (k *Keeper) ready(key int32) {
	k.mu.Lock()
	take := func() {}
	switch w := k.byKey[key].(type) {
	case *Port:
		if w.lead != nil {
			k.receive(w)
		} else {
			take = accept(w)
		}
	case *flow:
		k.answer(w)
	}
	k.mu.Unlock()
	take()
}

// accept takes one connection of a port, and returns what is done with it.
func accept(p *Port) func() {
	fd, from, err := unix.Accept4(p.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	take := p.take
	return func() {
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
				time.Sleep(crowded)
			}
			return
		}
		f := os.NewFile(uintptr(fd), "connection")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return
		}
		go take(c, addrPort(from).Addr().Unmap().Is4())
	}
}

// crowded is how long nothing is accepted when there are no descriptors or no
// memory: the connections wait with the kernel.
const crowded = 10 * time.Millisecond

// bound makes a socket at an address.
func bound(kind int, at netip.AddrPort, both bool) (int, error) {
	family, sa, err := sockaddr(at)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 { // else net.ipv6.bindv6only says it
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, map[bool]int{false: 1}[both])
	}
	if err == nil && kind == unix.SOCK_STREAM {
		// Connections of an earlier container may still be ending (socket(7)).
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sockaddr is an address as a socket takes it, and its family; addrPort is the way
// back.
func sockaddr(at netip.AddrPort) (family int, sa unix.Sockaddr, err error) {
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}, nil
	}
	zone, err := scope(at.Addr().Zone())
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port()), ZoneId: zone}, err
}

// scope is the index of the device of a link-local address.
func scope(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	dev, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, unix.ENODEV
	}
	return uint32(dev.Index), nil
}
