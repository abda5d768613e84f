package crash

import (
	"os"
	"path/filepath"
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
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	d.Must(t, "run", "-d", "--name", "watched", "--health-interval", "1s", "--health-retries", "1", "-v", dir+":/s",
		"--health-cmd", "echo probe >> /s/n; test ! -e /s/bad", "busybox", "sleep", "1000")
	probes := func() int {
		noted, _ := os.ReadFile(filepath.Join(dir, "n"))
		return strings.Count(string(noted), "probe")
	}
	more := func(than int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); probes() <= than; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it stays at %d probes", probes())
			}
		}
	}
	health := func() string { return d.Must(t, "inspect", "-f", "{{.State.Health.Status}}", "watched") }
	for end := time.Now().Add(time.Minute); health() != "healthy"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it is %s", health())
		}
	}
	d.Kill(t)
	killed := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "bad"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	more(probes() + 7) // five are kept, and one may have begun before
	d.Up(t)
	if got := health(); got != "unhealthy" {
		t.Errorf("after the restart it is %s", got)
	}
	first := d.Must(t, "inspect", "-f", "{{(index .State.Health.Log 0).Start}}", "watched")
	at, err := time.Parse(time.RFC3339, first)
	if err != nil || at.Before(killed) {
		t.Errorf("the oldest of five probes was at %s, the daemon killed at %v (%v)", first, killed, err)
	}
	from, before := time.Now(), probes()
	more(before + 2)
	if now := probes(); now > before+1+int(time.Since(from)/time.Second) {
		t.Errorf("%d probes, %v later %d: one monitor probes once a second", before, time.Since(from), now)
	}
	d.Must(t, "rm", "-f", "watched")
}
