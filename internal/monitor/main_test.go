package monitor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/serve"
	"fief/internal/words/plan"
)

// The test binary is its own monitor: run as fief-mon it serves with a launcher
// that starts a program of the host, so that what is tested here is everything
// but the container.
func TestMain(m *testing.M) {
	if os.Args[0] == "fief-mon" {
		label := "test"
		if err := serve.Run(serve.Config{Conn: 3, Label: label, Launch: launchHost}); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("FIEF_TEST_DAEMON"); dir != "" {
		daemon(dir, os.Getenv("FIEF_TEST_SCRIPT"))
	}
	os.Exit(m.Run())
}

// daemon is a daemon to be killed: it starts a container and an exec session in
// it, says so, and then does nothing.
func daemon(dir, script string) {
	exe, _ := os.Executable()
	m, err := NewPool(PoolConfig{Binary: exe, Label: "test", Size: 2, Debug: true}).Take(context.Background())
	var pid, execPID int
	if err == nil {
		pid, err = m.Start(context.Background(), Run{ID: "box", Dir: dir, Log: Log{Path: dir + "/json.log", MaxSize: 100000, MaxFile: 500},
			Names: stdio, PlanFiles: make([]*os.File, 3), Plan: []byte("\x00/bin/sh\x00-c\x00" + script)})
	}
	if err == nil {
		execPID, err = m.Exec(context.Background(), Exec{ID: "exec", Names: stdio, PlanFiles: make([]*os.File, 3), Plan: []byte("\x00/bin/sh\x00-c\x00read x <" + dir + "/go; exit 9")})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(pid) + " " + strconv.Itoa(execPID) + "\n")
	time.Sleep(time.Hour)
}

// launchHost takes NUL-separated words for a plan: the first is a list of
// options (tty, pidns), the others are the command.
func launchHost(encoded []byte, files []int, at serve.Moments) (serve.Process, error) {
	words := strings.Split(string(encoded), "\x00")
	out := serve.Process{PIDFD: -1, Console: -1}
	attr := &syscall.ProcAttr{Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &out.PIDFD}}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if strings.Contains(words[0], "pidns") {
		attr.Sys.Cloneflags = unix.CLONE_NEWPID
	}
	if strings.Contains(words[0], "tty") {
		master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return out, err
		}
		unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
		slave, _, _ := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		defer unix.Close(int(slave))
		attr.Files = []uintptr{slave, slave, slave}
		attr.Sys.Setctty = true
		out.Console = master
	}
	if at.Meanwhile != nil {
		if err := at.Meanwhile(); err != nil {
			unix.Close(out.Console)
			return out, err
		}
	}
	pid, err := syscall.ForkExec(words[1], words[1:], attr)
	if err != nil {
		unix.Close(out.Console)
		return out, &plan.Failure{Step: 7, Call: 1, Errno: err.(syscall.Errno)}
	}
	out.PID = pid
	return out, nil
}

// box is one container under test.
type box struct {
	*Monitor
	t   *testing.T
	dir string
	log string
}

func pool(t *testing.T, size int) *Pool {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := NewPool(PoolConfig{Binary: exe, Label: "test", Size: size, Debug: true})
	t.Cleanup(p.Close)
	return p
}

func take(t *testing.T) *Monitor {
	t.Helper()
	m, err := pool(t, 0).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

var stdio = []string{"stdin", "stdout", "stderr"}

// run starts a command with change applied to an ordinary request.
func run(t *testing.T, m *Monitor, change func(*Run), options string, command ...string) *box {
	t.Helper()
	b := &box{Monitor: m, t: t, dir: t.TempDir()}
	b.log = filepath.Join(b.dir, "json.log")
	r := Run{ID: "box", Dir: b.dir, Log: Log{Path: b.log, Driver: "json-file"}, Names: stdio, PlanFiles: make([]*os.File, 3),
		Plan: []byte(options + "\x00" + strings.Join(command, "\x00"))}
	if strings.Contains(options, "tty") {
		r.TTY, r.Names, r.PlanFiles = true, nil, nil
	}
	if change != nil {
		change(&r)
	}
	pid, err := m.Start(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the directory is removed, into which the monitor writes
		syscall.Kill(-pid, syscall.SIGKILL)
		m.Close()
		within(t, "end of the monitor", func() { waitGone(m.PID) })
	})
	return b
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

// patience is for hangs only: on an emulated processor 100,000 lines of a log
// took more than 20 s.
const patience = 2 * time.Minute

// exit waits for the next end of a process.
func exit(t *testing.T, m *Monitor) Exit {
	t.Helper()
	select {
	case e, ok := <-m.Exits():
		if !ok {
			t.Fatal("the monitor is gone without an exit")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no exit after ", patience)
	}
	return Exit{}
}

// within fails the test when f takes too long: a hang must not hang the suite.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal(what, ": still waiting after ", patience)
	}
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return c
}
