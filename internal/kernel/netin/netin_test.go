package netin_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/kernel/netin"
	"fief/internal/words/fault"
)

// space makes a network namespace, whose loopback is down.
func space(t testing.TB) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: network namespaces are made by root")
	}
	var f *os.File
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		if own != nil && unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// owned makes a network namespace that a user namespace has, as containers' are.
func owned(t testing.TB) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: network namespaces are made by root")
	}
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: 300000, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 300000, Size: 1}}}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		holder.Process.Kill()
		holder.Wait()
	}()
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestLead: in a namespace in which nothing has been done yet, sockets are reached
// by the port that is led to them, and their answers come from there; another
// address is not led, and to lead again leads elsewhere. So it is in the host's
// namespaces and in those of a user namespace, and by connections as by packets.
func TestLead(t *testing.T) {
	for name, c := range map[string]struct {
		space func(testing.TB) *os.File
		lead  func(*os.File, netip.AddrPort, uint16) error
	}{
		"the host's": {space, netin.Lead}, "a user namespace's": {owned, netin.Lead}, "by connections": {owned, netin.LeadByConnections},
	} {
		t.Run(name, func(t *testing.T) { leads(t, c.space(t), c.lead) })
	}
}

func leads(t *testing.T, ns *os.File, lead func(*os.File, netip.AddrPort, uint16) error) {
	known := netip.MustParseAddrPort("127.0.0.11:53")
	for _, port := range []uint16{61001, 61002} {
		s, err := netin.Listen(ns, netip.AddrPortFrom(known.Addr(), port))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := lead(ns, known, port); err != nil {
			if fault.Is(err, fault.Unsupported) {
				t.Skip("kernel: " + err.Error())
			}
			t.Fatal(err)
		}
		l, err := net.FileListener(s.TCP)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.FilePacketConn(s.UDP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go greet(l, c)
	}
	for _, network := range []string{"udp4", "tcp4"} {
		var conn net.Conn
		err := link.Within(ns, func() (err error) { conn, err = net.Dial(network, known.String()); return err })
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		conn.Write([]byte("?"))
		b := make([]byte, 100)
		n, err := conn.Read(b)
		if err != nil || string(b[:n]) != "127.0.0.11:61002" {
			t.Errorf("%s: %q, %v", network, b[:n], err)
		}
	}
	err := link.Within(ns, func() error {
		c, err := net.Dial("tcp4", "127.0.0.12:53")
		if err == nil {
			c.Close()
		}
		return err
	})
	if err == nil {
		t.Error("another address is led, too")
	}
	if _, err := netin.Listen(ns, netip.MustParseAddrPort("127.0.0.11:61001")); !fault.Is(err, fault.Exists) {
		t.Errorf("a port that is taken: %v", err)
	}
	for _, a := range []string{"[::1]:53", "[::ffff:127.0.0.11]:53"} {
		if _, err := netin.Listen(ns, netip.MustParseAddrPort(a)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", a, err)
		}
		if err := netin.Lead(ns, netip.MustParseAddrPort(a), 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// greet says to everybody who they have reached.
func greet(l net.Listener, c net.PacketConn) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, l.Addr().String())
			conn.Close()
		}
	}()
	b := make([]byte, 10)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		c.WriteTo([]byte(c.LocalAddr().String()), from)
	}
}

// BenchmarkLead is what both halves cost in a namespace that has nothing yet.
func BenchmarkLead(b *testing.B) {
	known := netip.MustParseAddrPort("127.0.0.11:53")
	var listening time.Duration
	for b.Loop() {
		b.StopTimer()
		ns := space(b)
		at := time.Now()
		s, err := netin.Listen(ns, netip.AddrPortFrom(known.Addr(), 61001))
		if err != nil {
			b.Fatal(err)
		}
		listening += time.Since(at)
		b.StartTimer()
		if err := netin.Lead(ns, known, 61001); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		ns.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(listening.Microseconds())/float64(b.N), "µs-listen")
}
