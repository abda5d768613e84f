package network_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"fief/internal/kernel/link/linktest"
	"fief/internal/testenv"
)

// TestResolvFollowed: a container that runs asks the servers that the host's
// resolv.conf names now, and one with servers of its own goes on asking those.
func TestResolvFollowed(t *testing.T) {
	testenv.NeedRoot(t)
	linktest.Alone(t)
	for address, answer := range map[string]string{"127.0.0.70:53": "192.0.2.70", "127.0.0.71:53": "192.0.2.71"} {
		up := make(chan struct{})
		s := &dns.Server{Addr: address, Net: "udp", NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			if q.Question[0].Qtype == dns.TypeA {
				rr, _ := dns.NewRR(q.Question[0].Name + " 1 IN A " + answer)
				m.Answer = append(m.Answer, rr)
			}
			w.WriteMsg(m)
		})}
		go s.ListenAndServe()
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(server string) {
		if err := os.WriteFile(file, []byte("nameserver "+server+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("127.0.0.70")
	d := testenv.StartWrapped(t, []string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}, "--pool-size", "0")
	d.Must(t, "network", "create", "mine")
	d.Must(t, "run", "-d", "--name", "aa", "--network", "mine", "host", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "own", "--network", "mine", "--dns", "127.0.0.99", "host", "sleep", "1000")
	if got := lookup(t, d, "aa", "somewhere.example"); !strings.Contains(got, "192.0.2.70") {
		t.Errorf("before: %s", got)
	}
	write("127.0.0.71")
	var got string
	eventually(t, func() bool {
		got = lookup(t, d, "aa", "somewhere.example")
		return strings.Contains(got, "192.0.2.71")
	}, func() string { return "after: " + got })
	if got := lookup(t, d, "own", "somewhere.example"); strings.Contains(got, "192.0.2.7") {
		t.Errorf("a container with a server of its own: %s", got)
	}
	d.Must(t, "rm", "-f", "aa", "own")
	d.Must(t, "network", "rm", "mine")
}
