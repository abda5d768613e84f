package resolver_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/network/resolver"
	"fief/internal/words/fault"
)

// directory is names that a test says.
type directory struct {
	version atomic.Uint64
	hosts   atomic.Pointer[map[string][]resolver.Host]
}

func (d *directory) Version() uint64 { return d.version.Load() }

func (d *directory) Hosts(container string) []resolver.Host { return (*d.hosts.Load())[container] }

func (d *directory) say(hosts map[string][]resolver.Host) *directory {
	d.hosts.Store(&hosts)
	d.version.Add(1)
	return d
}

// space is a network namespace with its loopback up. It goes with the test.
type space struct{ *os.File }

func newSpace(t testing.TB) space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: network namespaces are made by root")
	}
	var s space
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			s.File, err = os.Open("/proc/thread-self/ns/net")
		}
		if own != nil && unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.run(t, "ip link set lo up")
	return s
}

// run runs a command in the namespace and returns what it wrote.
func (s space) run(t testing.TB, line string) string {
	t.Helper()
	out, err := s.try(line)
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return out
}

func (s space) try(line string) (string, error) {
	var out bytes.Buffer
	err := link.Within(s.File, func() error {
		f := strings.Fields(line)
		cmd := exec.Command(f[0], f[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	return out.String(), err
}

// wired connects two namespaces: the first has 10.77.0.2, the second 10.77.0.1.
func wired(t testing.TB) (a, b space) {
	t.Helper()
	a, b = newSpace(t), newSpace(t)
	a.run(t, "ip link add eth0 type veth peer name up0")
	if err := move(a, b, "up0"); err != nil {
		t.Fatal(err)
	}
	a.run(t, "ip addr add 10.77.0.2/24 dev eth0")
	a.run(t, "ip link set eth0 up")
	b.run(t, "ip addr add 10.77.0.1/24 dev up0")
	b.run(t, "ip link set up0 up")
	return a, b
}

func move(from, to space, name string) error {
	return link.Within(from.File, func() error {
		cmd := exec.Command("ip", "link", "set", name, "netns", "/proc/self/fd/3")
		cmd.ExtraFiles = []*os.File{to.File}
		return cmd.Run()
	})
}

// opened is a resolver in a namespace.
func opened(t testing.TB, d resolver.Directory, s space, id string, up resolver.Upstream) *resolver.Service {
	t.Helper()
	r := resolver.New(d, slog.New(slog.DiscardHandler))
	t.Cleanup(r.Shutdown)
	open(t, r, s, id, up)
	return r
}

func open(t testing.TB, r *resolver.Service, s space, id string, up resolver.Upstream) {
	t.Helper()
	sockets, err := resolver.Prepare(s.File, id)
	if fault.Is(err, fault.Unsupported) {
		t.Skip("kernel: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Open(id, s.File, sockets, up); err != nil {
		t.Fatal(err)
	}
}

// ask sends a question from a namespace to a resolver in it.
func (s space) ask(t testing.TB, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	reply, err := s.exchange(network, m)
	if err != nil {
		t.Fatalf("%s: %v", m.Question[0].Name, err)
	}
	return reply
}

func (s space) exchange(network string, m *dns.Msg) (*dns.Msg, error) {
	conn, err := s.dial(network, "127.0.0.11:53")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, _, err := (&dns.Client{Net: network, Timeout: 30 * time.Second}).ExchangeWithConn(m, &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize})
	return reply, err
}

func (s space) dial(network, to string) (conn net.Conn, err error) {
	err = link.Within(s.File, func() error {
		conn, err = (&net.Dialer{Timeout: 30 * time.Second}).Dial(network+"4", to)
		return err
	})
	return conn, err
}

// goResolver is Go's own resolver, as a program of the namespace has it.
func (s space) goResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		return s.dial(strings.TrimRight(network, "46"), "127.0.0.11:53")
	}}
}

func question(name string, kind uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	return m
}

// upstream is a name server in a namespace, of the caller's when that is zero. It
// returns its address.
func upstream(t testing.TB, s space, at string, answer dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	var packets net.PacketConn
	var streams net.Listener
	listen := func() (err error) {
		if streams, err = net.Listen("tcp4", at); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp4", streams.Addr().String())
		return err
	}
	err := listen
	if s.File != nil {
		err = func() error { return link.Within(s.File, listen) }
	}
	if err := err(); err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: streams, Handler: answer}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go srv.ActivateAndServe()
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
	return netip.MustParseAddrPort(streams.Addr().String())
}

// saying answers every question for an address with one address.
func saying(a string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 7}, A: net.ParseIP(a)}}
		}
		w.WriteMsg(m)
	}
}

func failing(code int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, code)) }
}

func addresses(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		case *dns.PTR:
			out = append(out, rr.Ptr)
		}
	}
	return strings.Join(out, " ")
}

func addrs(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}
