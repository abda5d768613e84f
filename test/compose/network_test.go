package compose

import (
	"os"
	"regexp"
	"testing"
)

// TestDefaultNetwork: services find each other by their names.
func TestDefaultNetwork(t *testing.T) {
	p := start(t, `
services:
  web: {image: busybox, command: sleep 1000, init: true, hostname: webhost}
  db: {image: busybox, command: sleep 1000, init: true, container_name: the-db, networks: {default: {aliases: [store, database]}}}
  linked: {image: busybox, command: sleep 1000, init: true, links: ["db:warehouse", web]}
  extra: {image: busybox, command: sleep 1000, init: true, extra_hosts: ["host.docker.internal:host-gateway", "other=192.0.2.7", "six:::1"], dns_search: [example.test], dns_opt: ["ndots:2"]}
`)
	p.must(t, "up", "-d", "--scale", "web=2")
	resolves := func(from, name, pattern string) {
		t.Helper()
		want(t, name, p.must(t, "exec", "-T", from, "sh", "-c", "nslookup "+name+" | tail -n +3; exit 0"), pattern)
	}
	const address = `Address: 172\.\d+\.\d+\.\d+`
	for _, name := range []string{"db", "the-db", "store", "database", "proj-web-1", "proj-web-2"} {
		resolves("db", name, address)
	}
	resolves("db", "web", `(?s)`+address+`.*`+address)
	resolves("db", "webhost", `(?s)`+address+`.*`+address)
	resolves("linked", "warehouse", address)
	resolves("linked", "web-1", address)
	want(t, "each address once", p.must(t, "exec", "-T", "linked", "sh", "-c", "nslookup web | grep -c 'Address: 172'"), `^2$`)
	resolves("db", "warehouse", `SERVFAIL|NXDOMAIN|can't resolve`)
	hosts := p.must(t, "exec", "-T", "extra", "cat", "/etc/hosts")
	for _, line := range []string{`172\.\d+\.\d+\.1\s+host\.docker\.internal`, `192\.0\.2\.7\s+other`, `::1\s+six`} {
		want(t, "hosts", hosts, `(?m)^`+line+`$`)
	}
	want(t, "resolv.conf", p.must(t, "exec", "-T", "extra", "cat", "/etc/resolv.conf"), `(?s)nameserver 127\.0\.0\.11.*search example\.test.*options ndots:2`)
	want(t, "hostname", p.must(t, "exec", "-T", "web", "hostname"), `^webhost$`)
	want(t, "aliases", p.docker(t, "inspect", "-f", `{{.NetworkSettings.Networks.proj_default.Aliases}} {{.NetworkSettings.Networks.proj_default.DNSNames}}`, "the-db"),
		`^\[the-db db store database\] \[the-db db store database [0-9a-f]{12}\]$`)
	want(t, "names", p.docker(t, "inspect", "-f", `{{.NetworkSettings.Networks.proj_default.DNSNames}}`, "proj-web-1"), `^\[proj-web-1 web [0-9a-f]{12} webhost\]$`)
	want(t, "inspect", p.docker(t, "network", "inspect", "-f", `{{.Driver}} {{.Scope}} {{.EnableIPv4}} {{.EnableIPv6}} {{index .Labels "com.docker.compose.network"}} {{index .Labels "com.docker.compose.project"}} {{len .Containers}}`, "proj_default"),
		`^bridge local true false default proj 5$`)
}

// TestNetworks: several of a project, with addresses, and those of others.
func TestNetworks(t *testing.T) {
	p := start(t, `
services:
  front:
    image: busybox
    init: true
    command: sleep 1000
    networks:
      outer: {ipv4_address: 10.123.0.77, ipv6_address: "fd12:3::77", aliases: [entry], mac_address: "02:42:0a:7b:00:4d", interface_name: out7}
      closed: {priority: 100}
      shared: {}
    sysctls: {net.ipv4.ip_forward: "0"}
  back:
    image: busybox
    init: true
    command: sh -c 'echo deep > /tmp/index.html; exec httpd -f -h /tmp'
    networks: [closed]
  alone: {image: busybox, init: true, command: sleep 1000, network_mode: none}
  beside: {image: busybox, init: true, command: sleep 1000, network_mode: "service:back"}
networks:
  outer:
    enable_ipv6: true
    labels: {purpose: outside}
    driver_opts: {com.docker.network.bridge.name: outer9, com.docker.network.driver.mtu: "1400"}
    ipam:
      driver: default
      config:
        - {subnet: 10.123.0.0/24, gateway: 10.123.0.254, ip_range: 10.123.0.128/25, aux_addresses: {printer: 10.123.0.200}}
        - {subnet: "fd12:3::/64"}
  closed: {internal: true}
  shared: {external: true, name: everybodys}
`)
	_, errs, code := p.compose(t, "up", "-d")
	if code != 1 {
		t.Errorf("up without the external network: %d", code)
	}
	want(t, "up without the external network", errs, `network everybodys declared as external, but could not be found`)
	p.docker(t, "network", "create", "everybodys")
	p.must(t, "up", "-d")
	want(t, "addresses", p.must(t, "exec", "-T", "front", "ip", "addr"), `(?s)out7@.*10\.123\.0\.77/24.*fd12:3::77/64`)
	want(t, "mac", p.docker(t, "inspect", "-f", `{{.NetworkSettings.Networks.proj_outer.MacAddress}} {{.NetworkSettings.Networks.proj_outer.IPAMConfig.IPv4Address}} {{.NetworkSettings.Networks.proj_outer.IPAMConfig.IPv6Address}}`, "proj-front-1"), `^02:42:0a:7b:00:4d 10\.123\.0\.77 fd12:3::77$`)
	want(t, "a service on a network of its own", p.must(t, "exec", "-T", "front", "wget", "-qO-", "http://back/"), `^deep$`)
	want(t, "network_mode service:", p.must(t, "exec", "-T", "beside", "wget", "-qO-", "http://127.0.0.1/"), `^deep$`)
	want(t, "internal", p.must(t, "exec", "-T", "back", "ip", "route"), `^172\.\d+\.0\.0/\d+ dev eth0 scope link`)
	want(t, "none", p.must(t, "exec", "-T", "alone", "ls", "/sys/class/net"), `^lo$`)
	want(t, "inspect", p.docker(t, "network", "inspect", "-f", `{{.EnableIPv6}} {{.Labels.purpose}} {{index .Options "com.docker.network.bridge.name"}} {{json .IPAM}}`, "proj_outer"),
		`^true outside outer9 \{"Driver":"default","Options":(null|\{\}),"Config":\[\{"Subnet":"10\.123\.0\.0/24","IPRange":"10\.123\.0\.128/25","Gateway":"10\.123\.0\.254","AuxiliaryAddresses":\{"printer":"10\.123\.0\.200"\}\},\{"Subnet":"fd12:3::/64"(,"Gateway":"fd12:3::1")?\}\]\}$`)
	want(t, "inspect internal", p.docker(t, "network", "inspect", "-f", "{{.Internal}}", "proj_closed"), `^true$`)
	// Nothing changed: nothing is made anew.
	_, errs, _ = p.compose(t, "up", "-d")
	want(t, "up again", errs, `(?s)^( *Container proj-\w+-1  Running\s*)+$`)
	p.must(t, "down", "-t", "0")
	want(t, "the external network stays", p.docker(t, "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"), `^everybodys$`)
}

// TestNetworkChanged: a network whose configuration changed is made anew, with
// the containers on it.
func TestNetworkChanged(t *testing.T) {
	file := func(subnet string) string {
		return `
services:
  web: {image: busybox, init: true, command: sleep 1000}
networks:
  default: {ipam: {config: [{subnet: ` + subnet + `}]}}
`
	}
	p := start(t, file("10.124.0.0/24"))
	p.must(t, "up", "-d")
	p.file(t, file("10.125.0.0/24"))
	p.must(t, "up", "-d", "-y")
	want(t, "address", p.must(t, "exec", "-T", "web", "ip", "addr"), `10\.125\.0\.2/24`)
	// Somebody else's container keeps the network.
	p.docker(t, "run", "-d", "--name", "guest", "--network", "proj_default", "busybox", "sleep", "1000")
	_, errs, code := p.compose(t, "down", "-t", "0")
	want(t, "down with a guest", errs, `Network proj_default  Resource is still in use`)
	if code != 0 {
		t.Errorf("down with a guest: %d", code)
	}
	p.docker(t, "rm", "-f", "guest")
	p.must(t, "down")
}

// TestHost: what is the host's is asked for without a user namespace.
func TestHost(t *testing.T) {
	p := start(t, `
services:
  net: {image: busybox, init: true, command: sleep 1000, network_mode: host}
`)
	_, errs, code := p.compose(t, "up", "-d")
	if code != 1 {
		t.Errorf("network_mode host with a user namespace: %d", code)
	}
	want(t, "network_mode host", errs, `cannot share the host's network namespace when user namespaces are enabled`)
	p.file(t, `
services:
  net: {image: busybox, init: true, command: sleep 1000, network_mode: host, userns_mode: host}
  pid: {image: busybox, init: true, command: sleep 1000, pid: host, userns_mode: host}
  keep: {image: busybox, command: sleep 1000, init: true, userns_mode: "auto:size=70000"}
  open: {image: busybox, init: true, command: sleep 1000, privileged: true, userns_mode: host, ipc: host, cgroup: host, security_opt: ["systempaths=unconfined"]}
  first: {image: busybox, init: true, command: sleep 1000, ipc: shareable}
  second: {image: busybox, init: true, command: sleep 1000, pid: "service:first", ipc: "service:first"}
`)
	p.must(t, "up", "-d")
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	want(t, "network_mode host", p.must(t, "exec", "-T", "net", "readlink", "/proc/self/ns/net"), `^`+regexp.QuoteMeta(host)+`$`)
	want(t, "pid of a service", p.must(t, "exec", "-T", "second", "ps"), `(?s)sleep 1000.*sleep 1000`)
	want(t, "userns_mode", p.must(t, "exec", "-T", "keep", "cat", "/proc/self/uid_map"), `^\s*0\s+\d+\s+70000$`)
}
