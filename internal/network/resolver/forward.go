package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/miekg/dns"

	"fief/internal/kernel/link"
)

// Upstream is who is asked for names that are no container's.
type Upstream struct {
	Servers []Server
	// Closed says that the container's networks lead nowhere: servers are then
	// asked only from where the container is, which reaches those on its own
	// networks. Whoever cannot send a packet must not have the host send one:
	// names can carry data out (CVE-2024-29018).
	Closed bool
	// Qualified says that names of one label are not asked for: the user has set
	// ndots, and not to 0.
	Qualified bool
}

// Server is a name server. Host says that it is asked as the host's programs ask
// it, from the daemon's network namespace: it was found in the host's own
// settings and may be an address of the host's loopback. Others were named by
// the user for the container and are asked as from within it.
type Server struct {
	Addr netip.AddrPort
	Host bool
}

const (
	maxServers = 3 // resolv.conf(5), MAXNS
	// firstWait is how long all but the last server are waited for, and lastWait
	// when all of them must have answered: a program's library asks again after
	// five seconds (resolv.conf(5), timeout).
	firstWait = 1500 * time.Millisecond
	lastWait  = 4500 * time.Millisecond
	// againAfter is when a datagram that nobody has answered is sent again, and then
	// after twice as long.
	againAfter = time.Second
	// sulk is for how long a server that did not answer is asked after the others.
	sulk = 10 * time.Second
)

// usable lists the servers that may be asked, those that failed lately last. The
// resolver's own address is none: it would ask itself.
func (s *server) usable() []Server {
	if s.service.Before != nil {
		s.service.Before()
	}
	up, now := s.upstream(), time.Now()
	var good, bad []Server
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range up.Servers {
		switch {
		case !v.Addr.IsValid(), v.Host && up.Closed, !v.Host && v.Addr.Addr().Unmap() == Address:
		case now.Before(s.sulking[v]):
			bad = append(bad, v)
		default:
			good = append(good, v)
		}
	}
	good = append(good, bad...)
	return good[:min(len(good), maxServers)]
}

// ask forwards a question and returns the answer, of a failure when nobody has
// any. It is asked with the protocol that it came by, so that who is told that an
// answer was too long for a datagram gets the whole of it.
func (s *server) ask(ctx context.Context, packet []byte, stream bool) []byte {
	servers := s.usable()
	ctx, cancel := context.WithTimeout(ctx, lastWait)
	defer cancel()
	if len(servers) == 0 || !s.slot(ctx) {
		return failure(packet, dns.RcodeServerFailure)
	}
	defer func() { <-s.service.slots }()
	var refused []byte
	for i, v := range servers {
		wait := firstWait
		if i == len(servers)-1 {
			wait = lastWait
		}
		reply, err := s.exchange(ctx, v, packet, stream, wait)
		if ctx.Err() != nil && err != nil {
			break
		}
		if err != nil {
			s.blame(v)
			continue
		}
		switch int(reply[3] & 0xf) {
		case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented:
			refused = reply // another may know; that there is no such name is an answer
			continue
		}
		return reply
	}
	if refused != nil && refused[3]&0xf == dns.RcodeServerFailure {
		return refused // it may say why (RFC 8914)
	}
	return failure(packet, dns.RcodeServerFailure)
}

// slot waits for one of the daemon's places for questions on their way.
func (s *server) slot(ctx context.Context) bool {
	select {
	case s.service.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *server) blame(v Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sulking) > 4*maxServers { // of settings of before
		clear(s.sulking)
	}
	s.sulking[v] = time.Now().Add(sulk)
}

// exchange asks one server. Each question has a port and a number of its own
// that nobody can guess (RFC 5452), and gets the asker's number back.
func (s *server) exchange(ctx context.Context, v Server, packet []byte, stream bool, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, err := s.dial(ctx, v, stream)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	id := uint16(rand.Uint32())
	if err := write(conn, id, packet, stream); err != nil {
		return nil, err
	}
	for pause, next := againAfter, time.Now().Add(againAfter); ; {
		reply, err := hear(ctx, conn, stream, next)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && !stream {
			pause *= 2
			next = next.Add(pause)
			if err := write(conn, id, packet, stream); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if !answers(reply, id, packet) {
			continue // somebody else's idea of an answer: the true one may follow
		}
		copy(reply, packet[:2])
		return fitting(reply, packet, stream), nil
	}
}

// hear waits for a message: for a datagram until the next is to be sent, as one may
// be lost. What masquerades under a port that another flow to the same server has
// just got is dropped by conntrack (insert_failed of /proc/net/stat/nf_conntrack: 91
// of 120,000 questions of four containers to one server), and let pass when it comes
// again.
func hear(ctx context.Context, conn net.Conn, stream bool, next time.Time) ([]byte, error) {
	if !stream {
		if end, _ := ctx.Deadline(); next.After(end) {
			next = time.Time{} // the context ends the waiting
		}
		conn.SetReadDeadline(next)
		if err := ctx.Err(); err != nil { // whose own deadline this has replaced
			return nil, err
		}
	}
	return receive(conn, stream)
}

// write sends a question under another number.
func write(conn net.Conn, id uint16, packet []byte, stream bool) error {
	var b []byte
	if stream {
		b = binary.BigEndian.AppendUint16(b, uint16(len(packet)))
	}
	b = binary.BigEndian.AppendUint16(b, id)
	_, err := conn.Write(append(b, packet[2:]...))
	return err
}

func receive(conn net.Conn, stream bool) ([]byte, error) {
	if stream {
		return readMessage(conn, dns.MaxMsgSize)
	}
	buf := make([]byte, udpSize+1)
	n, err := conn.Read(buf)
	return buf[:n], err
}

// readMessage reads a message of a stream (RFC 1035, 4.2.2).
func readMessage(r io.Reader, most int) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > most {
		return nil, io.ErrShortBuffer
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// dial opens a socket to a server, where the server is asked from.
func (s *server) dial(ctx context.Context, v Server, stream bool) (conn net.Conn, err error) {
	network := "udp"
	if stream {
		network = "tcp"
	}
	to := netip.AddrPortFrom(v.Addr.Addr().Unmap(), v.Addr.Port())
	if network += "4"; to.Addr().Is6() {
		network = network[:3] + "6"
	}
	open := func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, to.String())
		return err
	}
	if v.Host {
		return conn, open()
	}
	err = link.Within(s.netns, open)
	return conn, err
}

// answers reports whether a message answers a question that was sent with a
// number: it repeats the question (RFC 5452, 9.1), or failed to read it.
func answers(reply []byte, id uint16, packet []byte) bool {
	if len(reply) < head || binary.BigEndian.Uint16(reply) != id || reply[2]&0x80 == 0 {
		return false
	}
	if binary.BigEndian.Uint16(reply[4:]) == 0 {
		return reply[3]&0xf != dns.RcodeSuccess
	}
	end := questionEnd(packet)
	if end < 0 || len(reply) < end || binary.BigEndian.Uint16(reply[4:]) != 1 {
		return false
	}
	for i := head; i < end; i++ {
		if lower(reply[i]) != lower(packet[i]) {
			return false
		}
	}
	return true
}

// lower is a letter of a name, in which case means nothing (RFC 4343). What else
// of a question it changes, it changes alike.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// questionEnd is where the first question of a message ends, -1 when it does not.
func questionEnd(b []byte) int {
	for at := head; at < len(b); at += 1 + int(b[at]) {
		if b[at] == 0 && at+5 <= len(b) {
			return at + 5 // and type and class
		}
		if b[at] == 0 || b[at] >= 0xc0 { // a pointer has nothing to point to yet
			return -1
		}
	}
	return -1
}

// fitting makes an answer that is longer than what its asker can take one that
// says so (RFC 2181, 9).
func fitting(reply, packet []byte, stream bool) []byte {
	q := &dns.Msg{}
	if stream || q.Unpack(packet) == nil && len(reply) <= sizeFor(q, false) {
		return reply
	}
	end := questionEnd(reply)
	if end < 0 {
		end = head
	}
	short := append([]byte{}, reply[:end]...)
	short[2] |= 0x02 // TC
	clear(short[6:head])
	if end == head {
		clear(short[4:head])
	}
	return short
}
