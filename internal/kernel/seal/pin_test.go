package seal

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPin: what is started by a pinned program is the file it was pinned as, with
// its name, and cannot be written to by way of its process, also after another
// has replaced it and when nothing has its name any more.
func TestPin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: a mount is made")
	}
	const name = "old-one"
	path := filepath.Join(t.TempDir(), name)
	cat, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, cat, 0o755); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile("/proc/self/mountinfo")
	program, err := Pin(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if after, _ := os.ReadFile("/proc/self/mountinfo"); string(after) != string(before) {
		t.Errorf("others see another mount:\n%s", after)
	}
	if _, err := os.OpenFile(program.Path()+"2", os.O_CREATE, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("another file in the view: %v", err)
	}
	for _, c := range []struct {
		when, shown string
		change      func() error
	}{
		{"as it was", "/" + name, func() error { return nil }},
		{"replaced", "/" + name + " (deleted)", func() error {
			if err := os.WriteFile(path+".new", []byte("no program"), 0o755); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
		{"removed", "/" + name + " (deleted)", func() error { return os.Remove(path) }},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(program.Path(), "/proc/self/comm").Output(); err != nil || string(out) != name+"\n" {
			t.Errorf("%s: %v, its process is called %q", c.when, err, out)
		}
		sealed(t, c.when, program, c.shown)
	}
	for _, missing := range []string{"/nosuch/program", "/usr/nosuch"} {
		if _, err := Pin(missing); !errors.Is(err, unix.ENOENT) {
			t.Errorf("pinned %s: %v", missing, err)
		}
	}
}

// sealed looks at a process started by the program, cat, from outside: what its
// program is called, and that it cannot be written to, neither now nor later.
func sealed(t *testing.T, when string, program *Program, shown string) {
	t.Helper()
	cmd := exec.Command(program.Path())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(when, err)
	}
	// On an emulated processor Start has come back while the process still was one
	// of this program: cat it is for sure when it has done something.
	in.Write([]byte("x"))
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Errorf("%s: it does nothing: %v", when, err)
	}
	exe := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/exe"
	if to, err := os.Readlink(exe); err != nil || to != shown {
		t.Errorf("%s: its program is shown as %q, %v", when, to, err)
	}
	held, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(when, err)
	}
	defer unix.Close(held)
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(held), os.O_WRONLY, 0)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("%s: open for writing: %v", when, err)
	}
	if err == nil {
		f.Close()
	}
}
