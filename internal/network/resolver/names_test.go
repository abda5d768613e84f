package resolver

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestReversed(t *testing.T) {
	for _, a := range []string{"1.2.3.4", "255.0.0.1", "::1", "2001:db8::fe"} {
		want := netip.MustParseAddr(a)
		name, err := dns.ReverseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reversed(strings.ToUpper(name)); !ok || got != want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", ".", "in-addr.arpa.", "1.in-addr.arpa.", "3.2.1.in-addr.arpa.", "5.4.3.2.1.in-addr.arpa.",
		"256.1.1.1.in-addr.arpa.", "::1.in-addr.arpa.", "ip6.arpa.", "1.0.ip6.arpa.", strings.Repeat("1.", 31) + "gg.ip6.arpa.",
		strings.Repeat("1.", 31) + "g.ip6.arpa.", strings.Repeat("11", 31) + "1.ip6.arpa.", "1.2.3.4.example."} {
		if got, ok := reversed(name); ok {
			t.Errorf("%q is %v", name, got)
		}
	}
}

// TestManyAnswers: what does not fit into a datagram says so.
func TestManyAnswers(t *testing.T) {
	var hosts []Host
	for i := range 200 {
		hosts = append(hosts, Host{Network: "n", Names: []string{"web"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i)})}})
	}
	s := serverFor(hosts)
	for _, c := range []struct {
		size   uint16 // 0: no EDNS
		stream bool
		most   int
		whole  bool
	}{{0, false, 512, false}, {100, false, 512, false}, {1232, false, 1232, false}, {65535, false, 4096, true}, {0, true, 65535, true}} {
		q := new(dns.Msg)
		q.SetQuestion("web.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(c.size, false)
		}
		b, _ := q.Pack()
		reply, todo := s.local(b, c.stream)
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil || todo != send || len(reply) > c.most || m.Truncated == c.whole || (len(m.Answer) == 200) != c.whole {
			t.Errorf("%v: %d bytes, %d answers, truncated %v, %v", c, len(reply), len(m.Answer), m.Truncated, err)
		}
		if (m.IsEdns0() != nil) != (c.size > 0) {
			t.Errorf("%v: EDNS %v", c, m.IsEdns0())
		}
	}
}

// serverFor is a server without sockets.
func serverFor(hosts []Host) *server {
	s := &server{service: New(fixed(hosts), slog.New(slog.DiscardHandler))}
	s.settings.Store(&Upstream{})
	return s
}

type fixed []Host

func (fixed) Version() uint64       { return 1 }
func (f fixed) Hosts(string) []Host { return f }

// FuzzLocal: whatever a container sends, what it gets is an answer to it that is
// no longer than it may be, and no panic was on the way.
func FuzzLocal(f *testing.F) {
	for _, name := range []string{"web.", "example.com.", "4.3.2.1.in-addr.arpa.", ".", `a\.b\000.`} {
		for _, kind := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY, dns.TypeAXFR} {
			q := new(dns.Msg)
			q.SetQuestion(name, kind)
			b, _ := q.Pack()
			f.Add(b, kind == dns.TypeA)
			q.SetEdns0(900, true)
			b, _ = q.Pack()
			f.Add(b, kind != dns.TypeA)
		}
	}
	f.Add([]byte("0\xc0\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false)
	var hosts []Host
	for i := range 40 {
		hosts = append(hosts, Host{Network: "n" + strconv.Itoa(i%2), Names: []string{"web", "w" + strconv.Itoa(i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{1, 2, 3, byte(i)}), netip.MustParseAddr("fd00::" + strconv.Itoa(i))}})
	}
	s := serverFor(hosts)
	s.service.log = slog.New(loud{slog.DiscardHandler})
	f.Fuzz(func(t *testing.T, packet []byte, stream bool) {
		reply, todo := s.local(packet, stream)
		if (todo == send) != (reply != nil) {
			t.Fatalf("%d with %d bytes", todo, len(reply))
		}
		if todo == forward {
			if reply = failure(packet, dns.RcodeServerFailure); reply == nil || answers(reply, uint16(packet[0])<<8|uint16(packet[1]), packet) == (questionEnd(packet) < 0) {
				t.Fatalf("it is forwarded, and its failure is %x", reply)
			}
		}
		if reply == nil {
			return
		}
		if len(reply) < head || reply[0] != packet[0] || reply[1] != packet[1] || reply[2]&0x80 == 0 || !stream && len(reply) > udpSize {
			t.Fatalf("%x is no answer to it", reply)
		}
		if err := new(dns.Msg).Unpack(reply); err != nil {
			t.Fatalf("%x: %v", reply, err)
		}
	})
}

// loud makes a panic that was caught one again.
type loud struct{ slog.Handler }

func (loud) Enabled(context.Context, slog.Level) bool { return true }

func (loud) Handle(_ context.Context, r slog.Record) error { panic(r.Message) }

// FuzzReply: whatever a server answers, it is taken for the answer or not, and
// what is handed on is no longer than the asker can take.
func FuzzReply(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("Example.com.", dns.TypeA)
	packet, _ := q.Pack()
	m := new(dns.Msg)
	m.SetReply(q)
	b, _ := m.Pack()
	f.Add(b)
	m.Question = nil
	m.Rcode = dns.RcodeFormatError
	b, _ = m.Pack()
	f.Add(b)
	f.Fuzz(func(t *testing.T, reply []byte) {
		if !answers(reply, q.Id, packet) {
			return
		}
		if out := fitting(reply, packet, false); len(out) > dns.MinMsgSize || len(out) < head {
			t.Fatalf("%d bytes of %d", len(out), len(reply))
		}
	})
}
