package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/testenv"
)

const description = `{"cdiVersion": "0.6.0", "kind": "vendor.test/thing", "devices": [
{"name": "one", "containerEdits": {"env": ["THING=one"], "deviceNodes": [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}],
 "mounts": [{"hostPath": "DIR/lib", "containerPath": "/opt/thing", "options": ["ro", "bind"]}]}},
{"name": "hooked", "containerEdits": {"env": ["THING=hooked"], "hooks": [{"hookName": "createContainer", "path": "DIR/hook", "args": ["hook", "links", "/etc/link"]},
 {"hookName": "createContainer", "path": "DIR/hook", "args": ["hook", "cache"], "env": ["WHO=two"]}]}},
{"name": "broken", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "DIR/hook", "args": ["hook", "fail"]}]}},
{"name": "slow", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}},
{"name": "early", "containerEdits": {"hooks": [{"hookName": "createRuntime", "path": "/bin/true"}]}}]}`

// hook is what a vendor's hook does: it finds the container's file system by the
// bundle that its input names, and changes it.
const hook = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$bundle/$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
case $1 in
links) ln -s /opt/thing "$root$2" ;;
cache) # vendors pivot into it, to have its cache of libraries written
 unshare --mount --propagation unchanged sh -c 'cd "$1" && pivot_root . .' sh "$root" || exit
 echo "$WHO, uid $(id -u), $(ls -A "$bundle" | tr '\n' ' ')" >"$root/etc/hooked" ;;
fail) echo "no driver for $(grep -c THING "$bundle/config.json") things"; exit 3 ;;
esac
`

// TestNamedDevices: what a vendor's description says is in the container, by both
// clients, with a user namespace and without; what nobody would carry out is
// refused.
func TestNamedDevices(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	if err := os.Mkdir(filepath.Join(dir, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"lib/file": "of the vendor\n", "hook": hook, "thing.json": strings.ReplaceAll(description, "DIR", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := testenv.Start(t)
	d.Stop(t)
	d.Args("--cdi-spec-dir", dir)
	d.Up(t)
	d.Busybox(t)
	const look = "echo $THING; cat /opt/thing/file; head -c 1 /dev/zero | wc -c; : >/dev/null && echo null"
	const want = "one\nof the vendor\n1\nnull\n"
	for _, userns := range []string{"auto", "host"} {
		if got := d.Must(t, "run", "--rm", "--userns", userns, "--device", "vendor.test/thing=one", "busybox", "sh", "-c", look); got != strings.TrimSpace(want) {
			t.Errorf("userns %s: %q", userns, got)
		}
	}
	for device, want := range map[string]string{
		"vendor.test/thing=two":    "CDI device injection failed: unresolvable CDI devices vendor.test/thing=two",
		"vendor.test/thing=early":  "createRuntime hook, /bin/true",
		"vendor.test/thing=broken": "no driver for 0 things",
		"vendor.test/thing=slow":   "longer than its timeout",
		"thing=one":                "it is no name of CDI",
	} {
		if _, errs, code := d.Fief(t, "run", "--rm", "--device", device, "busybox", "true"); code != 125 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", device, code, errs)
		}
	}
	if got := d.Must(t, "ps", "-aq"); got != "" {
		t.Errorf("a refused start left %s", got)
	}
	for _, userns := range []string{"auto", "host"} {
		d.Must(t, "create", "--name", "hooked-"+userns, "--userns", userns, "--device", "vendor.test/thing=hooked", "busybox",
			"sh", "-c", "cat /etc/hooked; readlink /etc/link; rm /etc/link; echo $THING; cat /proc/self/mountinfo | wc -l")
		plain := d.Must(t, "run", "--rm", "--userns", userns, "busybox", "sh", "-c", "cat /proc/self/mountinfo | wc -l")
		for range 2 { // every start runs them
			got := d.Must(t, "start", "-a", "hooked-"+userns)
			if want := "two, uid 0, config.json rootfs \n/opt/thing\nhooked\n" + plain; got != want {
				t.Errorf("userns %s: %q, want %q", userns, got, want)
			}
		}
		d.Must(t, "rm", "hooked-"+userns)
	}
	if _, errs, code := d.Fief(t, "run", "--rm", "--gpus", "all", "busybox", "true"); code != 125 || !strings.Contains(errs, "nvidia.com/gpu=all") {
		t.Errorf("--gpus: %d %s", code, errs)
	}
	out, err := d.Command(t, "docker", "run", "--rm", "--device", "vendor.test/thing=one", "busybox", "sh", "-c", look).Output()
	if err != nil || string(out) != want {
		t.Errorf("docker: %q, %v", out, err)
	}
}
