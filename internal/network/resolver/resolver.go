// Package resolver answers the programs of containers that ask for the names of
// other containers, and asks the name servers of the host or of the user for
// everything else: the resolver of networks that users make, at 127.0.0.11 in
// each container on one, as with Docker.
//
// It knows nothing of containers but what a Directory says when a question has
// come, and keeps nothing that could be outdated.
package resolver

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/netin"
	"fief/internal/words/fault"
)

// Address is where containers find the resolver, at port 53.
var Address = netin.Known.Addr()

const (
	// maxSlots bounds the questions of all containers that are on their way to
	// other servers: each has a descriptor.
	maxSlots = 1024
	// maxFlights bounds a container's datagrams that are being forwarded or wait
	// for that, maxStreams its connections.
	maxFlights = 256
	maxStreams = 32
)

// Service is the resolvers of a daemon's containers. Its methods may be called
// from any goroutine.
type Service struct {
	names Directory
	log   *slog.Logger
	slots chan struct{}
	// Before, unless nil, is called before others are asked: who they are may be
	// another matter by then. It is set before the first Open, and may call Update.
	Before func()

	mu     sync.Mutex
	open   map[string]*server // by container
	closed bool
}

// New makes a service that looks names up in a directory.
func New(names Directory, log *slog.Logger) *Service {
	return &Service{names: names, log: log, slots: make(chan struct{}, maxSlots), open: map[string]*server{}}
}

// server answers one container.
type server struct {
	service   *Service
	container string
	netns     *os.File // its own descriptor
	udp       *net.UDPConn
	tcp       *net.TCPListener
	ctx       context.Context // ends with it
	cancel    context.CancelFunc
	busy      sync.WaitGroup
	flights   chan struct{}
	streams   chan struct{}
	settings  atomic.Pointer[Upstream]
	view      atomic.Pointer[view]

	mu      sync.Mutex
	sulking map[Server]time.Time // until when a server is asked last
}

// Port is the port on which a container's sockets listen. It is the same in each
// daemon, so that questions that were on their way when one ended reach the next,
// and none of those that the kernel gives to programs that ask for any
// (ip(7), ip_local_port_range): only a program that wants this very number would
// miss it.
func Port(container string) uint16 {
	const first, count = 61000, 4000
	h := fnv.New32a()
	h.Write([]byte(container))
	return uint16(first + h.Sum32()%count)
}

// otherPorts is how many further ports are tried when one is taken.
const otherPorts = 16

// Prepare opens the sockets of a container that are for Open, in its network
// namespace, and leads 127.0.0.11:53 to them. A process that has the namespace
// before the daemon does may do so for it: what is asked meanwhile waits.
// Unsupported: the kernel cannot lead ports.
func Prepare(netns *os.File, container string) (netin.Sockets, error) {
	port := Port(container)
	for range otherPorts {
		s, err := netin.Listen(netns, netip.AddrPortFrom(Address, port))
		if fault.Is(err, fault.Exists) {
			port++
			continue
		}
		if err != nil {
			return s, err
		}
		if err := netin.Lead(netns, netin.Known, port); err != nil {
			s.Close()
			return netin.Sockets{}, err
		}
		return s, nil
	}
	return netin.Sockets{}, fault.New(fault.Exists, "open the resolver of", container, "its programs have all the ports of the resolver", "")
}

// Open answers a container by way of the sockets, which are the service's from
// here on, until Close. The namespace, of which it keeps a descriptor of its own,
// and the sockets live until then: Close must be called when the container has
// ended. One that is open already is closed first.
func (s *Service) Open(container string, netns *os.File, sockets netin.Sockets, up Upstream) error {
	defer sockets.Close() // the network poller's copies stay
	s.Close(container)
	v := &server{service: s, container: container, flights: make(chan struct{}, maxFlights), streams: make(chan struct{}, maxStreams), sulking: map[Server]time.Time{}}
	v.settings.Store(&up)
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Exhausted, "open the resolver of", container, err, "")
	}
	v.netns = os.NewFile(uintptr(fd), netns.Name())
	if err := v.take(sockets); err != nil {
		v.drop()
		return fault.Wrap(fault.Internal, "open the resolver of", container, err, "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.open[container] != nil {
		v.drop()
		return fault.New(fault.Conflict, "open the resolver of", container, "the daemon ends, or another is opening it", "")
	}
	s.open[container] = v
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.busy.Go(v.datagrams)
	v.busy.Go(v.connections)
	return nil
}

// take makes Go's sockets of the kernel's.
func (v *server) take(sockets netin.Sockets) error {
	packets, err := net.FilePacketConn(sockets.UDP)
	if err != nil {
		return err
	}
	var ok bool
	if v.udp, ok = packets.(*net.UDPConn); !ok {
		packets.Close()
		return errors.New("not a datagram socket")
	}
	l, err := net.FileListener(sockets.TCP)
	if err != nil {
		return err
	}
	if v.tcp, ok = l.(*net.TCPListener); !ok {
		l.Close()
		return errors.New("not a listening socket")
	}
	return nil
}

// drop closes what a server has.
func (v *server) drop() {
	if v.udp != nil {
		v.udp.Close()
	}
	if v.tcp != nil {
		v.tcp.Close()
	}
	v.netns.Close()
}

// Update changes who is asked for a container's other names. It reports whether
// the container is open, else it does nothing.
func (s *Service) Update(container string, up Upstream) bool {
	s.mu.Lock()
	v := s.open[container]
	s.mu.Unlock()
	if v != nil {
		v.settings.Store(&up)
	}
	return v != nil
}

// Close ends a container's resolver, if there is one. Nothing of the namespace
// is held when it returns.
func (s *Service) Close(container string) {
	s.mu.Lock()
	v := s.open[container]
	delete(s.open, container)
	s.mu.Unlock()
	if v != nil {
		v.end()
	}
}

// Shutdown closes all, and for good. Containers go on without names until the
// next daemon opens theirs again.
func (s *Service) Shutdown() {
	s.mu.Lock()
	all := s.open
	s.open, s.closed = map[string]*server{}, true
	s.mu.Unlock()
	for _, v := range all {
		v.end()
	}
}

func (v *server) end() {
	v.cancel()
	v.udp.Close()
	v.tcp.Close()
	v.busy.Wait() // whoever asks for a container ends when ctx does
	v.netns.Close()
}

func (v *server) upstream() *Upstream { return v.settings.Load() }

// names is what the container may know, as it is now.
func (v *server) names() *view {
	version := v.service.names.Version()
	seen := v.view.Load()
	if seen == nil || seen.version != version {
		seen = look(version, v.service.names.Hosts(v.container))
		v.view.Store(seen)
	}
	return seen
}
