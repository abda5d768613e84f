package copy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// sequence writes numbers into a file that a commit reads first and one that it
// reads last, with much to read between them.
const sequence = `mkdir /seq; dd if=/dev/urandom of=/seq/m bs=1M count=48 2>/dev/null; echo 0 >/seq/a; echo 0 >/seq/z; touch /ready
	i=0; while :; do i=$((i+1)); echo $i >/seq/t; mv /seq/t /seq/a; echo $i >/seq/t; mv /seq/t /seq/z; done`

// writer is a container that never stops writing.
func (h *house) writer(t *testing.T, name string, flags ...string) {
	t.Helper()
	h.d.Must(t, append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sh", "-c", sequence)...)
	eventually(t, name+" is ready", func() bool {
		_, _, code := h.d.Fief(t, "exec", name, "test", "-e", "/ready")
		return code == 0
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// frozen reports what the kernel says of a container's processes.
func (h *house) frozen(t *testing.T, id string) func() bool {
	t.Helper()
	var group string
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() && strings.Contains(e.Name(), id) && exists(path+"/cgroup.events") {
				group = path
				return filepath.SkipAll
			}
			return nil
		})
	}
	if group == "" {
		t.Skip("kernel: no cgroup v2 hierarchy, so that nothing can be frozen")
	}
	return func() bool {
		events, err := os.ReadFile(group + "/cgroup.events")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(events), "frozen 1")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// progress fails unless the container writes.
func (h *house) progress(t *testing.T, name, after string) {
	t.Helper()
	read := func() string { return h.d.Must(t, "exec", name, "cat", "/seq/a") }
	was := read()
	eventually(t, name+" goes on after "+after, func() bool { return read() != was })
}

// begin starts a commit and returns when the container is frozen.
func (h *house) begin(t *testing.T, name string, frozen func() bool) *exec.Cmd {
	t.Helper()
	cmd := h.d.Command(t, "fief", "commit", name, "cut")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "frozen "+errs.String(), frozen)
	return cmd
}

// TestPause: a commit is a moment of a container that writes on and on, which
// stands still for it and for no longer, however the commit ends.
func TestPause(t *testing.T) {
	h := open(t)
	for _, userns := range []string{"auto", "host"} {
		t.Run(userns, func(t *testing.T) {
			h.writer(t, userns, "--userns", userns)
			h.pause(t, userns)
			h.d.Must(t, "rm", "-f", userns)
		})
	}
}

func (h *house) pause(t *testing.T, name string) {
	frozen := h.frozen(t, h.d.Must(t, "inspect", "-f", "{{.Id}}", name))
	cut := func(image string) (a, z int) {
		t.Helper()
		got := strings.Fields(h.d.Must(t, "run", "--rm", image, "cat", "/seq/a", "/seq/z"))
		if len(got) != 2 {
			t.Fatal(got)
		}
		a, _ = strconv.Atoi(got[0])
		z, _ = strconv.Atoi(got[1])
		return a, z
	}
	if err := h.begin(t, name, frozen).Wait(); err != nil {
		t.Error(err)
	}
	eventually(t, "let go on", func() bool { return !frozen() })
	h.progress(t, name, "a commit")
	if a, z := cut("cut"); a != z && a != z+1 || a == 0 {
		t.Errorf("the image is of two moments: %d, %d", a, z)
	}
	h.d.Must(t, "commit", "--pause=false", name, "blur")
	if a, z := cut("blur"); a == z || a == z+1 {
		t.Errorf("%d, %d: it stood still, or this test sees nothing", a, z)
	}
	h.d.Must(t, "rmi", "cut", "blur")

	cmd := h.begin(t, name, frozen)
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	h.goesOn(t, name, frozen, "Ctrl-C")

	h.d.Must(t, "exec", name, "touch", "/seq/.wh.x")
	if _, _, code := h.d.Fief(t, "commit", name, "cut"); code == 0 {
		t.Error("no error")
	}
	h.d.Must(t, "exec", name, "rm", "/seq/.wh.x")
	h.goesOn(t, name, frozen, "an error")

	cmd = h.begin(t, name, frozen)
	h.d.Kill(t)
	cmd.Wait()
	if !frozen() {
		t.Error("the commit had ended: this test sees nothing")
	}
	h.d.Up(t)
	h.goesOn(t, name, frozen, "a killed daemon")

	cmd = h.begin(t, name, frozen)
	h.d.Stop(t)
	cmd.Wait()
	if frozen() {
		t.Error("it stands still though no daemon runs")
	}
	h.d.Up(t)
	h.goesOn(t, name, frozen, "a daemon that was stopped")
}

func (h *house) goesOn(t *testing.T, name string, frozen func() bool, after string) {
	t.Helper()
	eventually(t, name+" is let go on after "+after, func() bool { return !frozen() })
	h.progress(t, name, after)
	if out, _, code := testenv.Output(t, h.d.Command(t, "fief", "image", "inspect", "cut")); code == 0 {
		t.Errorf("an image after %s: %s", after, out)
	}
}
