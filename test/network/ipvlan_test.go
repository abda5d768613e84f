package network_test

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"fief/internal/kernel/link"
)

// TestIPvlan: in each mode two containers reach each other and, with the hardware
// address of the parent, a neighbour of the host, by both families. In the modes of
// layer 3 they are behind the host as behind a router, whom the neighbour asks.
func TestIPvlan(t *testing.T) {
	d := start(t)
	out := world(t)
	if msg, err := exec.Command("ip", "link", "add", "link", "outside0", "name", "probe", "type", "ipvlan").CombinedOutput(); err != nil {
		t.Skip("kernel: no ipvlan: " + strings.TrimSpace(string(msg)))
	}
	link.Delete("probe")
	out.Serve(t, "80")
	for _, mode := range []string{"", "l2", "l3", "l3s"} {
		t.Run("mode "+mode, func(t *testing.T) {
			flags, first := []string{"--subnet", "192.0.2.0/24", "--gateway", "192.0.2.1", "--ip-range", "192.0.2.64/28",
				"--subnet", "2001:db8::/64", "--gateway", "2001:db8::1", "--ip-range", "2001:db8::40/124"}, "192.0.2.64"
			if strings.HasPrefix(mode, "l3") {
				flags, first = []string{"--subnet", "10.50.0.0/24", "--subnet", "2001:db8:5::/64"}, "10.50.0.2"
			}
			flags = append([]string{"network", "create", "-d", "ipvlan", "-o", "parent=outside0"}, flags...)
			if mode != "" {
				flags = append(flags, "-o", "ipvlan_mode="+mode)
			}
			d.Must(t, append(flags, "lan")...)
			a, b := run(t, d, "aa", "--network", "lan"), run(t, d, "bb", "--network", "lan")
			defer func() {
				d.Must(t, "rm", "-f", "aa", "bb")
				d.Must(t, "network", "rm", "lan")
			}()
			ipA, ipB := ip(t, d, "aa", "lan"), ip(t, d, "bb", "lan")
			six := func(name string) string { return net.JoinHostPort(ip6(t, d, name, "lan"), "80") }
			if ipA != first {
				t.Errorf("the first has %s", ipA)
			}
			if got := d.Must(t, "exec", "aa", "cat", "/sys/class/net/eth0/address"); got != parentMAC(t) {
				t.Errorf("its hardware address is %s", got)
			}
			if got := d.Must(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "lan").MacAddress}}`, "aa"); got != "" && got != parentMAC(t) {
				t.Errorf("its hardware address is said to be %s", got)
			}
			reach(t, "each other", a.Ask, ipB+":80", ipA)
			reach(t, "each other, IPv6", b.Ask, six("aa"), ip6(t, d, "bb", "lan"))
			reach(t, "the neighbour", a.Ask, "192.0.2.2:80", ipA)
			reach(t, "the neighbour, IPv6", a.Ask, "[2001:db8::2]:80", ip6(t, d, "aa", "lan"))
			reach(t, "from the neighbour", out.Ask, ipA+":80", "192.0.2.2")
			reach(t, "from the neighbour, IPv6", out.Ask, six("aa"), "2001:db8::2")
		})
	}
	for _, c := range []struct{ flags, want string }{
		{"-o parent=outside0 -o ipvlan_mode=l4", "invalid ipvlan mode: l4"}, {"", "parent=DEVICE"},
	} {
		if _, errs, code := d.Fief(t, append(append([]string{"network", "create", "-d", "ipvlan", "--subnet", "192.0.2.0/24"}, strings.Fields(c.flags)...), "lan")...); code == 0 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, %s", c.flags, code, errs)
		}
	}
	d.Must(t, "network", "create", "-d", "ipvlan", "--subnet", "192.0.2.0/24", "-o", "parent=outside0", "lan")
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "lan", "--mac-address", "02:00:00:00:00:07", "host", "true"); code == 0 || !strings.Contains(errs, "hardware address") {
		t.Errorf("a hardware address of its own: exit %d, %s", code, errs)
	}
	d.Must(t, "network", "rm", "lan")
}

func parentMAC(t *testing.T) string {
	t.Helper()
	all, err := link.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name == "outside0" {
			return net.HardwareAddr(d.MAC[:]).String()
		}
	}
	t.Fatal("the parent is gone")
	return ""
}
