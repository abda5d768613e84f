package crash

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// groupsIn are the groups below a parent of a test's own, in every hierarchy.
func groupsIn(parent string) []string {
	var out []string
	for _, pattern := range []string{"/sys/fs/cgroup" + parent + "/*", "/sys/fs/cgroup/*" + parent + "/*"} {
		found, _ := filepath.Glob(pattern)
		for _, name := range found {
			if st, err := os.Stat(name); err == nil && st.IsDir() {
				out = append(out, name)
			}
		}
	}
	return out
}

// dropParent removes a test's parent of groups from every hierarchy, with what a
// test that has failed left in it.
func dropParent(parent string) {
	for _, name := range groupsIn(parent) {
		syscall.Rmdir(name)
	}
	found, _ := filepath.Glob("/sys/fs/cgroup/*" + parent)
	for _, name := range append(found, "/sys/fs/cgroup"+parent) {
		syscall.Rmdir(name)
	}
}

// A daemon killed while it starts or ends a container is followed by one that
// leaves no cgroup of it, and can start it.
func TestKilledLeavesNoGroup(t *testing.T) {
	fast(t)
	const parent = "/fief-test-groups"
	t.Cleanup(func() { dropParent(parent) })
	k := newKillable(t, failing(t), "", 1)
	for _, point := range []string{"container-starting", "container-ended"} {
		k.todo = []deed{{args: []string{"run", "--rm", "--name", fleeting + point, "--memory", "64m", "--cgroup-parent", parent, kept, "true"}}}
		if !k.killed(t, point, 1, 1) {
			t.Errorf("%s was not reached", point)
		}
		k.lasting(t)
		if left := groupsIn(parent); len(left) > 0 {
			t.Errorf("%s, run --rm: groups are left: %v", point, left)
		}
	}
	k.Must(t, "create", "--name", "again", "--memory", "64m", "--cgroup-parent", parent, kept, "sh", "-c", "exit 7")
	for _, which := range []string{"first", "second"} {
		k.todo = []deed{{args: []string{"start", "again"}}}
		if !k.killed(t, "container-starting", 1, 1) {
			t.Error("container-starting was not reached")
		}
		if left := groupsIn(parent); len(left) > 0 {
			t.Errorf("%s start: groups are left: %v", which, left)
		}
		k.Must(t, "start", "again")
		if got := k.Must(t, "wait", "again"); got != "7" {
			t.Errorf("%s start: it ended with %s", which, got)
		}
	}
	k.Must(t, "rm", "-f", "again", "keeper")
}

// A daemon killed in the middle of a verb on a running container is followed by
// one for which the verb was carried out or was not: nothing in between.
func TestKilledInVerbs(t *testing.T) {
	fast(t)
	k := newKillable(t, failing(t), "", 1)
	for _, c := range []struct {
		point  string
		before []string // verbs with the container's name at the end
		verb   []string
		states string // it may be in afterwards
	}{
		{"container-frozen", nil, []string{"pause"}, "running"},
		{"container-unpausing", []string{"pause"}, []string{"unpause"}, "running"},
		{"container-stopping", nil, []string{"stop", "-t", "1"}, "running"},
		{"container-signalled", nil, []string{"stop", "-t", "1"}, "running exited"},
		{"container-killed", nil, []string{"kill"}, "exited"},
		{"container-between", nil, []string{"restart", "-t", "0"}, "exited running"},
		{"container-starting", nil, []string{"restart", "-t", "0"}, "exited running"},
		{"container-started", nil, []string{"restart", "-t", "0"}, "running"},
		{"limits-set", nil, []string{"update", "--memory", "128m", "--memory-swap", "-1"}, "running"},
		{"exec-starting", nil, nil, "running"},
	} {
		name := "verbs-" + c.point + "-" + strings.Join(c.verb[:min(len(c.verb), 1)], "")
		k.Must(t, "run", "-d", "--name", name, "--memory", "64m", "--memory-swap", "-1", "--health-cmd", "true", kept, "sleep", "1000")
		if c.before != nil {
			k.Must(t, append(c.before, name)...)
		}
		args := append(append([]string{}, c.verb...), name)
		if c.verb == nil {
			args = []string{"exec", name, "true"}
		}
		k.todo = []deed{{args: args}}
		if !k.killed(t, c.point, 1, 1) {
			t.Errorf("%s was not reached by %v", c.point, args)
		}
		state := k.Must(t, "inspect", "-f", "{{.State.Status}}", name)
		if !strings.Contains(c.states, state) {
			t.Errorf("%s: it is %s, not %s", c.point, state, c.states)
		}
		if state != "running" {
			k.Must(t, "start", name)
		}
		if got := k.Must(t, "exec", name, "echo", "goes on"); got != "goes on" {
			t.Errorf("%s: exec says %q", c.point, got)
		}
		k.Must(t, "update", "--memory", "256m", name)
		k.Must(t, "restart", "-t", "0", name)
		k.Must(t, "rm", "-f", name)
	}
	k.Must(t, "rm", "-f", "keeper")
}

// A daemon killed before it has told the monitor of a health check is followed by
// one that does.
func TestKilledBeforeHealth(t *testing.T) {
	fast(t)
	k := newKillable(t, failing(t), "", 1)
	k.todo = []deed{{args: []string{"run", "-d", "--name", "armed", "--health-cmd", "true", "--health-interval", "1s", kept, "sleep", "1000"}}}
	if !k.killed(t, "health-arming", 1, 1) {
		t.Log("it had answered before")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got := k.Must(t, "inspect", "-f", "{{.State.Health.Status}}", "armed")
		if got == "healthy" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is %s", got)
		}
	}
	k.Must(t, "rm", "-f", "armed", "keeper")
}

// A client of an exec session that is killed leaves the session's process and its
// container alone; a monitor that is killed takes its container with it, and
// nothing is left of either.
func TestKilledClientAndMonitor(t *testing.T) {
	const parent = "/fief-test-monitor"
	t.Cleanup(func() { dropParent(parent) })
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "box", "--cgroup-parent", parent, "busybox", "sleep", "1000")
	client := d.Command(t, "fief", "exec", "box", "sh", "-c", "touch /tmp/begun; while test ! -e /tmp/go; do sleep 0.1; done; touch /tmp/done; exec sleep 1000")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	d.Must(t, "exec", "box", "sh", "-c", "while test ! -e /tmp/begun; do sleep 0.1; done")
	client.Process.Kill()
	client.Wait()
	d.Must(t, "exec", "box", "sh", "-c", "touch /tmp/go; while test ! -e /tmp/done; do sleep 0.1; done")

	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "box")
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	monitor, err := strconv.Atoi(strings.Fields(rest)[1]) // its parent, proc_pid_stat(5)
	if err == nil {
		err = syscall.Kill(monitor, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Must(t, "wait", "box"); got != "137" {
		t.Errorf("it ended with %s", got)
	}
	for end := time.Now().Add(time.Minute); len(groupsIn(parent)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("groups are left: %v", groupsIn(parent))
		}
	}
	d.Must(t, "start", "box")
	d.Must(t, "rm", "-f", "box")
}
