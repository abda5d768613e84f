package network_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestKilledBetween: a daemon killed between giving a container its addresses
// and starting it leaves no address taken, and one killed right after the start
// leaves none that is given twice.
func TestKilledBetween(t *testing.T) {
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-trimpath", "-o", bin+"/", "./cmd/fiefd", "./cmd/fief-mon")
	cmd.Dir = testenv.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
