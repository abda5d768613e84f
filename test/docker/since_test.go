package docker

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	"fief/internal/testenv"
)

// TestLogsSinceStart: compose follows a container that has been started by asking
// for what it has said since State.StartedAt, and must miss nothing of it, on a busy
// machine either.
func TestLogsSinceStart(t *testing.T) {
	d := startForVerbs(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			script := strings.ReplaceAll(`docker run -d --name NAME busybox echo at once >/dev/null && docker wait NAME >/dev/null &&
				docker logs --since "$(docker inspect -f '{{.State.StartedAt}}' NAME)" NAME`, "NAME", "once"+strconv.Itoa(i))
			if out, errs, code := testenv.Output(t, d.Command(t, "sh", "-c", script)); out != "at once\n" {
				t.Errorf("exit %d: %q %s", code, out, errs)
			}
		})
	}
	all.Wait()
}
