package accounting

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// names are how /proc/PID/limits calls the limits that a user namespace takes
// over from its creator.
var names = map[string]string{"nproc": "Max processes", "memlock": "Max locked memory", "sigpending": "Max pending signals", "msgqueue": "Max msgqueue size"}

// given are the limits, soft and hard, a daemon is started with.
var given = map[string][2]string{"nproc": {"2000", "3000"}, "memlock": {"65536", "4194304"}, "sigpending": {"40", "100"}, "msgqueue": {"200000", "819200"}}

// The daemon raises its own limits, which cap what its containers use taken
// together, and containers inherit those it was started with.
func TestDaemonRaisesItsLimits(t *testing.T) {
	wrap := []string{"prlimit"}
	for name, v := range given {
		wrap = append(wrap, "--"+name+"="+v[0]+":"+v[1])
	}
	for kind, before := range map[string][]string{"as it is": nil, "without CAP_SYS_RESOURCE": {"setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"}} {
		t.Run(kind, func(t *testing.T) {
			e := start(t, append(before, wrap...))
			e.Busybox(t)
			may := before == nil && holds(t, unix.CAP_SYS_RESOURCE)
			own, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", e.PID()))
			if err != nil {
				t.Fatal(err)
			}
			inside := e.Must(t, "run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/limits")
			e.Must(t, "run", "-d", "--name", "held", "--network", "none", "busybox", "sleep", "1000")
			later := e.Must(t, "exec", "held", "cat", "/proc/self/limits")
			for name, v := range given {
				want := v[1] + " " + v[1]
				if may {
					want = "unlimited unlimited"
				}
				if got := limit(string(own), name); got != want {
					t.Errorf("the daemon's %s is %s, want %s", name, got, want)
				}
				if got := limit(inside, name); got != v[0]+" "+v[1] {
					t.Errorf("%s inside is %s", name, got)
				}
				if got := limit(later, name); got != v[0]+" "+v[1] {
					t.Errorf("%s of an exec session is %s", name, got)
				}
			}
			if told := strings.Count(e.Log(), "no CAP_SYS_RESOURCE"); may == (told != 0) || told > 1 {
				t.Errorf("told %d times that limits could not be raised", told)
			}
			e.notCapped(t)
		})
	}
}

// notCapped wants containers to have what their own limits say, beyond the soft
// limits the daemon was started with.
func (e *engine) notCapped(t *testing.T) {
	t.Helper()
	for _, r := range resources(t) {
		v, known := given[r.name]
		if r.name == "mqueue" {
			v, known = given["msgqueue"], true
		}
		if !known || r.name == "nproc" {
			continue
		}
		r.options = []string{"--ulimit", strings.Replace(r.name, "mqueue", "msgqueue", 1) + "=" + v[1]}
		n, why := e.hoard(t, r.name, r, nil)
		r.wantFull(t, "a container", n, why)
	}
}

// limit returns the soft and the hard limit from a text like /proc/PID/limits.
func limit(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, names[name]+" "); ok {
			return strings.Join(strings.Fields(rest)[:2], " ")
		}
	}
	return "missing"
}

// holds reports whether this process may use a capability.
func holds(t *testing.T, capability int) bool {
	t.Helper()
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
