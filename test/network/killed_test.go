package network_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/kernel/link"
	"fief/internal/testenv"
)

func withFailpoints(t *testing.T) (bin string) {
	t.Helper()
	testenv.NeedRoot(t)
	bin = t.TempDir()
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-trimpath", "-o", bin+"/", "./cmd/fiefd", "./cmd/fief-mon")
	cmd.Dir = testenv.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestKilledBetween: a daemon killed between giving a container its addresses
// and starting it leaves no address taken, and one killed right after the start
// leaves none that is given twice.
func TestKilledBetween(t *testing.T) {
	bin := withFailpoints(t)
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.87.0.0/24", "mine")
	for _, point := range []string{"network-attached", "network-noted", "container-starting", "container-started", "container-ended"} {
		d.Stop(t)
		d.Build(bin)
		os.Setenv("FIEF_FAILPOINT", point+":1")
		d.Up(t)
		os.Unsetenv("FIEF_FAILPOINT")
		d.Fief(t, "run", "-d", "--name", "lost", "--network", "mine", "-p", "8080:80", "host", "sleep", "1000")
		if point == "container-ended" {
			d.Fief(t, "kill", "lost")
		}
		for end := time.Now().Add(time.Minute); !d.Ended(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the daemon was not killed", point)
			}
		}
		d.Build("")
		d.Up(t)
		running := strings.Contains(d.Must(t, "ps", "--format", "{{.Names}}"), "lost")
		if want := point == "container-started"; running != want {
			t.Errorf("%s: it runs: %v", point, running)
		}
		want := "10.87.0.2"
		if running {
			want = "10.87.0.3"
			if got := ip(t, d, "lost", "mine"); got != "10.87.0.2" {
				t.Errorf("%s: what runs is said to have %q", point, got)
			}
			if out, _ := exec.Command("nsenter", "-n", "-t", d.Must(t, "inspect", "-f", "{{.State.Pid}}", "lost"), "ip", "-br", "addr").Output(); !strings.Contains(string(out), "10.87.0.2/24") {
				t.Errorf("%s: it has %s", point, out)
			}
		}
		d.Must(t, "run", "-d", "--name", "next", "--network", "mine", "host", "sleep", "1000")
		if got := ip(t, d, "next", "mine"); got != want {
			t.Errorf("%s: the next container has %s, not %s", point, got, want)
		}
		_, errs, code := d.Fief(t, "run", "--rm", "--network", "mine", "-p", "8080:81", "host", "true")
		if (code == 0) == running {
			t.Errorf("%s: publishing the port again: exit %d, %s", point, code, errs)
		}
		d.Fief(t, "rm", "-f", "lost")
		d.Must(t, "rm", "-f", "next")
	}
	d.Must(t, "network", "rm", "mine")
}

// killedAt starts a daemon of a build with failpoints, which ends at one of them.
func killedAt(t *testing.T, d *testenv.Daemon, bin, point string, args ...string) {
	t.Helper()
	d.Stop(t)
	d.Build(bin)
	os.Setenv("FIEF_FAILPOINT", point+":1")
	d.Up(t)
	os.Unsetenv("FIEF_FAILPOINT")
	d.Fief(t, args...)
	for end := time.Now().Add(time.Minute); !d.Ended(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s was not reached by %v", point, args)
		}
	}
	d.Build("")
	d.Up(t)
}

// TestKilledInNetworks: a daemon killed at each step of making, joining, leaving,
// removing and pruning a network is followed by one that has all of it or nothing,
// and of which nothing else is left.
func TestKilledInNetworks(t *testing.T) {
	bin := withFailpoints(t)
	d := start(t)
	d.Must(t, "network", "create", "--subnet", "10.87.0.0/24", "mine")
	d.Must(t, "run", "-d", "--name", "web", "host", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "peer", "--network", "mine", "host", "sleep", "1000")
	bridges := devices(t, "bridge")
	inside := func() string {
		out, err := exec.Command("nsenter", "-n", "-t", d.Must(t, "inspect", "-f", "{{.State.Pid}}", "web"), "ip", "-br", "addr", "show", "type", "veth").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, point := range []string{"network-recorded", "network-made"} {
		killedAt(t, d, bin, point, "network", "create", "--subnet", "10.86.0.0/24", "made")
		there := strings.Contains(d.Must(t, "network", "ls", "--format", "{{.Name}}"), "made")
		if want := bridges + map[bool]int{true: 1}[there]; devices(t, "bridge") != want {
			t.Errorf("%s: the network is there: %v, and %d bridges, not %d", point, there, devices(t, "bridge"), want)
		}
		if there {
			d.Must(t, "run", "--rm", "--network", "made", "host", "true")
			d.Must(t, "network", "rm", "made")
		}
		d.Must(t, "network", "create", "--subnet", "10.86.0.0/24", "made") // nobody has its subnet
		d.Must(t, "network", "rm", "made")
	}
	for _, point := range []string{"network-unmade", "network-unrecorded"} {
		for _, verb := range [][]string{{"network", "rm", "made"}, {"network", "prune", "-f"}} {
			d.Must(t, "network", "create", "--subnet", "10.86.0.0/24", "made")
			killedAt(t, d, bin, point, verb...)
			there := strings.Contains(d.Must(t, "network", "ls", "--format", "{{.Name}}"), "made")
			if want := bridges + map[bool]int{true: 1}[there]; devices(t, "bridge") != want {
				t.Errorf("%s by %v: the network is there: %v, and %d bridges, not %d", point, verb, there, devices(t, "bridge"), want)
			}
			if there {
				d.Must(t, "run", "--rm", "--network", "made", "host", "true")
				d.Must(t, "network", "rm", "made")
			}
		}
	}
	for _, point := range []string{"network-joining", "network-joined", "container-noted", "network-leaving", "network-left"} {
		verb := []string{"network", "connect", "mine", "web"}
		if strings.HasPrefix(point, "network-lea") || point == "network-left" {
			d.Must(t, verb...)
			verb[1] = "disconnect"
		}
		killedAt(t, d, bin, point, verb...)
		d.Must(t, "exec", "web", "true") // which waits for its taking up
		on := strings.Contains(d.Must(t, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "web"), `"mine"`)
		has := strings.Contains(inside(), "10.87.0.3/24")
		if n := devices(t, "veth"); on != has || n != 2+map[bool]int{true: 1}[on] {
			t.Errorf("%s: it is said to be on the network: %v; %d devices of the host, inside\n%s", point, on, n, inside())
		}
		if !on {
			d.Must(t, "network", "connect", "mine", "web")
			if got := ip(t, d, "web", "mine"); got != "10.87.0.3" {
				t.Errorf("%s: then it has %s", point, got)
			}
		}
		d.Must(t, "exec", "web", "busybox", "ping", "-c", "1", "-W", "20", ip(t, d, "peer", "mine"))
		d.Must(t, "network", "disconnect", "mine", "web")
		d.Must(t, "exec", "web", "busybox", "ping", "-c", "1", "-W", "20", d.Must(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"))
	}
	d.Must(t, "rm", "-f", "web", "peer")
	d.Must(t, "network", "rm", "mine")
}

// devices counts the host's devices of a kind.
func devices(t *testing.T, kind string) (n int) {
	t.Helper()
	all, err := link.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, dev := range all {
		if dev.Kind == kind {
			n++
		}
	}
	return n
}
