package network

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// resolvMax bounds what is copied of the host's resolv.conf; resolvers read a
// few lines (resolv.conf(5)).
const resolvMax = 64 << 10

// Files are the contents of the three files every container gets over its
// image's own.
type Files struct{ Hosts, Hostname, Resolv []byte }

// FilesFor makes the three files of a container. links are further lines for
// its hosts file, each an address and names.
func FilesFor(c record.Container, links []string) (Files, error) {
	f := Files{Hostname: []byte(c.Hostname + "\n"), Hosts: hosts(c, links)}
	if c.Network == "none" {
		return f, nil
	}
	b, err := hostResolv()
	if err != nil {
		return Files{}, err
	}
	if c.Network == "host" && len(c.Net.DNS)+len(c.Net.DNSSearch)+len(c.Net.DNSOptions) == 0 {
		f.Resolv = b
		return f, nil
	}
	if Resolves(c.Net) {
		f.Resolv = resolvNamed(b, c.Net)
		return f, nil
	}
	f.Resolv = resolv(b, c.Net, c.Network != "host")
	return f, nil
}

// hosts is the hosts file: the container under the addresses that it has, or
// without any under one of its loopback.
func hosts(c record.Container, links []string) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, h := range c.Net.Hosts {
		if name, a, ok := strings.Cut(h, ":"); ok {
			if a == "host-gateway" {
				a = hostGateway(c.Net)
			}
			fmt.Fprintf(&b, "%s\t%s\n", a, name)
		}
	}
	for _, l := range links {
		b.WriteString(l + "\n")
	}
	name := c.Hostname
	if c.Domainname != "" {
		name = c.Hostname + "." + c.Domainname + " " + c.Hostname
	}
	found := false
	for _, e := range c.Net.Endpoints {
		for _, ip := range []netip.Prefix{e.IP4, e.IP6} {
			if e.Up() && ip.IsValid() {
				fmt.Fprintf(&b, "%s\t%s\n", ip.Addr(), name)
				found = true
			}
		}
	}
	if !found {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", name)
	}
	return []byte(b.String())
}

// hostGateway is an address of the host that the container reaches.
func hostGateway(n record.Net) string {
	for _, e := range n.Endpoints {
		if e.GW4.IsValid() {
			return e.GW4.String()
		}
		if e.GW6.IsValid() {
			return e.GW6.String()
		}
	}
	return "127.0.0.1"
}

// stub is where systemd-resolved listens, and stubFile what it asks itself
// (systemd-resolved.service(8)).
const (
	stub     = "127.0.0.53"
	stubFile = "/run/systemd/resolve/resolv.conf"
)

// hostResolv reads the host's resolv.conf, that behind systemd-resolved where it
// is the only server.
func hostResolv() ([]byte, error) {
	b, err := readBounded("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return nil, fault.Wrap(fault.Internal, "read", "/etc/resolv.conf", err, "")
	}
	if servers := parse(b).servers; len(servers) == 1 && servers[0] == stub {
		if behind, err := readBounded(stubFile); err == nil {
			return behind, nil
		}
	}
	return b, nil
}

// conf is what a resolv.conf says.
type conf struct{ servers, search, options []string }

func parse(b []byte) (r conf) {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search", "domain":
			r.search = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

// publicServers are asked where the host's own servers are out of a container's
// reach; they are Docker's choice.
var publicServers = [...]string{"8.8.8.8", "8.8.4.4"}

// resolv is a container's resolv.conf: the host's, with what the container asks
// for in its place. apart says that the container has not the host's network:
// servers on the host's loopback are then not its to ask.
func resolv(host []byte, n record.Net, apart bool) []byte {
	r := parse(host)
	if len(n.DNS) > 0 {
		r.servers = n.DNS
	} else if apart {
		r.servers = reachable(r.servers, n)
	}
	if len(n.DNSSearch) > 0 {
		r.search = n.DNSSearch
	}
	if len(n.DNSOptions) > 0 {
		r.options = n.DNSOptions
	}
	return r.text()
}

// text writes it down.
func (r conf) text() []byte {
	var b strings.Builder
	for _, s := range r.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.search) > 0 && (len(r.search) > 1 || r.search[0] != ".") {
		b.WriteString("search " + strings.Join(r.search, " ") + "\n")
	}
	if len(r.options) > 0 {
		b.WriteString("options " + strings.Join(r.options, " ") + "\n")
	}
	return []byte(b.String())
}

func reachable(servers []string, n record.Net) []string {
	six := false
	for _, e := range n.Endpoints {
		six = six || e.IP6.IsValid()
	}
	var out []string
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err == nil && !a.IsLoopback() && (a.Is4() || six && a.Zone() == "") {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return publicServers[:]
	}
	return out
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, resolvMax))
}
