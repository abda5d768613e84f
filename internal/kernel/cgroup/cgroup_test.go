package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// tree is a directory of the test's own, which must be empty in the end.
func tree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: cgroups are made by root")
	}
	tr, err := Open(fmt.Sprintf("fief-test-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if tr.Mode() == None {
		t.Skip("kernel: " + tr.Why())
	}
	t.Cleanup(func() {
		names, _ := tr.List()
		for _, name := range names {
			tr.Kill(name)
			tr.Remove(name)
		}
		if err := tr.Drop(); err != nil {
			t.Error(err)
		}
		tr.Close()
	})
	return tr
}

// within starts a sleeping process in the group, which is reaped as it ends.
func within(t *testing.T, dir *os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	return cmd
}

func TestLife(t *testing.T) {
	tr := tree(t)
	if names, err := tr.List(); err != nil || len(names) > 0 {
		t.Fatalf("before: %v, %v", names, err)
	}
	if err := tr.Remove("absent"); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	dir, err := tr.Create("b")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := tr.Create("b"); !fault.Is(err, fault.Exists) {
		t.Errorf("twice: %v", err)
	}
	other, err := tr.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if names, err := tr.List(); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("list: %v, %v", names, err)
	}
	if pids, err := tr.Pids("b"); err != nil || len(pids) > 0 {
		t.Errorf("empty group has %v, %v", pids, err)
	}
	cmd := within(t, dir)
	if pids, err := tr.Pids("b"); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v, %v", pids, err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(text), "0::"+tr.Path("b")+"\n") {
		t.Errorf("the process is in %s, want %s", text, tr.Path("b"))
	}
	if err := tr.Kill("b"); err != nil {
		t.Fatal(err)
	}
	if err := tr.Remove("b"); err != nil {
		t.Error(err)
	}
	if err := tr.Remove("a"); err != nil {
		t.Error(err)
	}
}

func TestRemoveWaits(t *testing.T) {
	tr := tree(t)
	dir, err := tr.Create("c")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := within(t, dir)
	if err := tr.remove(tr.dir("c"), time.Now().Add(10*time.Millisecond)); !fault.Is(err, fault.Busy) {
		t.Fatalf("with a process in it: %v", err)
	}
	cmd.Process.Kill()
	if err := tr.Remove("c"); err != nil {
		t.Errorf("once the process has ended: %v", err)
	}
}

func TestNested(t *testing.T) {
	tr := tree(t)
	dir, err := tr.Create("d")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, sub := range []string{"x", "x/y", "z"} {
		if err := unix.Mkdirat(int(dir.Fd()), sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Openat(int(dir.Fd()), "x/y", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	sub := os.NewFile(uintptr(fd), "x/y")
	defer sub.Close()
	cmd := within(t, sub)
	if pids, err := tr.Pids("d"); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := tr.Kill("d"); err != nil {
		t.Fatal(err)
	}
	if err := tr.Remove("d"); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	tr := tree(t)
	for _, name := range []string{"", ".", "..", "a/b", "a\nb", "a\x00", strings.Repeat("x", 256)} {
		if _, err := tr.Create(name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
		if err := tr.Remove(name); !fault.Is(err, fault.Invalid) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	if _, err := Open("../x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("parent: %v", err)
	}
	if _, err := tr.Pids("nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("pids of none: %v", err)
	}
}

func TestNone(t *testing.T) {
	tr, err := open(t.TempDir(), "fief")
	if err != nil || tr.Mode() != None || tr.Why() == "" {
		t.Fatalf("mode %v, %v", tr.Mode(), err)
	}
	if _, err := tr.Create("a"); !fault.Is(err, fault.Unsupported) {
		t.Errorf("create: %v", err)
	}
	if names, err := tr.List(); err != nil || names != nil {
		t.Errorf("list: %v, %v", names, err)
	}
	if tr.Path("a") != "" {
		t.Errorf("path %q", tr.Path("a"))
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}
