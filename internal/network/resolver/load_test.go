package resolver_test

import (
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"fief/internal/network/resolver"
)

// TestManyClients: 2,000 questions of 50 clients at once, half of which others
// must be asked, are all answered, and nothing is left of them.
func TestManyClients(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("clients", func(t *testing.T) {
		inside, outside := wired(t)
		server := resolver.Server{Addr: upstream(t, outside, "10.77.0.1:53", saying("192.0.2.1"))}
		opened(t, new(directory).say(neighbours()), inside, "one", resolver.Upstream{Servers: []resolver.Server{server}})
		var all sync.WaitGroup
		var answered atomic.Int32
		for i := range 50 {
			all.Go(func() {
				network := "udp"
				if i%10 == 9 {
					network = "tcp"
				}
				conn, err := inside.dial(network, "127.0.0.11:53")
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				for j := range 40 {
					name, want := "web2.", "10.77.0.4"
					if j%2 == 0 {
						name, want = "h"+strconv.Itoa(j)+".example.com.", "192.0.2.1"
					}
					m, err := asked(conn, network, name)
					if err != nil || addresses(m) != want {
						t.Errorf("%s: %v, %v", name, m, err)
						return
					}
					answered.Add(1)
				}
			})
		}
		all.Wait()
		if n := answered.Load(); n != 2000 {
			t.Errorf("%d are answered", n)
		}
	})
}

// asked asks for an address, by datagram again when it is lost, as every client
// does.
func asked(conn net.Conn, network, name string) (m *dns.Msg, err error) {
	for range 5 {
		c := &dns.Client{Net: network, Timeout: time.Minute}
		if m, _, err = c.ExchangeWithConn(question(name, dns.TypeA), &dns.Conn{Conn: conn}); err == nil || network == "tcp" {
			break
		}
	}
	return m, err
}

// BenchmarkQuestions is 20 containers that ask for each other's names.
func BenchmarkQuestions(b *testing.B) {
	hosts := map[string][]resolver.Host{}
	for i := range 20 {
		for j := range 20 {
			n := strconv.Itoa(j)
			hosts["c"+strconv.Itoa(i)] = append(hosts["c"+strconv.Itoa(i)], resolver.Host{Network: "n", Names: []string{"c" + n, "alias" + n}, Addrs: addrs("10.77.0." + n)})
		}
	}
	r := resolver.New(new(directory).say(hosts), slog.New(slog.DiscardHandler))
	defer r.Shutdown()
	var conns []net.Conn
	for i := range 20 {
		s := newSpace(b)
		open(b, r, s, "c"+strconv.Itoa(i), resolver.Upstream{})
		conn, err := s.dial("udp", "127.0.0.11:53")
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			for range b.N / len(conns) {
				if _, err := asked(conn, "udp", "alias"+strconv.Itoa(i)+"."); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkForwards is one container that asks for names of the world.
func BenchmarkForwards(b *testing.B) {
	inside, outside := wired(b)
	server := resolver.Server{Addr: upstream(b, outside, "10.77.0.1:53", saying("192.0.2.1"))}
	opened(b, new(directory).say(neighbours()), inside, "one", resolver.Upstream{Servers: []resolver.Server{server}})
	conn, err := inside.dial("udp", "127.0.0.11:53")
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for b.Loop() {
		if _, err := asked(conn, "udp", "example.com."); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPrepare is what a resolver costs at the start of a container, in a
// namespace that has none yet, and what opening and closing it does.
func BenchmarkPrepare(b *testing.B) {
	r := resolver.New(new(directory).say(neighbours()), slog.New(slog.DiscardHandler))
	defer r.Shutdown()
	var opening, closing time.Duration
	for b.Loop() {
		b.StopTimer()
		s := newSpace(b)
		b.StartTimer()
		sockets, err := resolver.Prepare(s.File, "one")
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		at := time.Now()
		if err := r.Open("one", s.File, sockets, resolver.Upstream{}); err != nil {
			b.Fatal(err)
		}
		opening += time.Since(at)
		at = time.Now()
		r.Close("one")
		closing += time.Since(at)
		s.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(opening.Microseconds())/float64(b.N), "µs-open")
	b.ReportMetric(float64(closing.Microseconds())/float64(b.N), "µs-close")
}
