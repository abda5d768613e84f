package network_test

import (
	"os/exec"
	"strings"
	"testing"

	"fief/internal/kernel/link/linktest"
	"fief/internal/testenv"
)

// refusal runs a command that must fail, and say each of these.
func refusal(t *testing.T, d *testenv.Daemon, args string, want ...string) {
	t.Helper()
	_, errs, code := d.Fief(t, strings.Fields(args)...)
	if code == 0 {
		t.Errorf("%s: done", args)
	}
	for _, w := range want {
		if !strings.Contains(errs, w) {
			t.Errorf("%s: no %q in %s", args, w, errs)
		}
	}
}

// TestSubnetsRefused: a subnet that cannot be is an error that names the flag and
// what is in the way, and leaves neither network nor device.
func TestSubnetsRefused(t *testing.T) {
	d := start(t, "--default-address-pool", "base=10.70.0.0/23,size=24")
	world(t) // 192.0.2.1/24
	for _, route := range []string{"10.72.0.0/16", "10.73.1.0/24"} {
		if b, err := exec.Command("ip", "route", "add", route, "via", "192.0.2.2").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	d.Must(t, "network", "create", "--subnet", "10.80.0.0/24", "first")
	before := linktest.Left(t)
	for args, want := range map[string][]string{
		"--subnet 10.80.0.0/24":                                                     {"Pool overlaps", "--subnet 10.80.0.0/24", "network first"},
		"--subnet 10.80.0.128/25":                                                   {"Pool overlaps", "10.80.0.0/24 of network first", "choose another"},
		"--subnet 10.0.0.0/8":                                                       {"Pool overlaps", "--subnet 10.0.0.0/8"},
		"--subnet 10.81.0.0/24 --subnet 10.81.0.0/25":                               {"Pool overlaps", "of this network"},
		"--subnet 192.0.2.0/24":                                                     {"--subnet 192.0.2.0/24", "a route to 192.0.2."},
		"--subnet 192.0.2.0/25":                                                     {"--subnet 192.0.2.0/25", "192.0.2.1/32"},
		"--subnet 10.72.0.0/16":                                                     {"--subnet 10.72.0.0/16", "a route to 10.72.0.0/16"},
		"--subnet 10.73.0.0/16":                                                     {"--subnet 10.73.0.0/16", "a route to 10.73.1.0/24"},
		"--subnet 10.82.0.0/24 --gateway 10.83.0.1":                                 {"no matching subnet for gateway 10.83.0.1"},
		"--subnet 10.82.0.0/24 --gateway 10.82.0.0":                                 {"invalid gateway 10.82.0.0", "network or broadcast"},
		"--subnet 10.82.0.0/24 --gateway 10.82.0.255":                               {"invalid gateway 10.82.0.255", "network or broadcast"},
		"--subnet 10.82.0.0/24 --ip-range 10.83.0.0/25":                             {"no matching subnet for range 10.83.0.0/25"},
		"--subnet 10.82.0.0/24 --ip-range 10.82.0.255/32":                           {"left for the gateway", "--gateway", "--ip-range"},
		"--subnet 10.82.0.0/24 --aux-address a=10.83.0.9":                           {"no matching subnet for aux-address a=10.83.0.9"},
		"--subnet 10.82.0.0/24 --gateway 10.82.0.9 --aux-address a=10.82.0.9":       {"invalid auxiliary address a=10.82.0.9", "the gateway"},
		"--subnet 10.82.0.0/30 --aux-address a=10.82.0.1 --aux-address b=10.82.0.2": {"left for the gateway"},
		"--subnet 10.82.0.0/31":                                                     {"invalid subnet 10.82.0.0/31", "too small"},
		"--gateway 10.82.0.1":                                                       {"no matching subnet for gateway 10.82.0.1"},
	} {
		refusal(t, d, "network create "+args+" refused", want...)
	}
	d.Must(t, "network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "-o", "parent=outside0", "lan") // the host's own, and meant so
	d.Must(t, "network", "create", "--subnet", "10.72.5.0/24", "within")
	if strings.Count(d.Log(), "a part of what a route of this host leads to") != 1 {
		t.Errorf("a route is cut short, and it is not said once:\n%s", d.Log())
	}
	d.Must(t, "network", "create", "a")
	d.Must(t, "network", "create", "b")
	refusal(t, d, "network create c", "all predefined address pools have been fully subnetted", "--subnet", "--default-address-pool")
	refusal(t, d, "run --rm host true", "fully subnetted", "--default-address-pool") // nor is there any for the default network
	d.Must(t, "network", "rm", "a")
	d.Must(t, "network", "create", "c")
	if got := d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "c"); got != "10.70.0.0/24" {
		t.Errorf("the subnet that is free again is not taken: %s", got)
	}
	d.Must(t, "network", "rm", "b", "c", "within", "lan")
	if got := d.Must(t, "network", "ls", "-q", "--filter", "type=custom"); strings.Contains(got, "\n") {
		t.Errorf("left: %s", got)
	}
	if now := linktest.Left(t); now != before {
		t.Errorf("device %q is left", now)
	}
	d.Must(t, "network", "rm", "first")
}

// TestAddressesRefused: an address that cannot be had is an error that names the
// flag, who has it and what there is instead; a start that fails for it gives back
// what it had on other networks.
func TestAddressesRefused(t *testing.T) {
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.89.0.0/29", "--aux-address", "printer=10.89.0.3", "small")
	d.Must(t, "network", "create", "--ipv6", "--subnet", "10.90.0.0/24", "--subnet", "fd90::/64", "--ip-range", "10.90.0.64/30", "ranged")
	d.Must(t, "network", "create", "auto")
	hold := func(name string, flags ...string) {
		t.Helper()
		d.Must(t, append(append([]string{"run", "-d", "--name", name}, flags...), "host", "sleep", "1000")...)
	}
	hold("aa", "--network", "small", "--ip", "10.89.0.5")
	hold("six", "--network", "ranged", "--ip6", "fd90::77", "--ip", "10.90.0.9") // outside the range, which is of those that nobody names
	for args, want := range map[string][]string{
		"--network small --ip 10.89.0.5":   {"Address already in use", "--ip 10.89.0.5", "container aa", "10.89.0.0/29"},
		"--network small --ip 10.89.0.0":   {"Address already in use", "--ip 10.89.0.0", "of network on"},
		"--network small --ip 10.89.0.7":   {"Address already in use", "--ip 10.89.0.7", "broadcast"},
		"--network small --ip 10.89.0.1":   {"Address already in use", "--ip 10.89.0.1", "gateway"},
		"--network small --ip 10.89.0.3":   {"Address already in use", "--ip 10.89.0.3", "printer"},
		"--network small --ip 10.89.0.9":   {"no configured subnet", "--ip must be an address of 10.89.0.0/29"},
		"--network small --ip6 fd90::9":    {"no configured subnet", "leave out --ip6"},
		"--network ranged --ip6 fd90::77":  {"Address already in use", "--ip6 fd90::77", "container six"},
		"--network ranged --ip6 fd91::77":  {"no configured subnet", "--ip6 must be an address of fd90::/64"},
		"--network ranged --ip 10.90.0.64": {"Address already in use", "gateway"},
	} {
		refusal(t, d, "run --rm "+args+" host true", want...)
	}
	auto := strings.TrimSuffix(d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "auto"), ".1")
	refusal(t, d, "run --rm --network auto --ip "+auto+".9 host true", "user configured subnets", "--subnet")
	hold("bb", "--network", "small") // .2, then .4 and .6
	hold("cc", "--network", "small")
	hold("dd", "--network", "small")
	full := []string{"no available IPv4 addresses", "small", "10.89.0.0/29 is taken", "--subnet"}
	refusal(t, d, "run --rm --network small host true", full...)
	refusal(t, d, "run --rm --network ranged --network small host true", full...)
	refusal(t, d, "network connect small six", full...)
	hold("ee", "--network", "ranged")
	if got := ip(t, d, "ee", "ranged"); got != "10.90.0.65" { // nothing is kept of those that failed
		t.Errorf("the first of the range is %s", got)
	}
	hold("ff", "--network", "ranged")
	hold("gg", "--network", "ranged")
	refusal(t, d, "run --rm --network ranged host true", "no available IPv4 addresses", "10.90.0.64/30 is taken", "--ip-range")
	d.Must(t, "rm", "-f", "bb")
	d.Must(t, "run", "--rm", "--network", "small", "--ip", "10.89.0.2", "host", "true")
	d.Must(t, "rm", "-f", "aa", "cc", "dd", "ee", "ff", "gg", "six")
	d.Must(t, "network", "rm", "small", "ranged", "auto")
}
