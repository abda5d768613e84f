package script

import (
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// TestLimitsOutliveDaemon: limits, a pause and the news of a kill for memory
// survive a killed daemon, and no group is left when the containers are gone.
func TestLimitsOutliveDaemon(t *testing.T) {
	testenv.NeedRoot(t)
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "held", "--pids-limit", "30", "--memory", "48m", "--device", "/dev/null:/dev/mine", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "still", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "-i", "--name", "hog", "--memory", "32m", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exec tail /dev/zero")
	d.Must(t, "pause", "still")
	d.Must(t, "exec", "hog", "touch", "/go")
	d.Kill(t)
	d.Up(t)
	if got := d.Must(t, "wait", "hog"); strings.TrimSpace(got) != "137" {
		t.Errorf("the hog ended with %s", got)
	}
	if got := d.Must(t, "inspect", "-f", "{{.State.OOMKilled}}", "hog"); strings.TrimSpace(got) != "true" {
		t.Errorf("killed for memory: %s", got)
	}
	if got := d.Must(t, "inspect", "-f", "{{.State.Status}}", "still"); strings.TrimSpace(got) != "paused" {
		t.Errorf("the paused one is %s", got)
	}
	d.Must(t, "unpause", "still")
	d.Must(t, "exec", "still", "true")
	if _, _, code := d.Fief(t, "exec", "held", "tail", "/dev/zero"); code != 137 {
		t.Errorf("a hog in a container of the earlier daemon ended with %d", code)
	}
	d.Must(t, "update", "--pids-limit", "1", "still")
	if out, errs, code := d.Fief(t, "exec", "still", "sh", "-c", "sleep 0.1 & wait"); code == 0 {
		t.Errorf("two processes where one may be: %s%s", out, errs)
	}
	var ids []string
	for _, name := range []string{"held", "still", "hog"} {
		ids = append(ids, strings.TrimSpace(d.Must(t, "inspect", "-f", "{{.Id}}", name)))
	}
	d.Must(t, "rm", "-f", "held", "still", "hog")
	for _, id := range ids {
		for _, pattern := range []string{"/sys/fs/cgroup/fief/", "/sys/fs/cgroup/*/fief/"} {
			if left, _ := filepath.Glob(pattern + id); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		}
	}
}
