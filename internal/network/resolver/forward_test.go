package resolver_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"fief/internal/kernel/link"
	"fief/internal/network/resolver"
)

func TestForward(t *testing.T) {
	inside, outside := wired(t)
	var asked atomic.Pointer[dns.Msg]
	world := upstream(t, outside, "10.77.0.1:53", func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Store(q.Copy()) // the server goes on to read its own
		m := new(dns.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		rr := func(s string) {
			v, err := dns.NewRR(name + " 7 IN " + s)
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, v)
		}
		switch {
		case strings.HasPrefix(name, "no."):
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeHTTPS:
			rr(`HTTPS 1 . alpn="h2,h3" ipv4hint=192.0.2.9`)
		case q.Question[0].Qtype == dns.TypeTXT:
			for range 60 {
				rr(`TXT "` + strings.Repeat("x", 200) + `"`)
			}
			if w.LocalAddr().Network() == "udp" {
				size := dns.MinMsgSize
				if o := q.IsEdns0(); o != nil {
					size = int(o.UDPSize())
				}
				m.Truncate(size)
			}
		case q.Question[0].Qtype == dns.TypeCAA: // more than was asked for
			for range 60 {
				rr(`TXT "` + strings.Repeat("x", 20) + `"`)
			}
		default:
			rr("A 192.0.2.1")
		}
		w.WriteMsg(m)
	})
	server := resolver.Server{Addr: world}
	opened(t, new(directory).say(neighbours()), inside, "one", resolver.Upstream{Servers: []resolver.Server{server}})

	m := inside.ask(t, "udp", question("ExAmple.com.", dns.TypeA))
	if addresses(m) != "192.0.2.1" || m.Answer[0].Header().Ttl != 7 || m.Question[0].Name != "ExAmple.com." {
		t.Errorf("example.com: %v", m)
	}
	if m = inside.ask(t, "udp", question("no.example.com.", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("a name that there is not: %v", m)
	}
	m = inside.ask(t, "udp", question("example.com.", dns.TypeHTTPS))
	if len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), `alpn="h2,h3"`) {
		t.Errorf("HTTPS: %v", m)
	}
	if m = inside.ask(t, "udp", question("example.com.", dns.TypeTXT)); !m.Truncated || len(m.Answer) > 2 {
		t.Errorf("too long for a datagram: %v", m)
	}
	if m = inside.ask(t, "tcp", question("example.com.", dns.TypeTXT)); m.Truncated || len(m.Answer) != 60 {
		t.Errorf("by TCP: %d records", len(m.Answer))
	}
	if m = inside.ask(t, "udp", question("example.com.", dns.TypeCAA)); !m.Truncated || len(m.Answer) != 0 {
		t.Errorf("an answer that is too long: %v", m)
	}
	if m = inside.ask(t, "udp", question("5.5.0.10.in-addr.arpa.", dns.TypePTR)); m.Rcode != dns.RcodeSuccess || asked.Load().Question[0].Name != "5.5.0.10.in-addr.arpa." {
		t.Errorf("an address of nobody's: %v", m)
	}
	found, err := inside.goResolver().LookupTXT(context.Background(), "example.com.")
	if err != nil || len(found) != 60 {
		t.Errorf("Go's resolver: %d, %v", len(found), err)
	}
	asked.Store(nil)
	inside.ask(t, "udp", question("web.1.", dns.TypeTXT))
	if q := asked.Load(); q != nil {
		t.Errorf("somebody else was asked for a container: %v", q)
	}
	extra := question("example.net.", dns.TypeA)
	extra.SetEdns0(1400, true)
	extra.CheckingDisabled = true
	inside.ask(t, "udp", extra)
	got := asked.Load()
	got.Id, got.Response = extra.Id, extra.Response
	a, _ := extra.Pack()
	b, _ := got.Pack()
	if !bytes.Equal(a, b) {
		t.Errorf("it was not forwarded as it was:\n%v\n%v", extra, got)
	}
}

// TestLost: a question that is lost on its way is asked again, from the same port,
// before the program that has asked gives up.
func TestLost(t *testing.T) {
	inside, outside := wired(t)
	var seen atomic.Int32
	var from atomic.Value
	world := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:53", func(w dns.ResponseWriter, q *dns.Msg) {
		if seen.Add(1) < 3 { // the first and the second are lost
			from.Store(w.RemoteAddr().String())
			return
		}
		if got := w.RemoteAddr().String(); got != from.Load() {
			t.Errorf("asked again from %s, not %s", got, from.Load())
		}
		saying("192.0.2.1")(w, q)
	})}
	opened(t, new(directory).say(neighbours()), inside, "one", resolver.Upstream{Servers: []resolver.Server{world}})
	if m := inside.ask(t, "udp", question("example.com.", dns.TypeA)); addresses(m) != "192.0.2.1" || seen.Load() != 3 {
		t.Errorf("after %d questions: %v", seen.Load(), m)
	}
}

// TestServers: who does not answer, or says no more than that it failed, is
// followed by the next one.
func TestServers(t *testing.T) {
	inside, outside := wired(t)
	good := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:53", saying("192.0.2.1"))}
	refuses := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:54", failing(dns.RcodeRefused))}
	fails := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:55", failing(dns.RcodeServerFailure))}
	wrong := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:56", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Id++
		w.WriteMsg(m) // of another question
		m.Id--
		m.Question = []dns.Question{{Name: "other.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		w.WriteMsg(m)
		saying("192.0.2.3")(w, q)
	})}
	garbage := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:57", func(w dns.ResponseWriter, _ *dns.Msg) { w.Write([]byte("no message")) })}
	own := resolver.Server{Addr: netip.AddrPortFrom(resolver.Address, 53)}
	mapped := resolver.Server{Addr: netip.MustParseAddrPort("[::ffff:127.0.0.11]:53")}
	nobody := resolver.Server{Addr: netip.MustParseAddrPort("10.77.0.1:58")}
	silent := resolver.Server{Addr: netip.MustParseAddrPort("10.77.0.99:53")}
	here := upstream(t, space{}, "127.0.0.1:0", saying("192.0.2.2"))
	host, there := resolver.Server{Addr: here, Host: true}, resolver.Server{Addr: here}

	r := opened(t, new(directory).say(neighbours()), inside, "one", resolver.Upstream{})
	for name, c := range map[string]struct {
		up   resolver.Upstream
		want string // the failure when empty
	}{
		"none":                {resolver.Upstream{}, ""},
		"itself":              {resolver.Upstream{Servers: []resolver.Server{own, mapped}}, ""},
		"itself and one":      {resolver.Upstream{Servers: []resolver.Server{own, good}}, "192.0.2.1"},
		"nobody is there":     {resolver.Upstream{Servers: []resolver.Server{nobody, good}}, "192.0.2.1"},
		"no answer":           {resolver.Upstream{Servers: []resolver.Server{silent, good}}, "192.0.2.1"},
		"no answer at all":    {resolver.Upstream{Servers: []resolver.Server{silent}}, ""},
		"one refuses":         {resolver.Upstream{Servers: []resolver.Server{refuses, good}}, "192.0.2.1"},
		"all refuse":          {resolver.Upstream{Servers: []resolver.Server{refuses, fails}}, ""},
		"false answers":       {resolver.Upstream{Servers: []resolver.Server{wrong}}, "192.0.2.3"},
		"no message":          {resolver.Upstream{Servers: []resolver.Server{garbage, good}}, "192.0.2.1"},
		"the host's":          {resolver.Upstream{Servers: []resolver.Server{host}}, "192.0.2.2"},
		"not the host's":      {resolver.Upstream{Servers: []resolver.Server{there}}, ""},
		"closed":              {resolver.Upstream{Servers: []resolver.Server{host}, Closed: true}, ""},
		"closed, by the user": {resolver.Upstream{Servers: []resolver.Server{host, good}, Closed: true}, "192.0.2.1"},
	} {
		r.Update("one", c.up)
		m := inside.ask(t, "udp", question("example.com.", dns.TypeA))
		if got := addresses(m); got != c.want || (m.Rcode == dns.RcodeServerFailure) != (c.want == "") {
			t.Errorf("%s: %s %q, not %q", name, dns.RcodeToString[m.Rcode], got, c.want)
		}
	}
	r.Update("one", resolver.Upstream{Servers: []resolver.Server{good}, Qualified: true})
	if m := inside.ask(t, "udp", question("short.", dns.TypeA)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("a name of one label: %v", m)
	}
	if m := inside.ask(t, "udp", question("short.", dns.TypeNS)); addresses(m) != "" || m.Rcode != dns.RcodeSuccess {
		t.Errorf("its name servers: %v", m)
	}
	if m := inside.ask(t, "udp", question("long.er.", dns.TypeA)); addresses(m) != "192.0.2.1" {
		t.Errorf("a name of two labels: %v", m)
	}
}

// TestClosedSendsNothing: from a network that leads nowhere no packet reaches a
// server of the host's, whatever is asked, however often.
func TestClosedSendsNothing(t *testing.T) {
	s := newSpace(t)
	var reached atomic.Int32
	here := upstream(t, space{}, "127.0.0.1:0", func(w dns.ResponseWriter, q *dns.Msg) {
		reached.Add(1)
		saying("192.0.2.2")(w, q)
	})
	opened(t, new(directory).say(neighbours()), s, "one", resolver.Upstream{Servers: []resolver.Server{{Addr: here, Host: true}}, Closed: true})
	for _, kind := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypePTR, dns.TypeANY, dns.TypeHTTPS} {
		for _, network := range []string{"udp", "tcp"} {
			if m := s.ask(t, network, question("secret.example.com.", kind)); m.Rcode != dns.RcodeServerFailure {
				t.Errorf("%v", m)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d questions got out", n)
	}
}

// TestFromWhere: servers that the user names are asked as the container's own
// programs would ask them.
func TestFromWhere(t *testing.T) {
	inside, outside := wired(t)
	var from atomic.Pointer[string]
	server := upstream(t, outside, "10.77.0.1:53", func(w dns.ResponseWriter, q *dns.Msg) {
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		from.Store(&host)
		saying("192.0.2.1")(w, q)
	})
	opened(t, new(directory).say(neighbours()), inside, "one", resolver.Upstream{Servers: []resolver.Server{{Addr: server}}})
	for _, network := range []string{"udp", "tcp"} {
		inside.ask(t, network, question("example.com.", dns.TypeA))
		if got := from.Load(); got == nil || *got != "10.77.0.2" {
			t.Errorf("asked by %v", got)
		}
	}
}

// TestRefusals: what is no question gets an answer that says so, or none.
func TestRefusals(t *testing.T) {
	s := newSpace(t)
	opened(t, new(directory).say(neighbours()), s, "one", resolver.Upstream{})
	two := question("web2.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	notify := question("web2.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	version := question("web2.", dns.TypeA)
	version.SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	for _, c := range []struct {
		m    *dns.Msg
		want int
	}{
		{two, dns.RcodeFormatError}, {notify, dns.RcodeNotImplemented}, {version, dns.RcodeBadVers},
		{question("web2.", dns.TypeAXFR), dns.RcodeRefused}, {question("web2.", dns.TypeIXFR), dns.RcodeRefused},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if m := s.ask(t, network, c.m); m.Rcode != c.want || m.Id != c.m.Id {
				t.Errorf("%v: %s, not %s", c.m.Question, dns.RcodeToString[m.Rcode], dns.RcodeToString[c.want])
			}
		}
	}
	conn, err := s.dial("udp", "127.0.0.11:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := question("web2.", dns.TypeA)
	answer.Response = true
	reply, _ := answer.Pack()
	cut, _ := question("web2.", dns.TypeA).Pack()
	for _, b := range [][]byte{{}, {1, 2, 3}, reply, make([]byte, 60000), cut[:len(cut)-3]} {
		if err := link.Within(s.File, func() error { _, err := conn.Write(b); return err }); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	m := new(dns.Msg)
	if err != nil || m.Unpack(buf[:n]) != nil || m.Rcode != dns.RcodeFormatError || m.Id != uint16(cut[0])<<8|uint16(cut[1]) {
		t.Errorf("the only one that is answered is the one that is cut off: %x, %v", buf[:n], err)
	}
}
