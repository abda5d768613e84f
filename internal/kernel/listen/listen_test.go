package listen_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/listen"
)

// family answers a connection with the family it came by.
func family(c net.Conn, four bool) {
	defer c.Close()
	if four {
		io.WriteString(c, "4")
		return
	}
	io.WriteString(c, "6")
}

func ask(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%s: %v", address, err)
	}
	return string(b)
}

// free is a port that is free in both families and protocols.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// TestBoth: a port of both families is one socket, which nobody else gets
// either half of, and each connection is told apart.
func TestBoth(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var k listen.Keeper
	defer k.Close()
	port := free(t)
	at := strconv.Itoa(int(port))
	p, err := k.TCP(netip.AddrPortFrom(netip.IPv6Unspecified(), port), true, family)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{"127.0.0.1:" + at: "4", "[::1]:" + at: "6"} {
		if got := ask(t, address); got != want {
			t.Errorf("%s answers %q, want %s", address, got, want)
		}
	}
	for network, address := range map[string]string{"tcp4": "127.0.0.1:" + at, "tcp6": "[::1]:" + at} {
		if l, err := net.Listen(network, address); err == nil {
			l.Close()
			t.Errorf("another has %s", address)
		}
	}
	var other listen.Keeper
	defer other.Close()
	for _, both := range []bool{true, false} {
		if _, err := other.TCP(netip.AddrPortFrom(netip.IPv6Unspecified(), port), both, family); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("kept twice: %v", err)
		}
	}
	p.Close()
	p.Close()
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, ":"+at)
		if err != nil {
			t.Errorf("not given back: %v", err)
			continue
		}
		l.Close()
	}
}

// TestOne: a port of IPv6 alone leaves IPv4's, and one of an address the others'.
func TestOne(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var k listen.Keeper
	defer k.Close()
	port := free(t)
	var all []*listen.Port
	for _, a := range []string{"::", "127.0.0.1", "127.0.0.2"} {
		p, err := k.TCP(netip.AddrPortFrom(netip.MustParseAddr(a), port), false, family)
		if err != nil {
			t.Fatal(a, err)
		}
		all = append(all, p)
	}
	u, err := k.UDP(netip.AddrPortFrom(netip.IPv6Unspecified(), port), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp4", "udp6"} {
		if c, err := net.ListenPacket(network, ":"+strconv.Itoa(int(port))); err == nil {
			c.Close()
			t.Errorf("another has the port by %s", network)
		}
	}
	u.Close()
	for _, p := range all {
		p.Close()
	}
	if _, err := k.TCP(netip.MustParseAddrPort("192.0.2.99:1"), false, family); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address that is not here: %v", err)
	}
}

// TestMany: 500 ports cost one goroutine and no thread, all answer at once, and
// nothing of them is left.
func TestMany(t *testing.T) {
	before := count(t)
	func() {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		var k listen.Keeper
		defer k.Close()
		goroutines := runtime.NumGoroutine()
		var ports []*listen.Port
		var at []uint16
		for len(ports) < 500 {
			n := free(t)
			p, err := k.TCP(netip.AddrPortFrom(netip.IPv6Unspecified(), n), true, family)
			if errors.Is(err, unix.EADDRINUSE) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			ports, at = append(ports, p), append(at, n)
		}
		if n := runtime.NumGoroutine() - goroutines; n > 1 {
			t.Errorf("%d goroutines for 500 ports", n)
		}
		var conns []net.Conn
		for _, n := range at {
			c, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(int(n)))
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		for i, c := range conns {
			c.SetDeadline(time.Now().Add(time.Minute))
			if b, err := io.ReadAll(c); err != nil || string(b) != "4" {
				t.Errorf("port %d: %q, %v", at[i], b, err)
			}
			c.Close()
		}
		for _, p := range ports {
			p.Close()
		}
	}()
	if after := count(t); after > before+1 { // the runtime's own may be new
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func count(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestClosed: connections that were led on when a port is closed go on.
func TestClosed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var k listen.Keeper
	defer k.Close()
	port := free(t)
	p, err := k.TCP(netip.AddrPortFrom(netip.IPv4Unspecified(), port), false, func(c net.Conn, _ bool) {
		defer c.Close()
		io.Copy(c, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", "127.0.0.1:"+strconv.Itoa(int(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	for _, word := range []string{"before", "closed"} {
		if _, err := io.WriteString(c, word); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(word))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != word {
			t.Errorf("%q, %v", b, err)
		}
		p.Close()
	}
	if got := ask(t, "127.0.0.1:"+strconv.Itoa(int(port))); got == "" {
		t.Error("a closed port still takes connections")
	}
}

// BenchmarkPorts is 100 ports on both families, taken and given back.
func BenchmarkPorts(b *testing.B) {
	var k listen.Keeper
	defer k.Close()
	for b.Loop() {
		var all []*listen.Port
		for i := range 100 {
			p, err := k.TCP(netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(28000+i)), true, family)
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, p)
		}
		for _, p := range all {
			p.Close()
		}
	}
}

// BenchmarkNet is the same by package net, with somebody waiting for each.
func BenchmarkNet(b *testing.B) {
	for b.Loop() {
		var all []net.Listener
		for i := range 100 {
			for _, network := range []string{"tcp4", "tcp6"} {
				l, err := net.Listen(network, ":"+strconv.Itoa(28000+i))
				if err != nil {
					b.Fatal(err)
				}
				go l.Accept()
				all = append(all, l)
			}
		}
		for _, l := range all {
			l.Close()
		}
	}
}
