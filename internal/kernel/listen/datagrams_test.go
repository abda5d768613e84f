package listen_test

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fief/internal/kernel/listen"
)

// echo answers each datagram with its name, whom it has it from, and what it said.
func echo(t *testing.T, network, address, name string) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo([]byte(name+" "+from.String()+" "+string(buf[:n])), from)
		}
	}()
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return c, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// client is one that hears only those whom it speaks to.
func client(t *testing.T, to string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends until it is answered, and returns who has answered and whom that has
// seen.
func say(t *testing.T, c net.Conn, what string) (name, seen string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := c.Write([]byte(what)); err != nil {
			continue // of the datagram before
		}
		c.SetReadDeadline(time.Now().Add(3 * time.Second))
		if n, err := c.Read(buf); err == nil {
			name, rest, _ := strings.Cut(string(buf[:n]), " ")
			seen, said, _ := strings.Cut(rest, " ")
			if said != what {
				continue // the answer to a datagram before
			}
			return name, seen
		}
	}
	t.Errorf("%v: no answer from %v to %q", c.LocalAddr(), c.RemoteAddr(), what)
	return "", ""
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestDatagrams: each family is led where it is told to, also to the other one;
// clients are told apart and answered from where they have asked.
func TestDatagrams(t *testing.T) {
	_, four := echo(t, "udp4", "127.0.0.1:0", "one")
	_, six := echo(t, "udp6", "[::1]:0", "two")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var k listen.Keeper
	defer k.Close()
	port := free(t)
	at := ":" + strconv.Itoa(int(port))
	lead := map[bool]netip.AddrPort{true: six, false: four} // by the other family
	p, err := k.UDP(netip.AddrPortFrom(netip.IPv6Unspecified(), port), true, func(four bool) netip.AddrPort { return lead[four] })
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	seen := map[string]bool{}
	for _, try := range []struct{ to, want string }{{"127.0.0.1", "two"}, {"127.0.0.1", "two"}, {"127.0.0.77", "two"}, {"[::1]", "one"}} {
		c := client(t, try.to+at)
		name, as := say(t, c, "hello")
		if name != try.want || seen[as] {
			t.Errorf("to %s: %s answers, and sees %s among %v", try.to, name, as, seen)
		}
		seen[as] = true
		if _, again := say(t, c, "again"); again != as {
			t.Errorf("one client is seen as %s and %s", as, again)
		}
		if name, _ := say(t, c, strings.Repeat("x", 60000)); name != try.want {
			t.Errorf("a long one is answered by %q", name)
		}
		c.Close()
	}
	if now := descriptors(t); now != before+4 {
		t.Errorf("%d descriptors of four flows", now-before)
	}
	p.Close()
	if now := descriptors(t); now != before-1 {
		t.Errorf("%d descriptors more when the port is closed", now-before)
	}
}

// TestDatagramsBounded: of too many flows the one that was idle longest ends, and
// its client is answered all the same; idle ones end by themselves.
func TestDatagramsBounded(t *testing.T) {
	_, to := echo(t, "udp4", "127.0.0.1:0", "one")
	k := listen.Keeper{Flows: 2}
	port := free(t)
	at := "127.0.0.1:" + strconv.Itoa(int(port))
	p, err := k.UDP(netip.MustParseAddrPort(at), false, func(bool) netip.AddrPort { return to })
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := client(t, at), client(t, at), client(t, at)
	before := descriptors(t)
	_, asA := say(t, a, "1")
	_, asB := say(t, b, "2")
	say(t, a, "3")
	say(t, c, "4") // ends b's
	if _, as := say(t, a, "5"); as != asA {
		t.Errorf("the flow that was used last has ended: %s, %s", asA, as)
	}
	if _, as := say(t, b, "6"); as == asB {
		t.Errorf("the flow that was idle longest goes on as %s", as)
	}
	if now := descriptors(t); now != before+2 {
		t.Errorf("%d descriptors of two flows", now-before)
	}
	p.Close()
	k.Close()

	idle := listen.Keeper{Idle: 20 * time.Millisecond}
	defer idle.Close()
	p, err = idle.UDP(netip.MustParseAddrPort(at), false, func(bool) netip.AddrPort { return to })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	say(t, a, "7")
	say(t, b, "8")
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if n := descriptors(t) - before; n <= 1 { // the second keeper's epoll is the first's
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d descriptors more than without flows", n)
		}
	}
	say(t, a, "9")
}

// TestDatagramsNowhere: without anybody who listens, and without a place to lead
// to, datagrams are dropped; both may change.
func TestDatagramsNowhere(t *testing.T) {
	var k listen.Keeper
	defer k.Close()
	port, target := free(t), make(chan netip.AddrPort, 1)
	target <- netip.AddrPort{}
	at := "127.0.0.1:" + strconv.Itoa(int(port))
	p, err := k.UDP(netip.MustParseAddrPort(at), false, func(bool) netip.AddrPort {
		to := <-target
		target <- to
		return to
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := client(t, at)
	silent := func(why string) {
		t.Helper()
		for range 3 {
			c.Write([]byte("x"))
		}
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := c.Read(make([]byte, 9)); err == nil {
			t.Errorf("%s: %d bytes of an answer", why, n)
		}
	}
	silent("nowhere")
	conn, to := echo(t, "udp4", "127.0.0.1:0", "one")
	conn.Close()
	<-target
	target <- to
	silent("nobody")
	echo(t, "udp4", to.String(), "two")
	if name, _ := say(t, c, "there"); name != "two" {
		t.Errorf("answered by %q", name)
	}
	_, other := echo(t, "udp4", "127.0.0.1:0", "three")
	<-target
	target <- other
	for name := ""; name != "three"; {
		if name, _ = say(t, c, "moved"); t.Failed() {
			break
		}
	}
}
