package attack

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/testenv"
)

// bundle makes one of the configuration that `fief-oci spec` writes.
func bundle(t *testing.T) (dir string, spec *specs.Spec) {
	t.Helper()
	testenv.NeedRoot(t)
	dir, err := os.MkdirTemp("", "fief-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{dir, root} {
		os.Mkdir(d, 0o755)
		os.Chmod(d, 0o755)
	}
	untar := exec.Command("tar", "-x", "-C", root)
	untar.Stdin = bytes.NewReader(testenv.BusyboxTar(t))
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	filepath.Walk(root, func(p string, _ os.FileInfo, _ error) error { return os.Lchown(p, 524288, 524288) })
	if out, err := exec.Command(testenv.Bin(t)+"/fief-oci", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(dir + "/config.json")
	if err == nil {
		err = json.Unmarshal(b, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal = false
	return dir, spec
}

// TestOCIPosture is TestPosture of fief-oci.
func TestOCIPosture(t *testing.T) {
	dir, spec := bundle(t)
	oci := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(testenv.Bin(t)+"/fief-oci", append([]string{"--root", dir + "/state"}, args...)...)
		out, err := os.Create(dir + "/out") // no pipe, which a container that stays would keep
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Run()
		text, readErr := os.ReadFile(dir + "/out")
		if err != nil || readErr != nil {
			t.Fatalf("%v: %v, %v: %s", args, err, readErr, text)
		}
		return string(text)
	}
	set := func(args ...string) {
		spec.Process.Args = args
		b, err := json.Marshal(spec)
		if err == nil {
			err = os.WriteFile(dir+"/config.json", b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	piped := func(text string) string { // the file that takes the output is another one each time
		return string(bytes.ReplaceAll([]byte(text), []byte(dir+"/out"), []byte("the caller's")))
	}
	program, err := os.ReadFile(prober(t))
	if err == nil {
		err = os.WriteFile(dir+"/rootfs"+probe, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	set("sh", "-c", look)
	out := oci("run", "--bundle", dir, "posture")
	set(probe)
	compare(t, "oci", piped(table(t, out+oci("run", "--bundle", dir, "posture"))))
	set("sleep", "1000")
	defer exec.Command(testenv.Bin(t)+"/fief-oci", "--root", dir+"/state", "delete", "--force", "posture").Run()
	oci("create", "--bundle", dir, "posture")
	oci("start", "posture")
	compare(t, "oci-exec", piped(table(t, oci("exec", "posture", "sh", "-c", look)+oci("exec", "posture", probe))))
}
