package network_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/testenv"
)

// plugins is the directory of CNI's own plugins, which are built when they are not
// there.
func plugins(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(testenv.Root(), "bin/cni")
	if _, err := os.Stat(filepath.Join(dir, "portmap")); err == nil {
		return dir
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "tool")
	cmd.Dir, cmd.Env = filepath.Join(testenv.Root(), "test/network/plugins"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// listed is a daemon with lists of CNI, each the plugins of a list by its name.
type listed struct {
	*testenv.Daemon
	dir string // of the lists, of more plugins and of what host-local notes
}

const chain = `{"type": "bridge", "bridge": "cni-t0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "iptables",
	"dns": {"nameservers": ["10.99.0.1"], "search": ["cni.example"]},
	"ipam": {"type": "host-local", "dataDir": "DIR/leases",
		"ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]]},
	"capabilities": {"mac": true, "ips": true}},
	{"type": "portmap", "backend": "iptables", "snat": true, "capabilities": {"portMappings": true}}`

func startListed(t *testing.T, lists map[string]string, args ...string) listed {
	t.Helper()
	testenv.NeedRoot(t)
	l := listed{dir: t.TempDir()}
	bin := plugins(t)
	for name, list := range lists {
		l.put(t, name, list)
	}
	l.Daemon = start(t, append([]string{"--cni-conf-dir", l.dir, "--cni-plugin-dir", l.dir + "/bin", "--cni-plugin-dir", bin}, args...)...)
	t.Cleanup(func() { // the bridge and the chains are the plugins', and stay
		l.Fief(t, "rm", "-f", "aa", "bb", "cc")
		l.leases(t, "")
		link.Delete("cni-t0")
		for _, tables := range []string{"iptables", "ip6tables"} {
			exec.Command(tables, "-t", "nat", "-F").Run()
			exec.Command(tables, "-t", "nat", "-X").Run()
		}
	})
	return l
}

func (l listed) put(t *testing.T, name, list string) {
	t.Helper()
	text := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, strings.ReplaceAll(list, "DIR", l.dir))
	if err := os.WriteFile(filepath.Join(l.dir, name+".conflist"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// leases waits until host-local has given just these addresses of IPv4.
func (l listed) leases(t *testing.T, want string) {
	t.Helper()
	var got string
	eventually(t, func() bool {
		files, _ := filepath.Glob(l.dir + "/leases/*/10.*")
		var names []string
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		got = strings.Join(names, " ")
		return got == want
	}, func() string { return "leases of host-local: " + got + "; want " + want + "\n" + l.Log() })
}

// ruleless waits until no rule of iptables says anything of what.
func ruleless(t *testing.T, what string) {
	t.Helper()
	var rules []byte
	eventually(t, func() bool {
		rules, _ = exec.Command("iptables-save", "-t", "nat").Output()
		return !strings.Contains(string(rules), what)
	}, func() string { return "rules of a container that is gone:\n" + string(rules) })
}

func eventually(t *testing.T, is func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(why())
		}
	}
}

// TestCNI: bridge, host-local and portmap connect containers under maps of their
// own to each other and the world, publish their ports, and take everything back.
func TestCNI(t *testing.T) {
	d := startListed(t, map[string]string{"listed": chain})
	out := world(t)
	out.Serve(t, "80")
	if got := d.Must(t, "network", "ls", "--filter", "driver=cni", "--format", "{{.Name}} {{.Driver}}"); got != "listed cni" {
		t.Errorf("network ls: %q", got)
	}
	a := run(t, d.Daemon, "aa", "--network", "listed", "-p", "8081:80")
	b := run(t, d.Daemon, "bb", "--network", "listed", "--network-alias", "other")
	ipA, ipB := ip(t, d.Daemon, "aa", "listed"), ip(t, d.Daemon, "bb", "listed")
	if ipA != "10.99.0.2" || ipB != "10.99.0.3" || ip6(t, d.Daemon, "aa", "listed") == "" {
		t.Fatalf("addresses %q %q", ipA, ipB)
	}
	reach(t, "each other", a.Ask, net.JoinHostPort(ipB, "80"), ipA)
	reach(t, "each other, IPv6", b.Ask, net.JoinHostPort(ip6(t, d.Daemon, "aa", "listed"), "80"), ip6(t, d.Daemon, "bb", "listed"))
	reach(t, "the world", a.Ask, "192.0.2.2:80", "192.0.2.1")
	reach(t, "a published port", out.Ask, "192.0.2.1:8081", "192.0.2.2")
	reach(t, "what is not published", out.Ask, "192.0.2.1:8082", "")
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "listed", "-p", "8081:80", "host", "true"); code != 125 || !strings.Contains(errs, "port is already allocated") {
		t.Errorf("a port that is taken: exit %d, %s", code, errs)
	}
	for what, want := range map[string]string{
		"cat /etc/hosts": ipA + "\t", "cat /etc/resolv.conf": "search cni.example", "getent ahostsv4 other": ipB, "getent ahostsv4 bb": ipB,
	} {
		if got := d.Must(t, append([]string{"exec", "aa"}, strings.Fields(what)...)...); !strings.Contains(got, want) {
			t.Errorf("%s: %q lacks %q", what, got, want)
		}
	}
	d.Must(t, "run", "-d", "--name", "cc", "--network", "listed", "--ip", "10.99.0.77", "--mac-address", "02:00:00:00:00:77", "host", "sleep", "1000")
	if got := d.Must(t, "exec", "cc", "ip", "-br", "addr", "show", "eth0"); !strings.Contains(got, "10.99.0.77/24") {
		t.Errorf("a fixed address: %s", got)
	}
	if got := d.Must(t, "exec", "cc", "cat", "/sys/class/net/eth0/address"); got != "02:00:00:00:00:77" {
		t.Errorf("a fixed hardware address: %s", got)
	}
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "listed", "--ip", "10.99.0.77", "host", "true"); code == 0 || !strings.Contains(errs, "10.99.0.77") {
		t.Errorf("an address that is taken: exit %d, %s", code, errs)
	}
	d.Must(t, "restart", "-t", "0", "bb")
	if got := ip(t, d.Daemon, "bb", "listed"); got == "" {
		t.Error("no address after a restart")
	}
	if _, errs, code := d.Fief(t, "network", "rm", "listed"); code == 0 || !strings.Contains(errs, "listed.conflist") {
		t.Errorf("network rm: exit %d, %s", code, errs)
	}
	d.Must(t, "rm", "-f", "aa", "bb", "cc")
	d.leases(t, "")
	ruleless(t, "8081")
	ruleless(t, "10.99.0.2/")
}

// TestCNIConnect: a container that runs is put on a list's network and taken off.
func TestCNIConnect(t *testing.T) {
	d := startListed(t, nil)
	d.put(t, "of-a-file", chain)
	file := filepath.Join(d.dir, "of-a-file.conflist")
	moved := filepath.Join(d.dir, "of-a-file.elsewhere")
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	d.Must(t, "network", "create", "-d", "cni", "-o", "conflist="+moved, "mine")
	os.Remove(moved) // what was read is what counts
	a := run(t, d.Daemon, "aa", "--network", "mine")
	d.Must(t, "network", "create", "--internal", "shut")
	b := run(t, d.Daemon, "bb", "--network", "shut")
	reach(t, "before", b.Ask, "10.99.0.2:80", "")
	d.Must(t, "network", "connect", "mine", "bb")
	reach(t, "connected", b.Ask, "10.99.0.2:80", ip(t, d.Daemon, "bb", "mine"))
	if got := d.Must(t, "exec", "bb", "getent", "ahostsv4", "aa"); !strings.Contains(got, "10.99.0.2") {
		t.Errorf("its name: %s", got)
	}
	reach(t, "back", a.Ask, net.JoinHostPort(ip(t, d.Daemon, "bb", "mine"), "80"), "any")
	d.Must(t, "network", "disconnect", "mine", "bb")
	d.leases(t, "10.99.0.2")
	reach(t, "disconnected", b.Ask, "10.99.0.2:80", "")
	d.Must(t, "rm", "-f", "aa", "bb")
	d.leases(t, "")
	d.Must(t, "network", "rm", "mine", "shut")
}

// TestCNIKilled: what plugins gave is taken back by the next daemon, when a
// container ended without one, and when a daemon was killed while plugins ran.
func TestCNIKilled(t *testing.T) {
	d := startListed(t, map[string]string{"listed": chain})
	run(t, d.Daemon, "aa", "--network", "listed", "-p", "8081:80")
	run(t, d.Daemon, "bb", "--network", "listed")
	d.leases(t, "10.99.0.2 10.99.0.3")
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "aa")
	d.Kill(t)
	if err := exec.Command("kill", "-9", pid).Run(); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	d.leases(t, "10.99.0.3") // bb runs on, and keeps its own
	ruleless(t, "8081")
	d.Must(t, "rm", "-f", "aa", "bb")
	d.leases(t, "")

	// Killed in the middle: the plugin that is after the one that has given an address
	// waits.
	list := strings.Replace(chain, "{\"type\": \"portmap\"", "{\"type\": \"slow\"}, {\"type\": \"portmap\"", 1)
	d.put(t, "slow", list)
	script(t, d.dir, "slow", `if [ $CNI_COMMAND = ADD ]; then touch DIR/reached; sleep 1000; fi; echo '{}'`)
	cmd := d.Command(t, "fief", "run", "-d", "--name", "cc", "--network", "slow", "host", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := os.Stat(d.dir + "/reached"); return err == nil }, d.Log)
	d.leases(t, "10.99.0.2")
	d.Kill(t)
	cmd.Wait()
	d.Up(t)
	d.leases(t, "")
	if got := d.Must(t, "ps", "-q"); got != "" {
		t.Errorf("it runs: %s", got)
	}
	exec.Command("sh", "-c", "kill $(cat "+d.dir+"/slow.pid)").Run()
}

// script makes a plugin.
func script(t *testing.T, dir, name, body string) {
	t.Helper()
	body = strings.ReplaceAll(`#!/bin/sh
echo $$ > DIR/NAME.pid
cat > DIR/NAME.stdin
if [ $CNI_COMMAND = VERSION ]; then echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'; exit; fi
`+body+"\n", "DIR", dir)
	os.Mkdir(dir+"/bin", 0o755)
	if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte(strings.ReplaceAll(body, "NAME", name)), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestCNIHostile: whatever a plugin does, a start fails in words and in time, the
// daemon goes on, and what does work is taken back.
func TestCNIHostile(t *testing.T) {
	d := startListed(t, nil, "--cni-timeout", "3s")
	for _, c := range []struct{ name, body, want string }{
		{"garbage", `echo 'not{json'`, "garbage"},
		{"silent", `exit 3`, "exit status 3"},
		{"complains", `echo '{"cniVersion":"1.0.0","code":11,"msg":"the switch is","details":"on fire"}'; exit 1`, "the switch is; on fire"},
		{"mutters", `printf 'oh\033[31m no' >&2; exit 1`, "oh [31m no"},
		{"hangs", `sleep 1000`, "did not end in time"},
		{"lingers", `sleep 1000 & echo '{"cniVersion":"1.0.0","ips":[{"address":"not an address"}]}'`, "not an address"},
		{"endless", `yes`, "did not end in time"},
		{"nonsense", `echo '{"cniVersion":"1.0.0","interfaces":null,"ips":[null,{"address":"10.1.2.3/24","interface":7}]}'; exit 0`, ""},
		{"nulls", `echo '{"cniVersion":"0.4.0","ips":[null],"dns":{}}'`, "cannot be read"},
		{"killed", `kill -9 $$`, "signal: killed"},
	} {
		script(t, d.dir, c.name, `if [ $CNI_COMMAND != ADD ]; then exit 0; fi; `+c.body)
		d.put(t, c.name, `{"type": "`+c.name+`"}`)
		began := time.Now()
		_, errs, code := d.Fief(t, "run", "--rm", "--network", c.name, "host", "true")
		if c.want == "" && code != 0 || c.want != "" && (code != 125 || !strings.Contains(errs, c.want) || !strings.Contains(errs, c.name)) {
			t.Errorf("%s: exit %d after %v, %s", c.name, code, time.Since(began), errs)
		}
		if strings.ContainsRune(errs, 0x1b) {
			t.Errorf("%s: control characters reach the terminal: %q", c.name, errs)
		}
	}
	// A DEL that fails is told in the log and tried again by the next start.
	script(t, d.dir, "clings", `if [ $CNI_COMMAND = DEL ] && [ ! -e DIR/let-go ]; then echo '{"code":99,"msg":"I will not"}'; exit 1; fi; echo '{"cniVersion":"1.0.0"}'`)
	d.put(t, "clings", `{"type": "clings"}, `+chain)
	d.Fief(t, "run", "--name", "aa", "--network", "clings", "host", "true")
	eventually(t, func() bool { return strings.Contains(d.Log(), "I will not") }, d.Log)
	noted := func() bool { f, _ := filepath.Glob(d.Dir + "/data/cni/attached/*"); return len(f) > 0 }
	if !noted() {
		t.Error("what is not taken back is not noted")
	}
	os.WriteFile(d.dir+"/let-go", nil, 0o644)
	d.Stop(t)
	d.Up(t)
	eventually(t, func() bool { return !noted() }, d.Log)
	d.Must(t, "rm", "aa")

	for _, c := range []struct{ name, list, want string }{
		{"missing", `{"type": "no-such-plugin"}`, "no-such-plugin"},
		{"empty", ``, "no plugins"},
		{"path", `{"type": "../bridge"}`, "invalid plugin name"},
		{"nameless", `{}`, "type"},
	} {
		file := filepath.Join(t.TempDir(), "list")
		os.WriteFile(file, []byte(`{"cniVersion": "1.0.0", "name": "`+c.name+`", "plugins": [`+c.list+`]}`), 0o644)
		if _, errs, code := d.Fief(t, "network", "create", "-d", "cni", "-o", "conflist="+file, c.name); code == 0 || !strings.Contains(errs, c.want) {
			t.Errorf("create %s: exit %d, %s", c.name, code, errs)
		}
	}
	for _, c := range []struct{ flags, want string }{
		{"-o conflist=/no/such/file", "/no/such/file"}, {"-o conflist=relative/file", "not absolute"}, {"-o conflist=nobody", "nobody"},
		{"--subnet 10.1.0.0/16", "what a list of CNI says itself"}, {"--internal", "what a list of CNI says itself"}, {"-o parent=eth0", "no option parent"},
	} {
		args := append([]string{"network", "create", "-d", "cni"}, strings.Fields(c.flags)...)
		if _, errs, code := d.Fief(t, append(args, "refused")...); code == 0 || !strings.Contains(errs, c.want) {
			t.Errorf("create %s: exit %d, %s", c.flags, code, errs)
		}
	}
	d.put(t, "portless", `{"type": "clings"}`)
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "portless", "-p", "8083:80", "host", "true"); code != 125 || !strings.Contains(errs, "portMappings") {
		t.Errorf("publish without portmap: exit %d, %s", code, errs)
	}
	if _, errs, code := d.Fief(t, "run", "--rm", "--network", "portless", "--ip", "10.9.9.9", "host", "true"); code != 125 || !strings.Contains(errs, "10.9.9.9") {
		t.Errorf("an address that nobody gives: exit %d, %s", code, errs)
	}
}
