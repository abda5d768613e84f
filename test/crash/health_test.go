package crash

import (
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestHealthWithoutADaemon: the monitor goes on checking while there is no
// daemon, and the next one knows at once what was found.
func TestHealthWithoutADaemon(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "watched", "--health-interval", "1s", "--health-retries", "1",
		"--health-cmd", "echo probe >> /tmp/n; test ! -e /tmp/bad", "busybox", "sh", "-c", "sleep 10; touch /tmp/bad; exec sleep 1000")
	health := func() string { return d.Must(t, "inspect", "-f", "{{.State.Health.Status}}", "watched") }
	for end := time.Now().Add(20 * time.Second); health() != "healthy"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is %s", health())
		}
	}
	d.Kill(t)
	killed := time.Now()
	time.Sleep(15 * time.Second) // meanwhile it becomes unhealthy
	d.Up(t)
	if got := health(); got != "unhealthy" {
		t.Errorf("after the restart it is %s", got)
	}
	first := d.Must(t, "inspect", "-f", "{{(index .State.Health.Log 0).Start}}", "watched")
	at, err := time.Parse(time.RFC3339, first)
	if err != nil || at.Before(killed) {
		t.Errorf("the oldest of five probes was at %s, the daemon killed at %v (%v)", first, killed, err)
	}
	from := time.Now()
	probes := strings.Count(d.Must(t, "exec", "watched", "cat", "/tmp/n"), "probe")
	time.Sleep(3 * time.Second)
	if more := strings.Count(d.Must(t, "exec", "watched", "cat", "/tmp/n"), "probe"); more <= probes || more > probes+1+int(time.Since(from)/time.Second) {
		t.Errorf("%d probes, %v later %d: one monitor probes once a second", probes, time.Since(from), more)
	}
	d.Must(t, "rm", "-f", "watched")
}
