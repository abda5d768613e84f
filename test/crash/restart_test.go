package crash

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestPoliciesOverARestart: what ended while there was no daemon is started by
// the next one if its policy says so, and what a user stopped only by `always`.
func TestPoliciesOverARestart(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "kept", "--restart", "unless-stopped", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "killed", "--restart", "unless-stopped", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "stopped", "--restart", "unless-stopped", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "never", "busybox", "sleep", "1000")
	d.Must(t, "create", "--name", "fresh", "--restart", "always", "busybox", "sleep", "1000")
	d.Must(t, "stop", "-t", "0", "stopped", "always")
	kept := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "kept")
	killed := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "killed")
	never := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "never")
	d.Kill(t)
	if out, err := exec.Command("kill", "-9", killed, never).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	time.Sleep(300 * time.Millisecond)
	d.Up(t)
	state := func(name string) string {
		return d.Must(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", name)
	}
	for name, want := range map[string]string{"killed": "running 1", "always": "running 1", "kept": "running 0",
		"stopped": "exited 0", "never": "exited 0", "fresh": "created 0"} {
		for end := time.Now().Add(time.Minute); state(name) != want && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		}
		if got := state(name); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}
	if now := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "kept"); now != kept {
		t.Errorf("what ran on had pid %s, has %s", kept, now)
	}
	d.Must(t, "rm", "-f", "kept", "killed", "stopped", "always", "never", "fresh")
	if left := strings.TrimSpace(d.Must(t, "ps", "-aq")); left != "" {
		t.Errorf("left: %s", left)
	}
}
