package network_test

import (
	"strings"
	"testing"

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
	d.Must(t, "rm", "-f", "two", "far")
	d.Must(t, "network", "rm", "a", "b")
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
	d.Must(t, "rm", "-f", "one", "two")
	d.Must(t, "network", "rm", "a")
}
