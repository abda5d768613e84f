package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/launch/launchtest"
	"fief/internal/monitor"
	"fief/internal/words/plan"
)

// binary builds fief-mon as it is shipped, once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fief-mon-test-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "fief-mon")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=test", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return out, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func mon(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLinksLittle: the monitor is in memory once for each container, and its
// start is paid for whenever the pool is empty.
func TestLinksLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	forbidden := []string{"net", "net/http", "encoding/json", "text/template", "regexp", "log", "log/slog", "flag",
		"os/exec", "os/user", "crypto/sha256", "math/big", "fief/internal/launch", "fief/internal/words/record"}
	for _, dep := range deps {
		for _, bad := range forbidden {
			if dep == bad {
				t.Errorf("fief-mon links %s", dep)
			}
		}
	}
	info, err := os.Stat(mon(t))
	if err != nil {
		t.Fatal(err)
	}
	own := initSum(t, mon(t), "--version") - initSum(t, emptyGo(t))
	t.Logf("%d packages, %d bytes, package initialisation %.3f ms beyond an empty program's", len(deps), info.Size(), own)
	if info.Size() > 4<<20 {
		t.Errorf("the binary has %d bytes", info.Size())
	}
	if own > 0.5 {
		t.Errorf("package initialisation takes %.2f ms more than that of an empty Go program", own)
	}
}

// emptyGo builds a program that does nothing but link os.
func emptyGo(t *testing.T) string {
	t.Helper()
	source, out := filepath.Join(t.TempDir(), "empty.go"), filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(source, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Getpid() }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", out, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// initSum is the sum, in ms, of what each package's initialisation takes at the
// least in many runs: on a busy machine some package is always interrupted.
func initSum(t *testing.T, command ...string) float64 {
	t.Helper()
	least := map[string]float64{}
	for range 20 {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = []string{"GODEBUG=inittrace=1", "GOMAXPROCS=1"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^init (\S+) @[0-9.]+ ms, ([0-9.]+) ms clock`).FindAllSubmatch(out, -1) {
			ms, err := strconv.ParseFloat(string(m[2]), 64)
			if had, seen := least[string(m[1])]; err == nil && (!seen || ms < had) {
				least[string(m[1])] = ms
			}
		}
	}
	sum := 0.0
	for _, ms := range least {
		sum += ms
	}
	return sum
}

// TestOwnMemory: what a monitor shares with nobody is there once for each
// container. Its file pages are shared by all, so that the anonymous ones are
// what counts (`make bench` measures the PSS of a hundred).
func TestOwnMemory(t *testing.T) {
	b, err := start(t, false, nil, "sleep", "100")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile("/proc/" + strconv.Itoa(b.m.PID) + "/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^Anonymous: +([0-9]+) kB$`).FindSubmatch(content)
	if found == nil {
		t.Fatalf("no anonymous memory in\n%s", content)
	}
	if kib, _ := strconv.Atoi(string(found[1])); kib == 0 || kib > 1200 {
		t.Errorf("the monitor has %d KiB of its own", kib)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"init"}, {"init", "--"}, {"what"}} {
		cmd := exec.Command(mon(t), args...)
		out, err := cmd.CombinedOutput()
		var e *exec.ExitError
		if !errors.As(err, &e) || e.ExitCode() != 2 || len(out) == 0 {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

// TestInit runs the tiny init as process 1 of a pid namespace.
func TestInit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: a pid namespace")
	}
	for _, c := range []struct {
		name, script, out string
		code              int
	}{
		{"exit code", "echo hello; exit 7", "hello\n", 7},
		{"death by signal", "kill -TERM $$", "", 143},
		{"orphans are reaped", "for i in 1 2 3; do (sh -c 'exit 0' & ) ; done; n=0; while ps -eo stat= | grep -q Z && test $((n=n+1)) -lt 300; do sleep 0.1; done; ps -eo stat= | grep -c Z", "0\n", 1},
		{"not process 1, own group", "test $$ -ne 1 && test $(cut -d' ' -f5 /proc/$$/stat) -eq $$ && echo yes", "yes\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", mon(t), "init", "--", "sh", "-c", c.script)
			out, _ := cmd.Output()
			if string(out) != c.out || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("%q, exit code %d", out, cmd.ProcessState.ExitCode())
			}
		})
	}
	for command, code := range map[string]int{"nosuchcommand": 127, "/no/such": 127, "/etc/passwd": 126} {
		cmd := exec.Command(mon(t), "init", "--", command)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(string(out), command) {
			t.Errorf("%s: exit code %d, %s", command, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// TestInitWithTerminal: the command is in the foreground, may read, and gets
// ctrl-c once, from the terminal.
func TestInitWithTerminal(t *testing.T) {
	for typed, want := range map[string]string{"hi\n": "got hi", "\x03": "int,"} {
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer master.Close()
		unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
		fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			t.Fatal(errno)
		}
		slave := os.NewFile(fd, "slave")
		cmd := exec.Command(mon(t), "init", "--", "sh", "-c", "trap 'printf int,; exit 3' INT; echo ready; read x && echo got $x; exit 3")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		out := bufio.NewReader(master)
		if line, err := out.ReadString('\n'); line != "ready\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		master.WriteString(typed)
		rest, _ := io.ReadAll(out)
		cmd.Wait()
		timer.Stop()
		if n := strings.Count(string(rest), want); n != 1 || cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%q: %q, exit code %d", typed, rest, cmd.ProcessState.ExitCode())
		}
	}
}

// box is a container of the real launcher.
type box struct {
	t    *testing.T
	m    *monitor.Monitor
	dir  string
	spec *specs.Spec
	comp *launch.Compiler
}

// start runs a busybox with the real monitor and the real launcher.
func start(t *testing.T, tty bool, attach []monitor.Attach, command ...string) (*box, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root: containers are started")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("tool: busybox-static")
	}
	p := monitor.NewPool(monitor.PoolConfig{Binary: mon(t), Label: "test", Debug: true})
	t.Cleanup(p.Close)
	m, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	b := &box{t: t, m: m, dir: t.TempDir(), spec: launchtest.Spec(command...),
		comp: &launch.Compiler{Filter: launchtest.Filter, Key: launchtest.Key}}
	if tty {
		b.spec.Process.Terminal, b.spec.Process.ConsoleSize = true, &specs.Box{Height: 33, Width: 99}
	}
	made, err := b.comp.Container(b.spec, launch.Options{ID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := made.Encode()
	if err != nil {
		t.Fatal(err)
	}
	root := rootfs(t)
	defer root.Close()
	files := make([]*os.File, len(made.Files))
	for i, name := range made.Files {
		if name == "rootfs" {
			files[i] = root
		}
	}
	pid, err := m.Start(t.Context(), monitor.Run{ID: "test", Dir: b.dir, Log: monitor.Log{Path: b.dir + "/log"}, TTY: tty, OpenStdin: true, StdinOnce: true,
		Plan: encoded, Names: made.Files, PlanFiles: files, Attach: attach})
	var f *plan.Failure
	if errors.As(err, &f) {
		return b, made.ExplainFailure(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Signal(context.Background(), "", unix.SIGKILL); _ = pid })
	return b, nil
}

// rootfs returns a detached copy of a directory with a static busybox.
func rootfs(t *testing.T) *os.File {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "fief-mon-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root"} {
		os.Mkdir(filepath.Join(dir, d), 0o755)
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "tty", "stty", "id", "ps", "seq", "stat"} {
		os.Symlink("busybox", filepath.Join(dir, "bin", name))
	}
	filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error {
		return os.Lchown(p, launchtest.Base, launchtest.Base)
	})
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "rootfs")
}

func (b *box) exit() monitor.Exit {
	b.t.Helper()
	select {
	case e, ok := <-b.m.Exits():
		if !ok {
			b.t.Fatal("the monitor is gone")
		}
		return e
	case <-time.After(20 * time.Second):
		b.t.Fatal("no exit")
	}
	return monitor.Exit{}
}

// exec runs a command in the container and returns its output.
func (b *box) exec(id string, tty bool, command ...string) (string, monitor.Exit) {
	b.t.Helper()
	p := *b.spec.Process
	p.Args, p.Terminal = command, tty
	if tty {
		p.ConsoleSize = &specs.Box{Height: 44, Width: 111}
	}
	made, err := b.comp.Exec(&p, b.spec, launch.Options{ID: "test"})
	if err != nil {
		b.t.Fatal(err)
	}
	encoded, err := made.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	_, err = b.m.Exec(b.t.Context(), monitor.Exec{ID: id, TTY: tty, Plan: encoded, Names: made.Files,
		PlanFiles: make([]*os.File, len(made.Files)), Attach: []monitor.Attach{{Stdout: w, Stderr: w}}})
	w.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	e := b.exit()
	out, _ := io.ReadAll(r)
	return string(out), e
}

func TestContainer(t *testing.T) {
	r, w, _ := os.Pipe()
	b, err := start(t, false, []monitor.Attach{{Stdout: w, Stderr: w}}, "sh", "-c", "id -u; echo $$; echo again >/dev/stdout; sleep 60")
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(r, got); string(got) != "0\n1\nagain\n" {
		t.Errorf("%q, %v", got, err)
	}
	if err := unix.Kill(b.m.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if out, e := b.exec("status", false, "sh", "-c", "echo $(while read a x; do case $a in Sig[IB]*) echo $x;; esac; done </proc/self/status)"); out != "0000000000000000 0000000000000000\n" {
		t.Errorf("signals ignored or blocked in the container: %q, %+v", out, e)
	}
	if out, e := b.exec("one", false, "sh", "-c", "ps; exit 3"); e.Target != "one" || e.Code != 3 || !strings.Contains(out, "sleep 60") {
		t.Errorf("%+v, %s", e, out)
	}
	if out, e := b.exec("two", true, "sh", "-c", "stty size; tty"); e.Code != 0 || !strings.HasPrefix(out, "44 111\r\n/dev/pts/") {
		t.Errorf("%+v, %s", e, out)
	}
	b.m.Signal(t.Context(), "", unix.SIGKILL)
	if e := b.exit(); e.Target != "" || e.Code != 137 {
		t.Errorf("%+v", e)
	}
}

func TestContainerWithTerminal(t *testing.T) {
	r, w, _ := os.Pipe()
	b, err := start(t, true, []monitor.Attach{{Stdout: w}}, "sh", "-c", "stty size; tty; exit 4")
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.Code != 4 {
		t.Errorf("%+v", e)
	}
	if out, _ := io.ReadAll(r); !bytes.HasPrefix(out, []byte("33 99\r\n/dev/pts/0\r\n")) {
		t.Errorf("%q", out)
	}
}

func TestMissingCommand(t *testing.T) {
	if _, err := start(t, false, nil, "nosuch"); err == nil || err.Error() != `exec: "nosuch": executable file not found in $PATH` {
		t.Errorf("%v", err)
	}
}
