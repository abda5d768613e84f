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
{"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}]}`

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
	for name, text := range map[string]string{"lib/file": "of the vendor\n", "thing.json": strings.ReplaceAll(description, "DIR", dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
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
		"vendor.test/thing=hooked": "hooks",
		"thing=one":                "it is no name of CDI",
	} {
		if _, errs, code := d.Fief(t, "run", "--rm", "--device", device, "busybox", "true"); code != 125 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", device, code, errs)
		}
	}
	if _, errs, code := d.Fief(t, "run", "--rm", "--gpus", "all", "busybox", "true"); code != 125 || !strings.Contains(errs, "nvidia.com/gpu=all") {
		t.Errorf("--gpus: %d %s", code, errs)
	}
	out, err := d.Command(t, "docker", "run", "--rm", "--device", "vendor.test/thing=one", "busybox", "sh", "-c", look).Output()
	if err != nil || string(out) != want {
		t.Errorf("docker: %q, %v", out, err)
	}
}
