package network_test

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"fief/internal/kernel/link/linktest"
	"fief/internal/network/resolver"
	"fief/internal/testenv"
)

// lookup asks the name server of a container that runs.
func lookup(t *testing.T, d *testenv.Daemon, from, name string) string {
	t.Helper()
	out, said, _ := d.Fief(t, "exec", from, "busybox", "nslookup", name)
	return out + said
}

// TestResolver: containers of a network that a user makes find each other by name,
// alias, short id and host name, the first program of one as soon as it runs;
// those of other networks are nobody.
func TestResolver(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "a")
	d.Must(t, "network", "create", "b")
	id := d.Must(t, "run", "-d", "--name", "one", "--network", "a", "--network-alias", "web", "--hostname", "first", "host", "sleep", "1000")
	at := ip(t, d, "one", "a")
	for _, name := range []string{"one", "web", "WEB", id[:12], "first", "one.a"} {
		if out := d.Must(t, "run", "--rm", "--network", "a", "host", "busybox", "nslookup", name); !strings.Contains(out, at) {
			t.Errorf("%s: %s", name, out)
		}
	}
	if out := d.Must(t, "run", "--rm", "--network", "a", "host", "busybox", "ping", "-c", "1", "-W", "10", "web"); !strings.Contains(out, "1 packets received") {
		t.Errorf("ping: %s", out)
	}
	d.Must(t, "run", "-d", "--name", "two", "--network", "a", "host", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "far", "--network", "b", "host", "sleep", "1000")
	if out := lookup(t, d, "one", at); !strings.Contains(out, "one.a") {
		t.Errorf("%s: %s", at, out)
	}
	if out := lookup(t, d, "far", "one"); strings.Contains(out, at) {
		t.Errorf("from another network: %s", out)
	}
	d.Must(t, "network", "connect", "--alias", "late", "b", "two")
	left := ip(t, d, "two", "b")
	if out := lookup(t, d, "far", "late"); !strings.Contains(out, left) {
		t.Errorf("late: %s, not %s", out, left)
	}
	d.Must(t, "network", "disconnect", "b", "two")
	if out := lookup(t, d, "far", "late"); strings.Contains(out, left) {
		t.Errorf("it has left: %s", out)
	}
	d.Must(t, "rename", "one", "other")
	if out := lookup(t, d, "two", "other"); !strings.Contains(out, at) {
		t.Errorf("renamed: %s", out)
	}
	d.Must(t, "rm", "-f", "other")
	if out := lookup(t, d, "two", "web"); strings.Contains(out, at) {
		t.Errorf("it has ended: %s", out)
	}
	if _, err := exec.LookPath("docker"); err == nil {
		out, said, _ := testenv.Output(t, d.Command(t, "docker", "run", "--rm", "--network", "a", "--network-alias", "me", "host", "busybox", "ping", "-c", "1", "-W", "10", "two"))
		if !strings.Contains(out, "1 packets received") {
			t.Errorf("docker: %s%s", out, said)
		}
	}
	d.Must(t, "rm", "-f", "two", "far")
	d.Must(t, "network", "rm", "a", "b")
	held(t, d)
}

// held looks that the daemon has no descriptor of a network namespace left, nor
// sockets in which others could arrive.
func held(t *testing.T, d *testenv.Daemon) {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(d.PID()) + "/fd"
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var left []string
		fds, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, _ := os.Readlink(dir + "/" + fd.Name()); strings.HasPrefix(to, "net:[") {
				left = append(left, to)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("the daemon holds %v", left)
			return
		}
	}
}

// TestResolverAgain: the next daemon answers who runs, and who was connected late.
func TestResolverAgain(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "a")
	d.Must(t, "run", "-d", "--name", "one", "--network", "a", "host", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "two", "--network", "a", "host", "sleep", "1000")
	d.Kill(t)
	d.Up(t)
	if out, want := lookup(t, d, "one", "two"), ip(t, d, "two", "a"); !strings.Contains(out, want) {
		t.Errorf("%s, not %s", out, want)
	}
	if out := d.Must(t, "exec", "one", "cat", "/etc/resolv.conf"); !strings.Contains(out, "nameserver "+resolver.Address.String()+"\n") || !strings.Contains(out, "ndots:0") {
		t.Errorf("resolv.conf: %s", out)
	}
	d.Must(t, "run", "-d", "--name", "late", "host", "sleep", "1000")
	before := d.Must(t, "exec", "late", "cat", "/etc/resolv.conf")
	d.Must(t, "network", "connect", "a", "late")
	if out, want := lookup(t, d, "late", "two"), ip(t, d, "two", "a"); !strings.Contains(out, want) {
		t.Errorf("connected late: %s, not %s", out, want)
	}
	d.Must(t, "network", "disconnect", "a", "late")
	if after := d.Must(t, "exec", "late", "cat", "/etc/resolv.conf"); after != before {
		t.Errorf("resolv.conf was %s and is %s", before, after)
	}
	d.Must(t, "network", "connect", "a", "late")
	d.Must(t, "exec", "late", "sh", "-c", "echo '# mine' >> /etc/resolv.conf")
	d.Must(t, "network", "disconnect", "a", "late")
	if after := d.Must(t, "exec", "late", "cat", "/etc/resolv.conf"); !strings.Contains(after, "# mine") {
		t.Errorf("resolv.conf was changed: %s", after)
	}
	d.Must(t, "rm", "-f", "one", "two", "late")
	d.Must(t, "network", "rm", "a")
}

// TestResolverLeadsOut: others' names are asked for by the servers that the user
// names, from where the container is: not where its networks lead nowhere.
func TestResolverLeadsOut(t *testing.T) {
	d := start(t)
	nameServer(t, world(t))
	d.Must(t, "network", "create", "a")
	d.Must(t, "network", "create", "--internal", "shut")
	d.Must(t, "run", "-d", "--name", "db", "--network", "shut", "host", "sleep", "1000")
	if out := d.Must(t, "run", "--rm", "--network", "a", "--dns", "192.0.2.2", "host", "busybox", "nslookup", "example.com"); !strings.Contains(out, "192.0.2.53") {
		t.Errorf("%s", out)
	}
	out := d.Must(t, "run", "--rm", "--network", "shut", "--dns", "192.0.2.2", "host", "sh", "-c", "busybox nslookup example.com; busybox nslookup db")
	if strings.Contains(out, "192.0.2.53") || !strings.Contains(out, ip(t, d, "db", "shut")) {
		t.Errorf("on a network that leads nowhere: %s", out)
	}
	d.Must(t, "rm", "-f", "db")
	d.Must(t, "network", "rm", "a", "shut")
}

// nameServer says in a namespace that every name is 192.0.2.53.
func nameServer(t *testing.T, s linktest.Space) {
	t.Helper()
	var c net.PacketConn
	if err := s.Do(func() (err error) { c, err = net.ListenPacket("udp4", ":53"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			rr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}
			m.Answer = []dns.RR{&dns.A{Hdr: rr, A: net.IPv4(192, 0, 2, 53)}}
		}
		w.WriteMsg(m)
	})}
	go server.ActivateAndServe()
}
