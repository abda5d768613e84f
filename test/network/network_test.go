// Package network_test sends packets between containers, networks, the host
// and the world, through the real daemon.
package network_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/kernel/link/linktest"
	"fief/internal/kernel/nft"
	"fief/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(linktest.Main(m)) }

// start starts a daemon in a network namespace of the test's own, and looks
// afterwards that nothing of its networks is left in it.
func start(t *testing.T, args ...string) *testenv.Daemon {
	t.Helper()
	testenv.NeedRoot(t)
	linktest.Alone(t)
	t.Cleanup(func() { // after the daemon's own end
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			left := linktest.Left(t)
			tables := tables(t)
			if left == "" && len(tables) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Errorf("left behind: device %q, tables %q", left, tables)
				link.Delete(left)
				return
			}
		}
	})
	return testenv.Start(t, append([]string{"--pool-size", "0"}, args...)...)
}

// space is the network namespace of a container that runs.
func space(t *testing.T, d *testenv.Daemon, name string) linktest.Space {
	t.Helper()
	f, err := os.Open("/proc/" + d.Must(t, "inspect", "-f", "{{.State.Pid}}", name) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return linktest.Space{File: f}
}

// run starts a container that sleeps, and a server on port 80 of its network.
func run(t *testing.T, d *testenv.Daemon, name string, flags ...string) linktest.Space {
	t.Helper()
	d.Must(t, append(append([]string{"run", "-d", "--name", name}, flags...), "host", "sleep", "1000")...)
	s := space(t, d, name)
	s.Serve(t, "80")
	return s
}

// ip is a container's address on a network.
func ip(t *testing.T, d *testenv.Daemon, name, network string) string {
	t.Helper()
	return d.Must(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, name)
}

func ip6(t *testing.T, d *testenv.Daemon, name, network string) string {
	t.Helper()
	return d.Must(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").GlobalIPv6Address}}`, name)
}

// world is a host beyond the daemon's, 192.0.2.2, to which the daemon's is
// 192.0.2.1.
func world(t *testing.T) linktest.Space {
	t.Helper()
	addr := func(s string) link.Addr {
		p := netip.MustParsePrefix(s)
		return link.Addr{IP: p.Addr().AsSlice(), Bits: uint8(p.Bits())}
	}
	b := link.Bridge{Name: "outside0", MAC: [6]byte{2, 9}, Addrs: []link.Addr{addr("192.0.2.1/24"), addr("2001:db8::1/64")}}
	index, err := b.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { link.Delete(b.Name) })
	s := linktest.New(t)
	var w link.Wiring
	w.Connect(link.Port{Host: "outside1", Master: index, Name: "eth0", Addrs: []link.Addr{addr("192.0.2.2/24"), addr("2001:db8::2/64")},
		Routes: []link.Route{{Via: []byte{192, 0, 2, 1}}, {Via: netip.MustParseAddr("2001:db8::1").AsSlice()}}})
	if err := w.Apply(s.File); err != nil {
		t.Fatal(err)
	}
	return s
}

// reach checks who is seen by a server; empty: it must not be reached.
func reach(t *testing.T, what string, ask func(string) (string, error), to, want string) {
	t.Helper()
	got, err := ask(to)
	if (err == nil) != (want != "") || want != "any" && got != want {
		t.Errorf("%s: %s sees %q, %v; want %q", what, to, got, err, want)
	}
}

// TestMatrix: who reaches whom.
func TestMatrix(t *testing.T) {
	d := start(t)
	out := world(t)
	out.Serve(t, "80")
	d.Must(t, "network", "create", "--ipv6", "one")
	d.Must(t, "network", "create", "two")
	d.Must(t, "network", "create", "--internal", "shut")
	d.Must(t, "network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart")
	a, b := run(t, d, "aa", "--network", "one", "-p", "8080:80"), run(t, d, "bb", "--network", "one")
	c := run(t, d, "cc", "--network", "two")
	both := run(t, d, "both", "--network", "one", "--network", "two")
	s1, s2 := run(t, d, "s1", "--network", "shut"), run(t, d, "s2", "--network", "shut")
	p1, p2 := run(t, d, "p1", "--network", "apart"), run(t, d, "p2", "--network", "apart")
	dflt := run(t, d, "dflt")
	at := func(name, network string) string { return net.JoinHostPort(ip(t, d, name, network), "80") }
	gw := func(network string) string {
		return d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network)
	}

	reach(t, "same network", a.Ask, at("bb", "one"), ip(t, d, "aa", "one"))
	reach(t, "same network, IPv6", a.Ask, net.JoinHostPort(ip6(t, d, "bb", "one"), "80"), ip6(t, d, "aa", "one"))
	reach(t, "other network", a.Ask, at("cc", "two"), "")
	reach(t, "other network, back", c.Ask, at("aa", "one"), "")
	reach(t, "from the default network", dflt.Ask, at("aa", "one"), "")
	reach(t, "of two networks, the first", b.Ask, at("both", "one"), ip(t, d, "bb", "one"))
	reach(t, "of two networks, the second", c.Ask, at("both", "two"), ip(t, d, "cc", "two"))
	reach(t, "on both", both.Ask, at("cc", "two"), ip(t, d, "both", "two"))
	reach(t, "internal, inside", s1.Ask, at("s2", "shut"), ip(t, d, "s1", "shut"))
	reach(t, "internal, out", s2.Ask, "192.0.2.2:80", "")
	reach(t, "into internal", a.Ask, at("s1", "shut"), "")
	reach(t, "apart", p1.Ask, at("p2", "apart"), "")
	reach(t, "apart, out", p2.Ask, "192.0.2.2:80", "192.0.2.1")
	reach(t, "out", dflt.Ask, "192.0.2.2:80", "192.0.2.1")
	reach(t, "out, IPv6", a.Ask, "[2001:db8::2]:80", "2001:db8::1")
	reach(t, "in, not published", out.Ask, at("aa", "one"), "")
	reach(t, "in, published", out.Ask, "192.0.2.1:8080", "192.0.2.2")
	reach(t, "in, published, IPv6", out.Ask, "[2001:db8::1]:8080", "2001:db8::2")
	reach(t, "published, from the host", linktest.Ask, "127.0.0.1:8080", gw("one"))
	reach(t, "published, from the host's ::1", linktest.Ask, "[::1]:8080", "any")
	reach(t, "published, from another network", c.Ask, gw("two")+":8080", "any")
	reach(t, "published, from itself", a.Ask, gw("one")+":8080", "any")
	for _, name := range []string{"aa", "bb", "cc", "both", "s1", "s2", "p1", "p2", "dflt"} {
		d.Must(t, "rm", "-f", name)
	}
	if got := d.Must(t, "network", "prune", "-f"); got != "Deleted Networks:\napart\none\nshut\ntwo\n" {
		t.Errorf("prune: %q", got)
	}
}

// TestPublish: forms of -p, and ports that cannot be had.
func TestPublish(t *testing.T) {
	d := start(t)
	out := world(t)
	run(t, d, "web", "-p", "80", "-p", "127.0.0.1:8081:80", "-p", "192.0.2.1:8082:80", "-p", "[::1]:8083:80", "-p", "9000-9010:80", "-p", "8100-8102:100-102/udp")
	ports := d.Must(t, "port", "web")
	for _, want := range []string{"80/tcp -> 127.0.0.1:8081", "80/tcp -> 192.0.2.1:8082", "80/tcp -> [::1]:8083", "80/tcp -> 0.0.0.0:9000", "102/udp -> 0.0.0.0:8102"} {
		if !strings.Contains(ports, want+"\n") && !strings.HasSuffix(ports, want) {
			t.Errorf("no %s in\n%s", want, ports)
		}
	}
	reach(t, "loopback", linktest.Ask, "127.0.0.1:8081", "any")
	reach(t, "loopback, from outside", out.Ask, "192.0.2.1:8081", "")
	reach(t, "one address", out.Ask, "192.0.2.1:8082", "192.0.2.2")
	reach(t, "::1", linktest.Ask, "[::1]:8083", "any")
	reach(t, "of a range", out.Ask, "192.0.2.1:9000", "192.0.2.2")
	any := strings.TrimPrefix(strings.SplitN(d.Must(t, "port", "web", "80"), "\n", 2)[0], "0.0.0.0:")
	if n, err := strconv.Atoi(any); err != nil || n < 1024 {
		t.Errorf("any port is %q", any)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		_, errs, code := d.Fief(t, append([]string{"run", "--rm"}, append(args, "host", "true")...)...)
		if code != 125 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
	refused("Bind for 0.0.0.0:8081 failed: port is already allocated", "-p", "8081:80", "-p", "127.0.0.1:8081:81")
	refused("port is already allocated", "-p", "0.0.0.0:9000:80")
	l, err := net.Listen("tcp4", "0.0.0.0:8200")
	if err != nil {
		t.Fatal(err)
	}
	refused("address already in use", "-p", "8200:80")
	l.Close()
	d.Must(t, "run", "--rm", "-p", "8200:80", "host", "true")
	d.Must(t, "run", "--rm", "-p", "8200:80", "host", "true")
	if l, err = net.Listen("tcp4", "127.0.0.1:8081"); err == nil {
		l.Close()
		t.Error("a program of the host gets a port that a container has")
	}
	d.Must(t, "run", "-d", "--name", "all", "-P", "--expose", "7000-7001", "--expose", "53/udp", "host", "sleep", "1000")
	if n := len(strings.Split(d.Must(t, "port", "all"), "\n")); n != 6 { // on two families
		t.Errorf("%d ports of -P:\n%s", n, d.Must(t, "port", "all"))
	}
	if got := d.Must(t, "ps", "--filter", "expose=7000", "--format", "{{.Names}}"); got != "all" {
		t.Errorf("ps --filter expose: %q", got)
	}
	if got := d.Must(t, "ps", "--filter", "publish=8082", "--format", "{{.Names}}"); got != "web" {
		t.Errorf("ps --filter publish: %q", got)
	}
}

// TestManyPorts: 500 ports are published, no program of the host gets one in
// either family, and they are given back.
func TestManyPorts(t *testing.T) {
	d := start(t)
	d.Must(t, "run", "--rm", "host", "true")
	before := descriptors(t, d)
	run(t, d, "web", "-p", "20000-20497:1000-1497", "-p", "20498:80/udp", "-p", "20499:80")
	reach(t, "the last", linktest.Ask, "127.0.0.1:20499", "any")
	reach(t, "the last, of the host's ::1", linktest.Ask, "[::1]:20499", "any")
	if got := d.Must(t, "ps", "--format", "{{.Ports}}"); got != "0.0.0.0:20499->80/tcp, 0.0.0.0:20000-20497->1000-1497/tcp, [::]:20499->80/tcp, [::]:20000-20497->1000-1497/tcp, 0.0.0.0:20498->80/udp, [::]:20498->80/udp" {
		t.Errorf("ps: %q", got)
	}
	for port := 20000; port < 20500; port++ {
		for network, ip := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1"} {
			if l, err := net.Listen(network, net.JoinHostPort(ip, strconv.Itoa(port))); err == nil && port != 20498 {
				t.Errorf("a program of the host gets port %d of %s", port, network)
				l.Close()
			} else if err == nil {
				l.Close()
			}
		}
	}
	if l, err := net.ListenPacket("udp4", "127.0.0.1:20498"); err == nil {
		t.Error("a program of the host gets a port of UDP")
		l.Close()
	}
	d.Must(t, "rm", "-f", "web")
	reach(t, "after its end", linktest.Ask, "127.0.0.1:20499", "")
	d.Must(t, "run", "--rm", "-p", "20000-20499:1000-1499", "host", "true")
	for end := time.Now().Add(time.Minute); descriptors(t, d) > before+20; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) { // those of what is kept ready come and go
			t.Fatalf("%d descriptors of the daemon, %d before", descriptors(t, d), before)
		}
	}
}

// descriptors is how many the daemon has open.
func descriptors(t *testing.T, d *testenv.Daemon) int {
	t.Helper()
	all, err := os.ReadDir("/proc/" + strconv.Itoa(d.PID()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestFlush: rules that somebody removes are made again, and what was
// connected goes on.
func TestFlush(t *testing.T) {
	d := start(t)
	out := world(t)
	run(t, d, "web", "-p", "8080:80")
	for _, name := range tables(t) {
		if err := nft.Table(name).Drop(); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if len(tables(t)) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the rules are not made again:\n%s", d.Log())
		}
	}
	reach(t, "published, after a flush", out.Ask, "192.0.2.1:8080", "192.0.2.2")
	reach(t, "not published, after a flush", out.Ask, net.JoinHostPort(ip(t, d, "web", "bridge"), "80"), "")
}

// TestConnect: a running container joins and leaves networks, over and over,
// and nothing is left.
func TestConnect(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.88.0.0/24", "more")
	run(t, d, "web")
	peer := run(t, d, "peer", "--network", "more")
	d.Must(t, "network", "connect", "--ip", "10.88.0.77", "--alias", "w", "more", "web")
	reach(t, "connected", peer.Ask, "10.88.0.77:80", ip(t, d, "peer", "more"))
	d.Must(t, "network", "disconnect", "more", "web")
	reach(t, "disconnected", peer.Ask, "10.88.0.77:80", "")
	cycles := 100
	if n, err := strconv.Atoi(os.Getenv("FIEF_SOAK_CONNECTS")); err == nil {
		cycles = n
	}
	before := holdings(t, d)
	for range cycles {
		d.Must(t, "network", "connect", "more", "web")
		d.Must(t, "network", "disconnect", "more", "web")
	}
	after := holdings(t, d)
	t.Logf("before %d cycles: %+v, after: %+v", cycles, before, after)
	if after.devices != before.devices || after.inside != before.inside || after.elements != before.elements {
		t.Errorf("after %d cycles: %+v, before %+v", cycles, after, before)
	}
	// What is kept ready, and the runtime's threads, come and go.
	if after.descriptors > before.descriptors+20 || after.threads > before.threads+10 || after.record > before.record+100 || after.memory > before.memory+48<<10 {
		t.Errorf("after %d cycles: %+v, before %+v", cycles, after, before)
	}
	if got := ip(t, d, "peer", "more"); got != "10.88.0.2" {
		t.Errorf("peer has %s", got)
	}
	d.Must(t, "network", "connect", "more", "web")
	if got := ip(t, d, "web", "more"); got != "10.88.0.3" {
		t.Errorf("after 100 times the next free address is %s", got)
	}
	d.Must(t, "restart", "-t", "0", "web")
	if got := ip(t, d, "web", "more"); got != "10.88.0.3" {
		t.Errorf("after a restart it has %s", got)
	}
	d.Must(t, "rm", "-f", "web", "peer")
	d.Must(t, "network", "rm", "more")
}

// holding is what there is of a daemon and its networks.
type holding struct {
	devices, inside, elements    int // inside: lines about the container's devices
	descriptors, threads, memory int // of the daemon, KiB
	record                       int // bytes of the container's
}

func holdings(t *testing.T, d *testenv.Daemon) (h holding) {
	t.Helper()
	h.devices, h.descriptors = devices(t, "veth")+devices(t, "bridge"), descriptors(t, d)
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "web")
	out, err := exec.Command("nsenter", "-n", "-t", pid, "ip", "-o", "addr").Output()
	if err != nil {
		t.Fatal(err)
	}
	h.inside, h.elements = strings.Count(string(out), "\n"), elements(t)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(d.PID()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch f[0] {
		case "Threads:":
			h.threads, _ = strconv.Atoi(f[1])
		case "VmRSS:":
			h.memory, _ = strconv.Atoi(f[1])
		}
	}
	h.record = len(d.Must(t, "inspect", "web"))
	return h
}

// TestKilledDaemon: traffic does not notice that the daemon is gone, and the
// next one knows all there was.
func TestKilledDaemon(t *testing.T) {
	d := start(t)
	out := world(t)
	d.Must(t, "network", "create", "mine")
	web := run(t, d, "web", "--network", "mine", "-p", "8080:80")
	peer := run(t, d, "peer", "--network", "mine")
	through, err := dial(out, "192.0.2.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	between, err := dial(peer, net.JoinHostPort(ip(t, d, "web", "mine"), "80"))
	if err != nil {
		t.Fatal(err)
	}
	talk := func(when string) {
		t.Helper()
		for what, c := range map[string]net.Conn{"through the port": through, "between containers": between} {
			c.SetDeadline(time.Now().Add(time.Minute))
			text := []byte(when)
			if _, err := c.Write(text); err != nil {
				t.Errorf("%s, %s: %v", what, when, err)
			}
			if _, err := io.ReadFull(c, text); err != nil || string(text) != when {
				t.Errorf("%s, %s: %q, %v", what, when, text, err)
			}
		}
	}
	talk("before")
	address := ip(t, d, "web", "mine")
	d.Kill(t)
	talk("without a daemon")
	reach(t, "new connections without a daemon", out.Ask, "192.0.2.1:8080", "192.0.2.2")
	d.Up(t)
	talk("with the next one")
	if got := ip(t, d, "web", "mine"); got != address {
		t.Errorf("the next daemon says %s, not %s", got, address)
	}
	reach(t, "with the next one", out.Ask, "192.0.2.1:8080", "192.0.2.2")
	reach(t, "out, with the next one", web.Ask, net.JoinHostPort(ip(t, d, "peer", "mine"), "80"), address)
	if _, errs, code := d.Fief(t, "run", "--rm", "-p", "8080:80", "host", "true"); code != 125 || !strings.Contains(errs, "port is already allocated") {
		t.Errorf("the next daemon gives the port again: exit %d, %s", code, errs)
	}
	if _, errs, code := d.Fief(t, "network", "rm", "mine"); code != 1 || !strings.Contains(errs, "active endpoints") {
		t.Errorf("the next daemon removes the network: exit %d, %s", code, errs)
	}
	d.Must(t, "run", "--rm", "--network", "mine", "host", "true")
	through.Close()
	between.Close()
	d.Must(t, "rm", "-f", "web", "peer")
	d.Must(t, "network", "rm", "mine")
}

// dial connects from a namespace and reads the greeting.
func dial(s linktest.Space, to string) (c net.Conn, err error) {
	err = s.Do(func() (err error) { c, err = net.DialTimeout("tcp", to, time.Minute); return err })
	if err != nil {
		return nil, err
	}
	one := make([]byte, 1)
	for one[0] != '\n' {
		if _, err := c.Read(one); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// TestNames: the files of a container, and what is refused.
func TestNames(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.89.0.0/29", "small")
	run(t, d, "db")
	got := d.Must(t, "run", "--rm", "-h", "box", "--add-host", "up:host-gateway", "--add-host", "x:1.2.3.4", "--link", "db:data", "--dns", "9.9.9.9",
		"--dns-search", "example.org", "--dns-option", "ndots:2", "host", "cat", "/etc/hosts", "/etc/resolv.conf")
	gw := d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
	for _, want := range []string{gw + "\tup", "1.2.3.4\tx", ip(t, d, "db", "bridge") + "\tdata ", "\tbox", "nameserver 9.9.9.9", "search example.org", "options ndots:2"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for want, args := range map[string][]string{
		"network nowhere not found":                         {"run", "--rm", "--network", "nowhere", "host", "true"},
		"overlaps with other one":                           {"network", "create", "--subnet", "10.89.0.0/16", "x"},
		"network with name small already exists":            {"network", "create", "small"},
		"bridge is a pre-defined network":                   {"network", "rm", "bridge"},
		"operation is not permitted on predefined":          {"network", "create", "host"},
		"no configured subnet":                              {"run", "--rm", "--network", "small", "--ip", "10.90.0.1", "host", "true"},
		"supported on user defined networks only":           {"run", "--rm", "--ip", "10.90.0.1", "host", "true"},
		"could not find plugin overlay":                     {"network", "create", "-d", "overlay", "x"},
		"cannot be connected to multiple networks with one": {"run", "--rm", "--network", "small", "--network", "none", "host", "true"},
	} {
		if _, errs, code := d.Fief(t, args...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
	for i := range 5 { // .2 to .6
		d.Must(t, "run", "-d", "--name", "s"+strconv.Itoa(i), "--network", "small", "host", "sleep", "1000")
	}
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "small", "host", "true"); code != 125 || !strings.Contains(errs, "no available IPv4 addresses on this network's address pools: small") {
		t.Errorf("a full network: exit %d, %s", code, errs)
	}
	if got := ip(t, d, "s4", "small"); got != "10.89.0.6" {
		t.Errorf("the last is %s", got)
	}
	d.Must(t, "rm", "-f", "s0", "s1", "s2", "s3", "s4", "db")
	d.Must(t, "network", "rm", "small")
}

// TestFirewall: what another's table drops is said when a network is created.
func TestFirewall(t *testing.T) {
	d := start(t)
	drop(t)
	_, errs, code := d.Fief(t, "network", "create", "behind")
	if code != 0 || !strings.Contains(errs, "WARNING: the chain ip filter FORWARD") || !strings.Contains(errs, "iptables -I FORWARD") {
		t.Errorf("exit %d, %s", code, errs)
	}
	d.Must(t, "network", "rm", "behind")
}

// TestShared: a container that joins another's network uses its addresses, and
// the device goes when the last of them has ended.
func TestShared(t *testing.T) {
	d := start(t)
	run(t, d, "first")
	d.Must(t, "run", "-d", "--name", "second", "--network", "container:first", "host", "sleep", "1000")
	address := ip(t, d, "first", "bridge")
	if got := d.Must(t, "exec", "second", "cat", "/etc/hosts"); !strings.Contains(got, address+"\t") {
		t.Errorf("its hosts file:\n%s", got)
	}
	d.Must(t, "stop", "-t", "0", "first")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		all, err := link.Devices()
		if err != nil {
			t.Fatal(err)
		}
		left := fmt.Sprint(all)
		if !strings.Contains(left, "veth") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a device stays while another container has the namespace: %s", left)
		}
	}
	d.Must(t, "rm", "-f", "second", "first")
}

// TestTwoDaemons: each has its own default network and its own rules.
func TestTwoDaemons(t *testing.T) {
	one := start(t)
	a := run(t, one, "aa", "-p", "8080:80")
	two := testenv.Start(t, "--pool-size", "0")
	b := run(t, two, "bb", "-p", "8081:80")
	if x, y := ip(t, one, "aa", "bridge"), ip(t, two, "bb", "bridge"); x == y {
		t.Errorf("both containers have %s", x)
	}
	if len(tables(t)) != 2 {
		t.Errorf("tables %q", tables(t))
	}
	reach(t, "of the first", linktest.Ask, "127.0.0.1:8080", "any")
	reach(t, "of the second", linktest.Ask, "127.0.0.1:8081", "any")
	reach(t, "from one to the other", a.Ask, net.JoinHostPort(ip(t, two, "bb", "bridge"), "80"), "")
	reach(t, "and back", b.Ask, net.JoinHostPort(ip(t, one, "aa", "bridge"), "80"), "")
	two.Must(t, "rm", "-f", "bb")
	two.Stop(t)
	reach(t, "of the first, after the second", linktest.Ask, "127.0.0.1:8080", "any")
	two.Up(t)
}

// TestDaemonsAtOnce: daemons that make networks in the same moment each get a
// device and subnets of their own; one whose default network was not needed for a
// while finds its subnet taken, and takes another.
func TestDaemonsAtOnce(t *testing.T) {
	shared := []string{"--pool-size", "0", "--id-registry", t.TempDir()}
	daemons := []*testenv.Daemon{start(t, shared[2:]...)}
	for range 3 {
		daemons = append(daemons, testenv.Start(t, shared...))
	}
	together := func(do func(d *testenv.Daemon)) {
		var all sync.WaitGroup
		for _, d := range daemons {
			all.Go(func() { do(d) })
		}
		all.Wait()
	}
	together(func(d *testenv.Daemon) {
		for range 3 {
			if _, errs, code := d.Fief(t, "run", "--rm", "host", "true"); code != 0 {
				t.Errorf("%d: %s", code, errs)
			}
		}
	})
	together(func(d *testenv.Daemon) {
		for _, args := range [][]string{{"run", "-d", "--name", "aa", "host", "sleep", "1000"}, {"network", "create", "mine"}} {
			if _, errs, code := d.Fief(t, args...); code != 0 {
				t.Errorf("%v: %d: %s", args, code, errs)
			}
		}
	})
	seen := map[string]bool{}
	for _, d := range daemons {
		for _, name := range []string{"bridge", "mine"} {
			subnet := d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name)
			if seen[subnet] {
				t.Errorf("%s is the subnet of two networks", subnet)
			}
			seen[subnet] = true
		}
		if got := ip(t, d, "aa", "bridge"); got == "" {
			t.Error("a container without an address")
		}
	}
	for _, d := range daemons {
		d.Must(t, "rm", "-f", "aa")
		d.Must(t, "network", "rm", "mine")
	}
}

// TestLeftover: what a killed daemon left of its default network goes with the
// next one.
func TestLeftover(t *testing.T) {
	d := start(t)
	d.Must(t, "run", "--rm", "host", "true")
	d.Kill(t)
	if linktest.Left(t) == "" || len(tables(t)) != 1 {
		t.Error("the killed daemon has left nothing")
	}
	d.Up(t)
	d.Must(t, "run", "--rm", "host", "true")
}

// TestMacvlan: a container is on the network of a device of the host, under an
// address that its neighbours there see.
func TestMacvlan(t *testing.T) {
	d := start(t)
	out := world(t)
	out.Serve(t, "80")
	d.Must(t, "network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--ip-range", "192.0.2.64/28", "-o", "parent=outside0", "lan")
	c := run(t, d, "cc", "--network", "lan")
	if got := ip(t, d, "cc", "lan"); got != "192.0.2.64" {
		t.Errorf("it has %s", got)
	}
	reach(t, "from the neighbour", out.Ask, "192.0.2.64:80", "192.0.2.2")
	reach(t, "the neighbour", c.Ask, "192.0.2.2:80", "192.0.2.64")
	d.Must(t, "rm", "-f", "cc")
	d.Must(t, "network", "rm", "lan")
	if _, errs, code := d.Fief(t, "network", "create", "-d", "macvlan", "lan"); code == 0 || !strings.Contains(errs, "parent=DEVICE") {
		t.Errorf("without a parent: exit %d, %s", code, errs)
	}
}

// TestWithoutCapability: a daemon that may not change the network says what it
// needs, and runs containers that need none.
func TestWithoutCapability(t *testing.T) {
	testenv.NeedRoot(t)
	linktest.Alone(t)
	d := testenv.StartWrapped(t, []string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"}, "--pool-size", "0")
	for _, args := range [][]string{{"run", "--rm", "host", "true"}, {"network", "create", "mine"}} {
		if _, errs, code := d.Fief(t, args...); code == 0 || !strings.Contains(errs, "CAP_NET_ADMIN") || !strings.Contains(errs, "--network none") {
			t.Errorf("%v: exit %d, %s", args, code, errs)
		}
	}
	d.Must(t, "run", "--rm", "--network", "none", "host", "true")
	if got := d.Must(t, "network", "ls", "-q", "--filter", "type=custom"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestReboot: networks that users have made are there again when everything the
// kernel had of them is gone, and containers start on them.
func TestReboot(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.86.0.0/24", "mine")
	device := d.Must(t, "network", "inspect", "-f", "{{.FiefDevice}}", "mine")
	d.Stop(t)
	if err := link.Delete(device); err != nil {
		t.Fatal(err)
	}
	for _, name := range tables(t) {
		if err := nft.Table(name).Drop(); err != nil {
			t.Fatal(err)
		}
	}
	d.Up(t)
	if _, err := link.Index(device); err != nil {
		t.Error(err)
	}
	if err := link.Delete(device); err != nil { // and somebody removes it under the daemon
		t.Fatal(err)
	}
	a, _ := run(t, d, "aa", "--network", "mine"), run(t, d, "bb", "--network", "mine")
	reach(t, "afterwards", a.Ask, "10.86.0.3:80", "10.86.0.2")
	d.Must(t, "rm", "-f", "aa", "bb")
	d.Must(t, "network", "rm", "mine")
}
