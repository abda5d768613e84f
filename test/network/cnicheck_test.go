package network_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCNICheck: a daemon asks the plugins of a container that runs on whether all is
// still there, once, and says what is not; the container goes on.
func TestCNICheck(t *testing.T) {
	d := startListed(t, map[string]string{"listed": chain + `, {"type": "sees"}`})
	script(t, d.dir, "sees", `echo "$CNI_COMMAND $CNI_NETNS" >> DIR/calls
if [ $CNI_COMMAND = ADD ]; then cat DIR/sees.result; fi`)
	// It answers ADD with what the plugins before it gave, as the specification asks.
	os.WriteFile(filepath.Join(d.dir, "sees.result"), []byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.99.0.2/24","gateway":"10.99.0.1","interface":0}]}`), 0o644)
	run(t, d.Daemon, "aa", "--network", "listed")
	calls := func() string {
		b, _ := os.ReadFile(filepath.Join(d.dir, "calls"))
		return string(b)
	}
	const amiss = "a container is not connected any more as CNI plugins have done it"
	d.Kill(t)
	d.Up(t)
	eventually(t, func() bool { return strings.Contains(calls(), "CHECK /proc/") }, d.Log)
	stdin, _ := os.ReadFile(filepath.Join(d.dir, "sees.stdin"))
	if n := strings.Count(calls(), "CHECK"); n != 1 || !strings.Contains(string(stdin), `"prevResult"`) {
		t.Errorf("%d times asked, with %s", n, stdin)
	}
	d.Must(t, "rm", "-f", "aa")
	d.leases(t, "")
	d.put(t, "listed", chain)
	run(t, d.Daemon, "aa", "--network", "listed", "-p", "8081:80")
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "aa")
	d.Stop(t)
	d.Up(t)
	d.Stop(t) // which waits for plugins
	if strings.Contains(d.Log(), amiss) {
		t.Errorf("all is there:\n%s", d.Log())
	}
	if out, err := exec.Command("nsenter", "-n", "-t", pid, "ip", "address", "delete", "10.99.0.2/24", "dev", "eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.Up(t)
	eventually(t, func() bool { return strings.Contains(d.Log(), amiss) && strings.Contains(d.Log(), "10.99.0.2") }, d.Log)
	if got := d.Must(t, "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "aa"); got != "true "+pid {
		t.Errorf("the container: %s", got)
	}
	d.Must(t, "restart", "-t", "0", "aa")
	if got := d.Must(t, "exec", "aa", "ip", "-br", "addr", "show", "eth0"); !strings.Contains(got, "10.99.0.") {
		t.Errorf("after a restart: %s", got)
	}
	d.Must(t, "rm", "-f", "aa")
	d.leases(t, "")
}

// TestCNIKilledBetween: a daemon killed at each step of ADD and DEL is followed by
// one that has everything taken back of a container that does not run.
func TestCNIKilledBetween(t *testing.T) {
	bin := withFailpoints(t)
	d := startListed(t, map[string]string{"listed": chain})
	clean := func(point string) {
		t.Helper()
		d.leases(t, "")
		ruleless(t, "8081")
		eventually(t, func() bool {
			notes, _ := filepath.Glob(d.Dir + "/data/cni/attached/*")
			return len(notes) == 0
		}, func() string { return point + ": a note stays\n" + d.Log() })
		if got := d.Must(t, "ps", "-q"); got != "" {
			t.Errorf("%s: it runs: %s", point, got)
		}
		run(t, d.Daemon, "next", "--network", "listed", "-p", "8081:80")
		d.leases(t, ip(t, d.Daemon, "next", "listed"))
		d.Must(t, "rm", "-f", "next")
		d.leases(t, "")
		d.Fief(t, "rm", "-f", "lost")
	}
	lost := []string{"run", "-d", "--name", "lost", "--network", "listed", "-p", "8081:80", "host", "sleep", "1000"}
	for _, point := range []string{"cni-noted", "cni-added"} {
		killedAt(t, d.Daemon, bin, point, lost...)
		clean(point)
	}
	for _, point := range []string{"cni-deleting", "cni-deleted"} {
		for _, ends := range [][]string{{"rm", "-f", "lost"}, {"kill", "lost"}} {
			d.Must(t, lost...)
			killedAt(t, d.Daemon, bin, point, ends...)
			clean(point)
		}
	}
}

// TestCNIForeign: a container that crun runs is connected by plugins as others are.
func TestCNIForeign(t *testing.T) {
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Skip("tool: no crun")
	}
	file := filepath.Join(t.TempDir(), "fief.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[runtimes.crun]\npath = %q\n", crun), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startListed(t, map[string]string{"listed": chain}, "--config-file", file)
	out := world(t)
	a := run(t, d.Daemon, "aa", "--network", "listed")
	b := run(t, d.Daemon, "bb", "--runtime", "crun", "--network", "listed", "-p", "8081:80")
	ipB := ip(t, d.Daemon, "bb", "listed")
	reach(t, "from a container of fief's", a.Ask, net.JoinHostPort(ipB, "80"), ip(t, d.Daemon, "aa", "listed"))
	reach(t, "back", b.Ask, net.JoinHostPort(ip(t, d.Daemon, "aa", "listed"), "80"), ipB)
	reach(t, "a published port", out.Ask, "192.0.2.1:8081", "192.0.2.2")
	if got := d.Must(t, "exec", "bb", "getent", "ahostsv4", "aa"); !strings.Contains(got, ip(t, d.Daemon, "aa", "listed")) {
		t.Errorf("the other's name: %s", got)
	}
	d.Kill(t)
	d.Up(t)
	reach(t, "with the next daemon", out.Ask, "192.0.2.1:8081", "192.0.2.2")
	d.Must(t, "rm", "-f", "aa", "bb")
	d.leases(t, "")
	ruleless(t, "8081")
}
