// Package remap starts daemons with userns-remap, each with an /etc of its own.
package remap

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// ownEtc lets a daemon see a copy of /etc that it may write, with user tester
// (4242) who has two ranges, and user bare who has none.
const ownEtc = `set -e
umask 022
mount -t tmpfs tmpfs "$0"
mkdir "$0/upper" "$0/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" overlay /etc
printf 'tester:x:4242:4243::/:/bin/false\nbare:x:4244:4244::/:/bin/false\n' >>/etc/passwd
printf 'tester:x:4243:\nbare:x:4244:\n' >>/etc/group
printf 'tester:700000:1000\n4242:200000:64536\n' >/etc/subuid
printf 'tester:300000:65536\n' >/etc/subgid
exec "$@"
`

func wrap(t *testing.T) []string {
	return []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", ownEtc, t.TempDir()}
}

func start(t *testing.T, spec string) *testenv.Daemon {
	d := testenv.StartWrapped(t, wrap(t), "--userns-remap", spec)
	d.Busybox(t)
	return d
}

// maps returns the uid and gid map of a container, a line per extent.
func maps(t *testing.T, d *testenv.Daemon, args ...string) string {
	t.Helper()
	args = append(append([]string{"run", "--rm", "--network", "none"}, args...), "busybox", "cat", "/proc/self/uid_map", "/proc/self/gid_map")
	var out []string
	for line := range strings.Lines(d.Must(t, args...)) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "; ")
}

func TestRangesInFileOrder(t *testing.T) {
	for _, spec := range []string{"tester", "tester:tester", "4242:4243", "4242:tester"} {
		d := start(t, spec)
		want := "0 700000 1000; 1000 200000 64536; 0 300000 65536"
		if got := maps(t, d); got != want {
			t.Errorf("--userns-remap %s: %s, want %s", spec, got, want)
		}
		if got := maps(t, d); got != want {
			t.Errorf("a second container has another map: %s", got)
		}
		if got := maps(t, d, "--userns=auto"); strings.Contains(got, "700000") {
			t.Errorf("--userns=auto gives the daemon's range: %s", got)
		}
		if got := d.Must(t, "run", "--rm", "--network", "none", "busybox", "stat", "-c", "%u %g", "/var/www/index.html"); got != "33 33" {
			t.Errorf("owner in the image is %s", got)
		}
		if got := d.Must(t, "info"); !strings.Contains(got, "tester:tester") || !strings.Contains(got, "userns") {
			t.Errorf("info:\n%s", got)
		}
	}
}

func TestDefaultMakesItsUser(t *testing.T) {
	d := start(t, "default")
	got := maps(t, d)
	if !strings.HasPrefix(got, "0 ") || strings.Contains(got, " 700000 ") {
		t.Errorf("map of dockremap: %s", got)
	}
	if info := d.Must(t, "info"); !strings.Contains(info, "dockremap:dockremap") {
		t.Errorf("info:\n%s", info)
	}
}

func TestRefusals(t *testing.T) {
	testenv.NeedRoot(t)
	for spec, want := range map[string]string{
		"root":         "root",
		"0":            "root",
		"nobody-here":  `Error during uid lookup for "nobody-here"`,
		"4999":         "Uid 4999 has no entry in /etc/passwd",
		"tester:none":  `Error during groupname lookup for "none"`,
		"4242":         "Gid 4242 has no entry in /etc/group",  // as in Docker, the uid is taken for the gid
		"tester:4999":  "Gid 4999 has no entry in /etc/passwd", // so does Docker say it
		"default:none": `Error during groupname lookup for "none"`,
		"bare":         `no subuid ranges found for user "bare"`,
		"a:b:c":        `Invalid user/group specification in --userns-remap: "a:b:c"`,
	} {
		dir := t.TempDir()
		words := append(wrap(t), filepath.Join(testenv.Bin(t), "fiefd"), "--userns-remap", spec,
			"--data-root", dir+"/data", "--exec-root", dir+"/run", "--id-registry", dir+"/ids")
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("--userns-remap %s: %v\n%s\nwant %q", spec, err, out, want)
		}
	}
}

// TestDefaultWithoutAWritableEtc looks for a daemon that says why it cannot
// make its user, and leaves nothing behind.
func TestDefaultWithoutAWritableEtc(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	words := wrap(t)
	words[len(words)-2] = strings.Replace(ownEtc, `exec "$@"`, `mount -o remount,bind,ro /etc; "$@" && exit 9; ls -A /etc | grep fief; grep dockremap /etc/passwd /etc/group /etc/subuid /etc/subgid; exit 1`, 1)
	words = append(words, filepath.Join(testenv.Bin(t), "fiefd"), "--userns-remap", "default",
		"--data-root", dir+"/data", "--exec-root", dir+"/run", "--id-registry", dir+"/ids")
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), `Error during "dockremap" user creation: cannot lock accounts by /etc/.pwd.lock`) ||
		!strings.Contains(string(out), "read-only file system") || strings.Contains(string(out), ".fief") || strings.Contains(string(out), "dockremap:") {
		t.Errorf("%v\n%s", err, out)
	}
}
