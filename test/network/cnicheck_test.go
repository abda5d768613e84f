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

// seeing makes a plugin that is the last of its list, says what those before it
// gave, and is asked when none of them has anything to complain of.
func seeing(t *testing.T, d listed) {
	t.Helper()
	script(t, d.dir, "sees", `echo "$CNI_COMMAND $CNI_NETNS" >> DIR/calls
if [ $CNI_COMMAND = ADD ]; then sed 's/.*"prevResult":\(.*\),"type":"sees".*/\1/' DIR/sees.stdin; fi`)
}

// checked is how often it was asked.
func checked(d listed) int {
	b, _ := os.ReadFile(filepath.Join(d.dir, "calls"))
	return strings.Count(string(b), "CHECK /proc/")
}

// TestCNICheck: a daemon asks the plugins of a container that runs on whether all is
// still there, once, and says what is not; the container goes on.
func TestCNICheck(t *testing.T) {
	d := startListed(t, map[string]string{"listed": chain + `, {"type": "sees"}`})
	seeing(t, d)
	run(t, d.Daemon, "aa", "--network", "listed", "-p", "8081:80")
	const amiss = "a container is not connected any more as CNI plugins have done it"
	for times, end := range []func(){func() { d.Kill(t) }, func() { d.Stop(t) }} {
		end()
		d.Up(t)
		eventually(t, func() bool { return checked(d) == times+1 }, d.Log)
	}
	if stdin, _ := os.ReadFile(filepath.Join(d.dir, "sees.stdin")); !strings.Contains(string(stdin), `"prevResult":{`) {
		t.Errorf("asked with %s", stdin)
	}
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "aa")
	d.Stop(t)
	if strings.Contains(d.Log(), amiss) || checked(d) != 2 {
		t.Errorf("asked %d times of two daemons:\n%s", checked(d), d.Log())
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
	d := startListed(t, map[string]string{"listed": chain + `, {"type": "sees"}`}, "--config-file", file)
	seeing(t, d)
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
	eventually(t, func() bool { return checked(d) == 2 }, d.Log)
	d.Must(t, "rm", "-f", "aa", "bb")
	d.leases(t, "")
	ruleless(t, "8081")
}
