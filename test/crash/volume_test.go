package crash

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// A daemon killed while it makes, fills, mounts or removes a volume is followed by
// one that has all of it or nothing: what was acknowledged is there with all its
// files, an anonymous volume goes with its container, nothing stays mounted.
func TestKilledWithVolumes(t *testing.T) {
	fast(t)
	k := newKillable(t, failing(t), "", 2)
	etc := strings.Fields(k.Must(t, "run", "--rm", "busybox", "find", "/etc", "-type", "f"))
	for _, c := range []struct {
		points string
		deeds  []string
	}{
		{"volume-recorded volume-making volume-made", []string{"volume create new"}},
		{"volume-filling volume-copied volume-filled volume-moving", []string{"run --rm -v new:/etc busybox true"}},
		{"volume-recorded volume-making volume-made volume-filling volume-copied volume-filled volume-moving container-kept container-starting container-started",
			[]string{"run --rm -v /etc busybox true"}},
		{"container-made container-noted", []string{"create --name with -v /etc busybox true", "rm -fv with"}},
		{"volume-removing volume-renamed volume-unrecorded", []string{"volume create new", "volume rm new"}},
		{"container-removing container-unrecorded container-dropped volume-removing volume-leaving volume-unrecorded",
			[]string{"create --name with -v /etc busybox true", "rm -fv with"}},
		{"volume-mounted container-started", []string{"volume create --opt type=tmpfs --opt device=tmpfs mem", "run --rm -v mem:/m busybox true"}},
	} {
		for _, point := range strings.Fields(c.points) {
			k.todo = nil
			for _, d := range c.deeds {
				k.todo = append(k.todo, deed{args: strings.Fields(d)})
			}
			died := k.killed(t, point, 1, len(c.deeds))
			k.volumesWhole(t, point, etc)
			if !died {
				t.Errorf("%v: %s was not reached", c.deeds, point)
			}
			if t.Failed() {
				t.Fatalf("what was done:\n%s\n%s", strings.Join(k.trace, "\n"), k.Log())
			}
		}
	}
}

// volumesWhole checks what a kill at point has left, and that the same deeds work
// now. A file of each that the image has in /etc is in a volume that was filled.
func (k *killable) volumesWhole(t *testing.T, point string, etc []string) {
	t.Helper()
	k.lasting(t)
	if _, _, code := k.Fief(t, "inspect", "with"); code == 0 {
		k.Must(t, "rm", "-fv", "with")
	}
	if left := k.Must(t, "volume", "ls", "-q", "--filter", "label=com.docker.volume.anonymous"); left != "" {
		t.Errorf("%s: volumes without a container are left: %s", point, left)
	}
	known := strings.Fields(k.Must(t, "volume", "ls", "-q"))
	dirs, err := os.ReadDir(k.root() + "/volumes")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !slices.Contains(known, d.Name()) {
			t.Errorf("%s: directory %s is left", point, d.Name())
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), k.root()+"/volumes/") {
		t.Errorf("%s: something is still mounted, %v", point, err)
	}
	if out, errs, code := k.Fief(t, "system", "verify", "-q"); code != 0 {
		t.Errorf("%s: verify: %s%s", point, out, errs)
	}
	k.Must(t, "volume", "create", "new")
	got := strings.Fields(k.Must(t, "run", "--rm", "-v", "new:/etc", "busybox", "/bin/busybox", "find", "/etc", "-type", "f"))
	for _, name := range etc {
		if !slices.Contains(got, name) && name != "/etc/hosts" && name != "/etc/hostname" && name != "/etc/resolv.conf" {
			t.Errorf("%s: %s is missing in a volume that was filled", point, name)
		}
	}
	if left := k.Must(t, "run", "--rm", "-v", "new:/v", "busybox", "ls", "-A", "/v"); strings.Contains(left, ".fief-") {
		t.Errorf("%s: %s", point, left)
	}
	k.Must(t, "volume", "rm", "-f", "new", "mem")
}
