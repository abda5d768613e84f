package accounting

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stranger is a user of the host without processes or name.
const stranger = 60_123

// extents maps a container's ids to the host ids of block n of those behind the
// pool. The tests of different resources use different ones: keys, for one, are
// given back some time after their process has ended.
func extents(n int) []string {
	m := fmt.Sprintf("0:%d:65536", 2_000_000_000+n*65536)
	return []string{"--uidmap", m, "--gidmap", m}
}

// One container uses up all it may have; another one at the same time, and the
// host, have everything (story 10).
func TestApart(t *testing.T) {
	e := start(t, capped())
	auto := []string{"--userns=auto"}
	for i, r := range resources(t) {
		t.Run("auto/"+r.name, func(t *testing.T) { e.apart(t, r, auto, auto) })
		t.Run("explicit/"+r.name, func(t *testing.T) { e.apart(t, r, extents(2*i), extents(2*i+1)) })
	}
}

func (e *engine) apart(t *testing.T, r resource, first, other []string) {
	r.check(t)
	defer e.remove(t, "first", "other")
	alone, why := e.hoard(t, "first", r, first)
	r.wantFull(t, "the first", alone, why)
	e.outside(t, r, 0)
	e.outside(t, r, stranger)
	beside, why := e.hoard(t, "other", r, other)
	r.wantFull(t, "the other", beside, why)
	if diff := alone - beside; diff < -2 || diff > 2 {
		t.Errorf("%s: %d alone, %d beside it", r.name, alone, beside)
	}
}

func (e *engine) remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		e.Fief(t, "rm", "-f", name)
	}
}

// What would be the case without ids of one's own: containers that were given
// the same ones share, and processes of one container do. This shows that
// TestApart can fail. When they are gone, everything is there again.
func TestSameIDsShare(t *testing.T) {
	e := start(t, capped())
	for i, r := range resources(t) {
		same := extents(100 + i)
		t.Run(r.name, func(t *testing.T) {
			r.check(t)
			defer e.remove(t, "first", "other", "later")
			n, why := e.hoard(t, "first", r, same)
			r.wantFull(t, "the first", n, why)
			e.sharedInside(t, r)
			other, why := e.hoard(t, "other", r, same)
			if r.roomy {
				r.wantFull(t, "the other", other, why)
			} else if other > r.slack {
				t.Errorf("a container with the same ids got %d more %s", other, r.name)
			}
			e.outside(t, r, 0)
			e.outside(t, r, stranger)
			e.remove(t, "first", "other")
			e.givenBack(t, r, same)
		})
	}
}

// sharedInside wants nothing to be left for another process of the container.
func (e *engine) sharedInside(t *testing.T, r resource) {
	t.Helper()
	out, errs, code := e.Fief(t, "exec", "first", "/hoard", "-quit", r.name)
	if n, why, ok := parse(out); ok && n > r.slack {
		t.Errorf("a process beside it got %d more %s: %s", n, r.name, why)
	} else if !ok && r.name != "nproc" { // where it does not come to anything
		t.Errorf("exec: exit %d\n%s%s", code, out, errs)
	}
}

// givenBack wants everything for a new container, soon: keys are collected.
func (e *engine) givenBack(t *testing.T, r resource, mapping []string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		n, why := e.hoard(t, "later", r, mapping)
		if n >= r.full-r.slack {
			return
		}
		if time.Now().After(end) {
			r.wantFull(t, "a later one", n, why)
			return
		}
		e.remove(t, "later")
	}
}

// The kernel counts for the one who made the user namespace: not for root, but
// for the host id behind the container's root.
func TestOwner(t *testing.T) {
	e := start(t, nil)
	e.owner(t, "auto", "--userns=auto")
	e.owner(t, "default")
	e.owner(t, "explicit", extents(200)...)
	e.owner(t, "reversed", "--uidmap", "1:2000000000:1000", "--uidmap", "0:2000005000:1", "--gidmap", "0:2000100000:2000")
	e.owner(t, "lone", "--uidmap", "0:2000000042:1", "--gidmap", "0:2000000043:1")
}

// ownEtc lets a daemon see a copy of /etc that it may write, with a user tester
// who has ids of others.
const ownEtc = `set -e
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc
echo 'tester:x:4242:4242::/:/bin/false' >>/etc/passwd
echo 'tester:x:4242:' >>/etc/group
echo 'tester:700000:65536' | tee /etc/subuid >/etc/subgid
exec "$@"
`

func TestOwnerWithRemap(t *testing.T) {
	e := start(t, []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", ownEtc, t.TempDir()}, "--userns-remap", "tester")
	if got := e.owner(t, "remap"); got != 700000 {
		t.Errorf("owner %d", got)
	}
	if got := e.owner(t, "auto", "--userns=auto"); got == 700000 {
		t.Error("--userns=auto is accounted with the daemon's range")
	}
}

// owner checks who made a container's user namespace, and returns it.
func (e *engine) owner(t *testing.T, name string, mapping ...string) int {
	t.Helper()
	args := append([]string{"run", "-d", "--name", name}, options(mapping)...)
	e.Must(t, append(args, "hoard", "files", "1")...)
	defer e.remove(t, name)
	proc := "/proc/" + e.Must(t, "inspect", "-f", "{{.State.Pid}}", name)
	ns, err := os.Open(proc + "/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	owner, err := unix.IoctlGetUint32(int(ns.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil {
		t.Fatal(err)
	}
	// Real, effective, saved and file system id of the container's root.
	if got := status(t, proc, "Uid"); !slices.Equal(got, slices.Repeat([]string{strconv.Itoa(int(owner))}, 4)) || owner == 0 {
		t.Errorf("%s: the namespace is %d's, its root is %v", name, owner, got)
	}
	gids := status(t, proc, "Gid")
	if gids[0] == "0" || !slices.Equal(gids, slices.Repeat(gids[:1], 4)) {
		t.Errorf("%s: groups of its root are %v", name, gids)
	}
	return int(owner)
}

// status returns the words of a line of /proc/PID/status.
func status(t *testing.T, proc, key string) []string {
	t.Helper()
	b, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatalf("no %s in %s", key, b)
	return nil
}
