package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// claim is a line of `fief ids --json`.
type claim struct {
	First, Last    uint32
	Kind, Holder   string
	Container, Why string
	Overlaps       []string
}

// claims lists who has which ids; no two may have the same.
func claims(t *testing.T, d *testenv.Daemon, kind string) (out []claim) {
	t.Helper()
	for line := range strings.Lines(d.Must(t, "ids", "--json")) {
		var c claim
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if len(c.Overlaps) > 0 && c.Kind != "user" && c.Kind != "group" {
			t.Errorf("ids of two: %s", line)
		}
		if c.Kind == kind {
			out = append(out, c)
		}
	}
	return out
}

func mapsOf(t *testing.T, d *testenv.Daemon, name string) string {
	t.Helper()
	return d.Must(t, "inspect", "-f", "{{json .HostConfig.IDMappings}}", name)
}

// A container keeps its ids whatever they are made of over a restart and over a
// reboot, after which the run directory is empty; nobody else gets them.
func TestIDsSurviveAReboot(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	asks := map[string][]string{
		"plain":  nil,
		"sized":  {"--userns", "auto:size=200000"},
		"extra":  {"--userns", "auto:uidmapping=5:4321:1"},
		"kept":   {"--userns", "keep-id:uid=1234,gid=1235"},
		"mapped": {"--uidmap", "0:700000:1000"},
		"joined": {"--userns", "container:plain"},
	}
	before := map[string]string{}
	for _, name := range []string{"plain", "sized", "extra", "kept", "mapped", "joined"} {
		args := append([]string{"create", "--name", name}, asks[name]...)
		d.Must(t, append(args, "busybox", "sleep", "1000")...)
		before[name] = mapsOf(t, d, name)
	}
	d.Must(t, "start", "plain", "kept")
	for _, reboot := range []bool{false, true} {
		if reboot {
			d.Must(t, "stop", "-t", "0", "plain", "kept")
		}
		d.Kill(t)
		if reboot {
			if err := os.RemoveAll(d.Dir + "/run"); err != nil {
				t.Fatal(err)
			}
		}
		d.Up(t)
		for range 8 {
			d.Must(t, "create", "busybox")
		}
		for name, was := range before {
			if now := mapsOf(t, d, name); now != was {
				t.Errorf("reboot %v: %s had %s, has %s", reboot, name, was, now)
			}
		}
		if n := len(claims(t, d, "lease")); n < 4+8 {
			t.Errorf("reboot %v: %d leases", reboot, n)
		}
	}
	for name := range before {
		d.Must(t, "start", "plain")
		d.Must(t, "start", name)
	}
}

// A daemon that is killed while a container gets other ids leaves it with the
// old ones or the new ones, and the pool knows which.
func TestKilledWhileUpdating(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "--name", "box", "busybox", "sh", "-c", "echo mine >/root/file; chown 33:50 /root/file")
	for round := range 8 {
		was := mapsOf(t, d, "box")
		size := 1000 + round
		cmd := d.Command(t, "fief", "update", "--userns", fmt.Sprintf("auto:size=%d", size), "box")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond)
		d.Kill(t)
		cmd.Wait()
		d.Up(t)
		now := mapsOf(t, d, "box")
		if now != was && !strings.Contains(now, fmt.Sprintf(":%d\"", size)) {
			t.Errorf("round %d: had %s, has %s", round, was, now)
		}
		var own []claim
		for _, c := range claims(t, d, "lease") {
			if c.Holder == "box" {
				own = append(own, c)
			}
		}
		if len(own) != 1 || !strings.Contains(now, fmt.Sprintf("0:%d:", own[0].First)) {
			t.Errorf("round %d: the container has %s, the pool says %+v", round, now, own)
		}
	}
	d.Must(t, "run", "-d", "--name", "probe", "--userns", "host", "busybox", "sleep", "1000")
	d.Must(t, "update", "--userns", "auto:size=500", "box")
	d.Must(t, "start", "box") // its root is writable under every map, whoever wrote to it before
	if code := d.Must(t, "wait", "box"); code != "0" {
		t.Errorf("the container ended with %s", code)
	}
}

// The ids of a container that has left a file in a directory of the host wait
// until the file is gone, over a killed daemon too.
func TestIDsWaitForFiles(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	src := filepath.Join(d.Dir, "src")
	if err := os.Mkdir(src, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(src, 0o777); err != nil {
		t.Fatal(err)
	}
	d.Must(t, "run", "--rm", "-v", src+":/src", "busybox", "touch", "/src/left")
	d.Must(t, "run", "--rm", "-v", src+":/src:ro", "busybox", "true") // could not write: nothing to wait for
	waits := func() bool {
		return len(claims(t, d, "quarantine")) == 1 && strings.Contains(claims(t, d, "quarantine")[0].Why, src)
	}
	if !within(waits) {
		t.Fatalf("quarantine: %+v", claims(t, d, "quarantine"))
	}
	first := claims(t, d, "quarantine")[0].First
	time.Sleep(200 * time.Millisecond) // what is noted behind reaches the disk
	d.Kill(t)
	d.Up(t)
	if !within(waits) || claims(t, d, "quarantine")[0].First != first {
		t.Fatalf("after a restart: %+v", claims(t, d, "quarantine"))
	}
	if err := os.Remove(filepath.Join(src, "left")); err != nil {
		t.Fatal(err)
	}
	d.Kill(t) // a new daemon looks at once
	d.Up(t)
	if !within(func() bool { return len(claims(t, d, "quarantine")) == 0 }) {
		t.Errorf("the file is gone: %+v", claims(t, d, "quarantine"))
	}
}

func within(done func() bool) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if done() {
			return true
		}
	}
	return false
}
