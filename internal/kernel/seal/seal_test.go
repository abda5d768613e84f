package seal

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestView: a program started from a view of it is sealed, has its name, and
// cannot be written to by what a path to it is got from, running or ended.
func TestView(t *testing.T) {
	if os.Getenv("FIEF_TEST_SEALED") != "" {
		sealed, err := Sealed()
		name, _ := os.ReadFile("/proc/self/comm")
		os.Stdout.WriteString(strings.TrimSpace(string(name)))
		if err != nil || !sealed {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		t.Skip("root: a mount is made")
	}
	if sealed, err := Sealed(); err != nil || sealed {
		t.Fatal("the test itself is sealed already: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	self = t.TempDir() + "/seal.test" // one that nobody runs
	if err := os.WriteFile(self, program, 0o755); err != nil {
		t.Fatal(err)
	}
	view, err := Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	cmd := exec.Command(view.Path(), "-test.run=TestView")
	cmd.Env = []string{"FIEF_TEST_SEALED=1"}
	if out, err := cmd.Output(); err != nil || !strings.HasPrefix("seal.test", string(out)) {
		t.Errorf("%v, name %q", err, out)
	}
	path, err := unix.Open(view.Path(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	held := os.NewFile(uintptr(path), "held")
	defer held.Close()
	view.Close()
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(path), os.O_WRONLY, 0)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("open for writing: %v", err)
	}
	if err == nil {
		f.Close()
	}
	if _, err := Open("/nosuch/program"); err == nil {
		t.Error("a view of nothing")
	}
	if _, err := Open("/usr/nosuch"); err == nil {
		t.Error("a view of nothing in a directory")
	}
}
