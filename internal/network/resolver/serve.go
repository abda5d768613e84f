package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// idle is how long a connection may say nothing, and how long it may take to
	// take an answer (RFC 7766, 6.2.3: a few seconds).
	idle = 10 * time.Second
	// rest is the pause after a failure of a socket, troubles how many of them in
	// a row end the service of it.
	rest     = 20 * time.Millisecond
	troubles = 500
)

// datagrams answers those that arrive. About containers it does so itself, one
// after the other: that takes microseconds. What is forwarded has a goroutine.
func (s *server) datagrams() {
	buf := make([]byte, maxQuery+1)
	for failed := 0; failed < troubles; {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !s.pause(err) {
				return
			}
			failed++
			continue
		}
		failed = 0
		if n > maxQuery {
			continue
		}
		reply, todo := s.local(buf[:n], false)
		if todo == forward {
			reply = s.fly(append([]byte{}, buf[:n]...), from)
		}
		if reply != nil {
			s.udp.WriteToUDPAddrPort(reply, from) // who has gone misses nothing
		}
	}
}

// fly forwards a datagram, or returns the answer that there are too many.
func (s *server) fly(packet []byte, from netip.AddrPort) []byte {
	select {
	case s.flights <- struct{}{}:
	default:
		return failure(packet, dns.RcodeServerFailure)
	}
	s.busy.Go(func() {
		defer func() { <-s.flights }()
		if reply := s.ask(s.ctx, packet, false); reply != nil && s.ctx.Err() == nil {
			s.udp.WriteToUDPAddrPort(reply, from)
		}
	})
	return nil
}

// pause waits after an error of a socket, and reports whether to go on.
func (s *server) pause(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(rest):
		return true
	}
}

// connections serves those that arrive. One more than there may be is closed: the
// others are the same container's.
func (s *server) connections() {
	for failed := 0; failed < troubles; {
		conn, err := s.tcp.Accept()
		if err != nil {
			if !s.pause(err) {
				return
			}
			failed++
			continue
		}
		failed = 0
		select {
		case s.streams <- struct{}{}:
			s.busy.Go(func() {
				defer func() { <-s.streams }()
				s.stream(conn)
			})
		default:
			conn.Close()
		}
	}
}

// stream answers the questions of a connection one after the other.
func (s *server) stream(conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(s.ctx, func() { conn.Close() })()
	for {
		conn.SetDeadline(time.Now().Add(idle))
		packet, err := readMessage(conn, maxQuery)
		if err != nil {
			return
		}
		reply, todo := s.local(packet, true)
		if todo == forward {
			reply = s.ask(s.ctx, packet, true)
		}
		if reply == nil {
			return
		}
		conn.SetDeadline(time.Now().Add(idle))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
