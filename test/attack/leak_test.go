package attack

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestDescriptorsAreClosed: the daemon and a monitor have the descriptors they
// had after commands have been run, attached to and killed: without the garbage
// collector, which would close what was forgotten.
func TestDescriptorsAreClosed(t *testing.T) {
	t.Setenv("GOGC", "off")
	d := testenv.Start(t)
	d.Busybox(t)
	id := strings.TrimSpace(d.Must(t, "run", "-d", "-i", "--network", "none", "busybox", "sleep", "100000"))
	defer d.Must(t, "rm", "-f", id)
	monitor := parent(t, d, id)
	cycle := func(i int) {
		switch {
		case i%10 == 0:
			d.Must(t, "run", "--rm", "--network", "none", "busybox", "true")
		case i%10 == 1:
			n := strings.TrimSpace(d.Must(t, "run", "-d", "--network", "none", "busybox", "sleep", "1000"))
			d.Must(t, "kill", n)
			d.Must(t, "rm", "-f", n)
		case i%10 == 2:
			d.Fief(t, "exec", id, "nosuch")
		case i%10 == 3:
			d.Fief(t, "exec", id, "sh", "-c", "kill -9 $$")
		case i%10 == 4:
			d.Fief(t, "run", "--rm", "--network", "none", "busybox", "nosuch")
		default:
			d.Must(t, "exec", id, "true")
		}
	}
	for i := range 20 { // what is kept ready is, then
		cycle(i)
	}
	before, beforeMonitor := fds(d.PID()), fds(monitor)
	for range 60 { // until nothing is made ready behind any more
		time.Sleep(time.Second)
		earlier, earlierMonitor := before, beforeMonitor
		before, beforeMonitor = fds(d.PID()), fds(monitor)
		if maps.Equal(before, earlier) && maps.Equal(beforeMonitor, earlierMonitor) {
			break
		}
	}
	for i := range 200 {
		cycle(i)
	}
	var after, afterMonitor map[string]int
	for range 600 {
		after, afterMonitor = fds(d.PID()), fds(monitor)
		if same(after, before) && maps.Equal(afterMonitor, beforeMonitor) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("daemon %v, before %v; monitor %v, before %v", after, before, afterMonitor, beforeMonitor)
}

// same allows for what is being made ready in the very moment.
func same(a, b map[string]int) bool {
	for k := range a {
		if a[k] > b[k]+2 {
			return false
		}
	}
	return true
}

// parent is the monitor of a container.
func parent(t *testing.T, d *testenv.Daemon, id string) int {
	t.Helper()
	pid := strings.TrimSpace(d.Must(t, "inspect", "-f", "{{.State.Pid}}", id))
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	n, err := strconv.Atoi(strings.Fields(rest)[1])
	if err != nil {
		t.Fatal(err)
	}
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", n)); exe != "/fief-mon" {
		t.Fatal("not a monitor: ", exe)
	}
	return n
}
