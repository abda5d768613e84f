package network_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"fief/internal/kernel/link/linktest"
	"fief/internal/kernel/nft"
)

const bridgeOption = "com.docker.network.bridge."

// pings reports whether an address answers from a namespace.
func pings(t *testing.T, s linktest.Space, to string) bool {
	t.Helper()
	var out []byte
	err := s.Do(func() (err error) {
		out, err = exec.Command("busybox", "ping", "-c", "3", "-W", "2", to).CombinedOutput()
		return err
	})
	if err != nil && !strings.Contains(string(out), "packet loss") {
		t.Errorf("ping: %v: %s", err, out)
	}
	return err == nil
}

// TestGatewayModes: who reaches a container under its own address, and under which
// address it goes out, in each mode, from a third host and from other networks.
func TestGatewayModes(t *testing.T) {
	d := start(t)
	out := world(t)
	out.Serve(t, "80")
	create := func(name string, args ...string) {
		t.Helper()
		d.Must(t, append(append([]string{"network", "create"}, args...), name)...)
	}
	create("plain", "--ipv6")
	create("routed", "--ipv6", "-o", bridgeOption+"gateway_mode_ipv4=routed", "-o", bridgeOption+"gateway_mode_ipv6=routed")
	create("mixed", "--ipv6", "-o", bridgeOption+"gateway_mode_ipv6=routed")
	create("open", "-o", bridgeOption+"gateway_mode_ipv4=nat-unprotected")
	create("bare", "-o", bridgeOption+"enable_ip_masquerade=false")
	create("trusting", "-o", bridgeOption+"trusted_host_interfaces=lo:outside0")
	both := func(name string, flags ...string) linktest.Space {
		t.Helper()
		s := run(t, d, name, flags...)
		s.Serve(t, "81")
		return s
	}
	at := func(name, network, port string) string { return net.JoinHostPort(ip(t, d, name, network), port) }
	at6 := func(name, network, port string) string { return net.JoinHostPort(ip6(t, d, name, network), port) }
	p := both("pp", "--network", "plain", "-p", "8070:80")
	r := both("rr", "--network", "routed", "-p", "8080:80")
	m := both("mm", "--network", "mixed", "-p", "8083:80")
	o := both("oo", "--network", "open", "-p", "127.0.0.1:8090:80")
	b := both("bb", "--network", "bare", "-p", "8095:80")
	tr := both("tt", "--network", "trusting", "-p", "127.0.0.1:8100:80")

	open := func() {
		t.Helper()
		reach(t, "routed", out.Ask, at("rr", "routed", "80"), "192.0.2.2")
		reach(t, "routed, IPv6", out.Ask, at6("rr", "routed", "80"), "2001:db8::2")
		reach(t, "routed, not published", out.Ask, at("rr", "routed", "81"), "")
		reach(t, "unprotected", out.Ask, at("oo", "open", "81"), "192.0.2.2")
		reach(t, "trusted", out.Ask, at("tt", "trusting", "80"), "192.0.2.2")
		reach(t, "trusted, not published", out.Ask, at("tt", "trusting", "81"), "")
	}
	open()
	reach(t, "routed, not published, IPv6", out.Ask, at6("rr", "routed", "81"), "")
	reach(t, "routed, by a port of the host", out.Ask, "192.0.2.1:8080", "")
	if l, err := net.Listen("tcp", ":8080"); err != nil {
		t.Errorf("the port of the host is taken: %v", err)
	} else {
		l.Close()
	}
	reach(t, "routed, out", r.Ask, "192.0.2.2:80", ip(t, d, "rr", "routed"))
	reach(t, "routed, out, IPv6", r.Ask, "[2001:db8::2]:80", ip6(t, d, "rr", "routed"))
	reach(t, "routed, from another network", p.Ask, at("rr", "routed", "80"), ip(t, d, "pp", "plain"))
	reach(t, "routed, from another network, not published", p.Ask, at("rr", "routed", "81"), "")
	reach(t, "routed to another network", r.Ask, at("pp", "plain", "80"), "")
	if !pings(t, out, ip(t, d, "rr", "routed")) || !pings(t, out, ip6(t, d, "rr", "routed")) {
		t.Error("routed: no answer to a ping")
	}
	if pings(t, out, ip(t, d, "pp", "plain")) {
		t.Error("nat: a ping is answered")
	}
	reach(t, "mixed, IPv4", out.Ask, at("mm", "mixed", "80"), "")
	reach(t, "mixed, IPv4 published", out.Ask, "192.0.2.1:8083", "192.0.2.2")
	reach(t, "mixed, IPv4 out", m.Ask, "192.0.2.2:80", "192.0.2.1")
	reach(t, "mixed, IPv6", out.Ask, at6("mm", "mixed", "80"), "2001:db8::2")
	reach(t, "mixed, IPv6 published", out.Ask, "[2001:db8::1]:8083", "")
	reach(t, "unprotected, out", o.Ask, "192.0.2.2:80", "192.0.2.1")
	reach(t, "unprotected, published", linktest.Ask, "127.0.0.1:8090", "any")
	reach(t, "unprotected, from another network", p.Ask, at("oo", "open", "81"), "")
	reach(t, "unmasked, out", b.Ask, "192.0.2.2:80", ip(t, d, "bb", "bare"))
	reach(t, "unmasked, published", out.Ask, "192.0.2.1:8095", "192.0.2.2")
	reach(t, "unmasked, directly", out.Ask, at("bb", "bare", "80"), "")
	reach(t, "trusted, from another network", p.Ask, at("tt", "trusting", "80"), "")
	reach(t, "trusted, out", tr.Ask, "192.0.2.2:80", "192.0.2.1")

	d.Kill(t)
	for _, name := range tables(t) {
		if err := nft.Table(name).Drop(); err != nil {
			t.Fatal(err)
		}
	}
	d.Up(t)
	open() // by the rules of the next daemon
	routed := at("rr", "routed", "80")
	d.Must(t, "rm", "-f", "rr")
	again := both("again", "--network", "routed")
	if at("again", "routed", "80") != routed {
		t.Errorf("%s is not given again", routed)
	}
	reach(t, "who has its address next", out.Ask, routed, "")
	reach(t, "which goes out", again.Ask, "192.0.2.2:80", ip(t, d, "again", "routed"))
	d.Must(t, "rm", "-f", "again", "pp", "mm", "oo", "bb", "tt")
	d.Must(t, "network", "prune", "-f")
}

// TestIsolatedGateway: containers of a network of mode isolated reach each other,
// and the host is not there.
func TestIsolatedGateway(t *testing.T) {
	d := start(t)
	world(t)
	d.Must(t, "network", "create", "--internal", "--ipv6", "--subnet", "10.87.0.0/24", "-o", bridgeOption+"gateway_mode_ipv4=isolated", "-o", bridgeOption+"gateway_mode_ipv6=isolated", "alone")
	d.Must(t, "network", "create", "--internal", "--subnet", "10.88.0.0/24", "shut")
	a, _ := run(t, d, "aa", "--network", "alone"), run(t, d, "bb", "--network", "alone")
	run(t, d, "cc", "--network", "shut")
	if got := ip(t, d, "aa", "alone"); got != "10.87.0.1" { // there is no gateway to be left out
		t.Errorf("the first address is %s", got)
	}
	reach(t, "each other", a.Ask, "10.87.0.2:80", "10.87.0.1")
	reach(t, "each other, IPv6", a.Ask, net.JoinHostPort(ip6(t, d, "bb", "alone"), "80"), ip6(t, d, "aa", "alone"))
	reach(t, "from the host", linktest.Ask, "10.87.0.1:80", "")
	reach(t, "from the host, internal only", linktest.Ask, "10.88.0.2:80", "any")
	device := d.Must(t, "network", "inspect", "-f", "{{.FiefDevice}}", "alone")
	if addrs, err := exec.Command("ip", "-br", "address", "show", "dev", device).Output(); err != nil || len(strings.Fields(string(addrs))) != 2 {
		t.Errorf("the bridge has %s, %v", addrs, err)
	}
	if got := d.Must(t, "network", "inspect", "-f", "{{json .IPAM.Config}}", "alone"); strings.Contains(got, "Gateway") {
		t.Errorf("gateways: %s", got)
	}
	if routes := d.Must(t, "exec", "aa", "ip", "route"); strings.Contains(routes, "via") {
		t.Errorf("routes: %s", routes)
	}
	d.Must(t, "rm", "-f", "aa", "bb", "cc")
	d.Must(t, "network", "rm", "alone", "shut")
}
