package network_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fief/internal/kernel/link/linktest"
	"fief/internal/testenv"
)

// inquiry is a question and what its answer must say.
type inquiry struct {
	what    string
	packed  []byte
	rcode   int
	answers uint16
	cut     bool // by datagram; all of it is had by TCP
}

func inquiries(t *testing.T, peer string) (out []inquiry) {
	t.Helper()
	reverse, err := dns.ReverseAddr(peer)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		what, name string
		kind       uint16
		inquiry
	}{
		{"a container", "peer.", dns.TypeA, inquiry{answers: 1}},
		{"a container, IPv6", "peer.", dns.TypeAAAA, inquiry{}},
		{"a container's address", reverse, dns.TypePTR, inquiry{answers: 1}},
		{"the world", "host.example.", dns.TypeA, inquiry{answers: 1}},
		{"nobody", "nobody.example.", dns.TypeA, inquiry{rcode: dns.RcodeNameError}},
		{"much", "much.example.", dns.TypeTXT, inquiry{cut: true}},
	} {
		m := new(dns.Msg)
		m.SetQuestion(q.name, q.kind)
		q.inquiry.what = q.what
		if q.inquiry.packed, err = m.Pack(); err != nil {
			t.Fatal(err)
		}
		out = append(out, q.inquiry)
	}
	return out
}

// ask sends a question and checks the answer to it; others on the way are of
// questions given up before, which there are none of.
func (q inquiry) ask(c net.Conn, id uint16, buf []byte) error {
	binary.BigEndian.PutUint16(q.packed, id)
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(q.packed); err != nil {
		return err
	}
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	return q.check(buf[:n], id)
}

func (q inquiry) check(m []byte, id uint16) error {
	if len(m) < 12 || binary.BigEndian.Uint16(m) != id || m[2]&0x80 == 0 {
		return fmt.Errorf("%s: answered with %x", q.what, m)
	}
	if rcode, cut, n := int(m[3]&15), m[2]&2 != 0, binary.BigEndian.Uint16(m[6:]); rcode != q.rcode || cut != q.cut || !cut && n != q.answers {
		return fmt.Errorf("%s: code %d, cut %v, %d answers", q.what, rcode, cut, n)
	}
	return nil
}

// askStream asks by TCP, where an answer is whole.
func (q inquiry) askStream(s linktest.Space, id uint16) error {
	var c net.Conn
	if err := s.Do(func() (err error) { c, err = net.DialTimeout("tcp4", "127.0.0.11:53", time.Minute); return err }); err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	packed := append([]byte{}, q.packed...)
	binary.BigEndian.PutUint16(packed, id)
	stream := &dns.Conn{Conn: c}
	if _, err := stream.Write(packed); err != nil {
		return err
	}
	m, err := stream.ReadMsg()
	if err != nil {
		return err
	}
	if q.cut && (m.Truncated || len(m.Answer) < 2) {
		return fmt.Errorf("%s by TCP: cut %v, %d answers", q.what, m.Truncated, len(m.Answer))
	}
	return nil
}

// upstreams answers for the world by both protocols.
func upstreams(t *testing.T, s linktest.Space) {
	t.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	if err := s.Do(func() (err error) {
		if udp, err = net.ListenPacket("udp4", ":53"); err == nil {
			tcp, err = net.Listen("tcp4", ":53")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}
		switch name := q.Question[0].Name; {
		case strings.HasPrefix(name, "nobody."):
			m.Rcode = dns.RcodeNameError
		case strings.HasPrefix(name, "much.") && w.LocalAddr().Network() == "udp":
			m.Truncated = true
		case strings.HasPrefix(name, "much."):
			for range 50 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{strings.Repeat("x", 200)}})
			}
		default:
			m.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(192, 0, 2, 53)}}
		}
		w.WriteMsg(m)
	})
	go (&dns.Server{PacketConn: udp, Handler: handler}).ActivateAndServe()
	go (&dns.Server{Listener: tcp, Handler: handler}).ActivateAndServe()
}

// setting is a number that the environment may raise.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// TestNamesUnderLoad: containers ask for names of all kinds at a steady rate, with
// garbage between; every question is answered, and nothing of the daemon grows. A
// client waits for each answer before it asks again, so that a machine that cannot
// do the rate is asked more slowly.
func TestNamesUnderLoad(t *testing.T) {
	seconds, rate := setting("FIEF_DNS_SECONDS", 3), setting("FIEF_DNS_RATE", 5000)
	d := start(t)
	out := world(t)
	upstreams(t, out)
	d.Must(t, "network", "create", "mine")
	d.Must(t, "run", "-d", "--name", "peer", "--network", "mine", "host", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "web", "--network", "mine", "host", "sleep", "1000")
	var from []linktest.Space
	for i := range 4 {
		name := "c" + strconv.Itoa(i)
		d.Must(t, "run", "-d", "--name", name, "--network", "mine", "--dns", "192.0.2.2", "host", "sleep", "1000")
		from = append(from, space(t, d, name))
	}
	peer := ip(t, d, "peer", "mine")
	before, idle := holdings(t, d), spent(t, d)
	const clients = 48
	var all sync.WaitGroup
	var answered, streams, most atomic.Int64
	begun := time.Now()
	end := begun.Add(time.Duration(seconds) * time.Second)
	every := time.Duration(clients) * time.Second / time.Duration(rate)
	for i := range clients {
		all.Go(func() {
			if err := asking(t, from[i%len(from)], inquiries(t, peer), i, every, end, &answered, &streams, &most); err != nil {
				t.Error(err)
			}
		})
	}
	during := before
	for time.Now().Before(end) {
		time.Sleep(time.Second)
		h := holdings(t, d)
		during.threads, during.memory, during.descriptors = max(during.threads, h.threads), max(during.memory, h.memory), max(during.descriptors, h.descriptors)
	}
	all.Wait()
	took := time.Since(begun)
	used := spent(t, d) - idle
	n := answered.Load()
	t.Logf("%d answers in %v: %.0f/s, %d by TCP, the slowest %v; the daemon used %v of processor, %v for each", n, took.Round(time.Millisecond),
		float64(n)/took.Seconds(), streams.Load(), time.Duration(most.Load()), used, used/time.Duration(max(n, 1)))
	t.Logf("before %+v, most %+v", before, during)
	if n < int64(clients*6) {
		t.Errorf("%d answers", n)
	}
	// A question that is on its way to others has a descriptor, a connection another.
	if during.memory > before.memory+64<<10 || during.threads > before.threads+16 || during.descriptors > before.descriptors+clients*3 {
		t.Errorf("before %+v, most %+v", before, during)
	}
	for limit := time.Now().Add(time.Minute); descriptors(t, d) > before.descriptors+20; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d descriptors, %d before", descriptors(t, d), before.descriptors)
		}
	}
	d.Must(t, "rm", "-f", "peer", "web", "c0", "c1", "c2", "c3")
	d.Must(t, "network", "rm", "mine")
}

// asking is one client, which asks at most once in every interval.
func asking(t *testing.T, s linktest.Space, list []inquiry, first int, every time.Duration, end time.Time, answered, streams, most *atomic.Int64) error {
	var c net.Conn
	if err := s.Do(func() (err error) { c, err = net.Dial("udp4", "127.0.0.11:53"); return err }); err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 4096)
	next := time.Now()
	for i := first; time.Now().Before(end); i++ {
		if wait := time.Until(next); wait > 0 {
			time.Sleep(wait)
		}
		next = next.Add(every)
		if now := time.Now(); next.Before(now) {
			next = now
		}
		q, id, from := list[i%len(list)], uint16(i*31+first), time.Now()
		err := error(nil)
		switch {
		case i%97 == 0:
			streams.Add(1)
			err = q.askStream(s, id)
		case i%50 == 0:
			if err = garbage(s); err == nil {
				err = q.ask(c, id, buf)
			}
		default:
			err = q.ask(c, id, buf)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s, after %v", q.what, time.Since(from)), err)
		}
		answered.Add(1)
		if d := int64(time.Since(from)); d > most.Load() {
			most.Store(d)
		}
	}
	return nil
}

// garbage sends what is no question, which nobody has to answer.
func garbage(s linktest.Space) error {
	var c net.Conn
	if err := s.Do(func() (err error) { c, err = net.Dial("udp4", "127.0.0.11:53"); return err }); err != nil {
		return err
	}
	defer c.Close()
	for _, b := range [][]byte{{0}, []byte(strings.Repeat("\xff", 600)), {0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1}} {
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// spent is the processor time that the daemon has used (proc_pid_stat(5), in
// hundredths of a second).
func spent(t *testing.T, d *testenv.Daemon) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(d.PID()) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
