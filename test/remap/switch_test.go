package remap

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

// twoUsers is ownEtc with a second user who has a range.
var twoUsers = strings.Replace(ownEtc, "exec ", `printf 'other:x:4250:4250::/:/bin/false\n' >>/etc/passwd
printf 'other:x:4250:\n' >>/etc/group
printf 'other:1400000:65536\n' >>/etc/subuid
printf 'other:1400000:65536\n' >>/etc/subgid
exec `, 1)

// work makes a file of somebody's when there is none, and says whose it is.
const work = `test -e /root/file || { echo mine >/root/file; chown 33:50 /root/file; }; stat -c %u:%g /root/file`

// TestSwitchingCostsNothing turns userns-remap on, to another user and off:
// images and containers stay, nothing is stored again or given away, and
// stopped containers start under their own map or, when asked, under the new
// one (story 4).
func TestSwitchingCostsNothing(t *testing.T) {
	wrap := []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", twoUsers, t.TempDir()}
	d := testenv.StartWrapped(t, wrap)
	d.Busybox(t)
	image := d.Must(t, "images", "-q", "--no-trunc")
	layers := stored(t, d)
	d.Must(t, "run", "--network", "none", "--name", "before", "busybox", "sh", "-c", work)
	own := d.Must(t, "inspect", "--format", "{{json .HostConfig.IDMappings}}", "before")

	names := []string{"before"}
	for _, step := range []struct{ spec, first string }{
		{"tester", "700000"}, {"other", "1400000"}, {"", ""}, {"default", ""}, {"other", "1400000"},
	} {
		d.Stop(t)
		d.Args("--userns-remap", step.spec)
		d.Up(t)
		if got := d.Must(t, "images", "-q", "--no-trunc"); got != image {
			t.Fatalf("remap %q: images are %q, were %q", step.spec, got, image)
		}
		if got := stored(t, d); got != layers {
			t.Errorf("remap %q: what is stored has changed:\n%s\nwas:\n%s", step.spec, got, layers)
		}
		if got := maps(t, d); step.first != "" && !strings.HasPrefix(got, "0 "+step.first+" ") {
			t.Errorf("remap %q: a new container has map %s", step.spec, got)
		}
		for _, name := range names {
			if got := inside(t, d, name); got != "33:50" {
				t.Errorf("remap %q: the file of container %s belongs to %s", step.spec, name, got)
			}
		}
		if got := d.Must(t, "inspect", "--format", "{{json .HostConfig.IDMappings}}", "before"); got != own {
			t.Errorf("remap %q: the map of a stopped container has become %s, was %s", step.spec, got, own)
		}
		name := fmt.Sprintf("c%d", len(names))
		d.Must(t, "run", "--network", "none", "--name", name, "busybox", "sh", "-c", work)
		names = append(names, name)
	}

	for _, name := range names { // asked for, the daemon's map of today
		d.Must(t, "update", "--userns", "", name)
		if got := d.Must(t, "inspect", "--format", "{{json .HostConfig.IDMappings}}", name); !strings.Contains(got, "0:1400000:65536") {
			t.Errorf("container %s has map %s", name, got)
		}
		if got := inside(t, d, name); got != "33:50" {
			t.Errorf("under the new map the file of container %s belongs to %s", name, got)
		}
	}
}

// inside starts a container again and returns who owns its file under its map.
func inside(t *testing.T, d *testenv.Daemon, name string) string {
	t.Helper()
	return d.Must(t, "start", "-a", name)
}

// stored lists every file of every layer with its owner, inode and times.
func stored(t *testing.T, d *testenv.Daemon) string {
	t.Helper()
	var out strings.Builder
	root := filepath.Join(d.Dir, "data/layers")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintln(&out, strings.TrimPrefix(path, root), st.Uid, st.Gid, st.Ino, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "data/700000.300000")); err == nil {
		t.Error("a tree was made for one map")
	}
	return out.String()
}
