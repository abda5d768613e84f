package monitor

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// killedDaemon runs a script under a daemon of its own and returns its run
// directory and a function that kills that daemon with SIGKILL.
func killedDaemon(t *testing.T, script string) (dir string, kill func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mkfifo(dir+"/go", 0o600); err != nil {
		t.Fatal(err)
	}
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "FIEF_TEST_DAEMON="+dir, "FIEF_TEST_SCRIPT="+strings.ReplaceAll(script, "DIR", dir))
	cmd.Stderr = os.Stderr
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { cmd.Process.Kill(); cmd.Wait() }
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	pids := strings.Fields(line)
	if len(pids) != 2 {
		t.Fatalf("daemon said %q, %v", line, err)
	}
	t.Cleanup(func() { // both are leaders of a group; what is left of them holds our stderr
		for _, p := range pids {
			pid, _ := strconv.Atoi(p)
			syscall.Kill(-pid, syscall.SIGKILL)
		}
	})
	return dir, kill
}

func release(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(dir+"/go", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	f.WriteString("x\n")
}

// numbered checks that a log has the lines 1…n in order, whatever they were
// cut into.
func numbered(t *testing.T, path string, n int) {
	t.Helper()
	lines := texts(t, path)
	if len(lines) != n {
		t.Fatalf("log has %d lines of %d", len(lines), n)
	}
	for i, l := range lines {
		if l != strconv.Itoa(i+1)+"\n" {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
}

// TestNothingIsLostWithoutADaemon: the daemon is killed in the middle of fast
// output; the next one finds monitor, log, exec session and exit.
func TestNothingIsLostWithoutADaemon(t *testing.T) {
	dir, kill := killedDaemon(t, "seq 1 50000; until test -e DIR/end; do sleep 0.02; done; seq 50001 100000; exit 6")
	kill()
	release(t, dir) // the exec session ends while nobody is there to hear of it
	m, err := Reconnect(ctx(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if m.ID != "box" || m.Label != "test" {
		t.Errorf("%+v", m)
	}
	if e := exit(t, m); e.Target != "exec" || e.Code != 9 {
		t.Errorf("%+v", e)
	}
	if st, err := m.State(ctx(t)); err != nil || !st.Running || st.Started.IsZero() {
		t.Errorf("%+v, %v", st, err)
	}
	os.WriteFile(dir+"/end", nil, 0o600)
	if e := exit(t, m); e.Target != "" || e.Code != 6 {
		t.Errorf("%+v", e)
	}
	numbered(t, dir+"/json.log", 100000)
}

// TestExitWithoutADaemon: the exit file is all that is left, and enough.
func TestExitWithoutADaemon(t *testing.T) {
	dir, kill := killedDaemon(t, "until test -e DIR/end; do sleep 0.02; done; seq 1 20000; kill -INT $$")
	kill()
	m, err := Reconnect(ctx(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Close() // and this daemon dies as well
	release(t, dir)
	os.WriteFile(dir+"/end", nil, 0o600)
	within(t, "exit file", func() {
		for {
			if _, ok := ReadExit(dir); ok {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	if e, _ := ReadExit(dir); e.Code != 130 || e.Signal != 2 {
		t.Errorf("%+v", e)
	}
	within(t, "end of the monitor", func() { syscall.Kill(m.PID, 0); waitGone(m.PID) })
	if m, err = Reconnect(ctx(t), dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("%+v, %v", m, err)
	}
	numbered(t, dir+"/json.log", 20000)
}

func waitGone(pid int) {
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(5 * time.Millisecond)
	}
}

func TestUnacknowledgedExitComesAgain(t *testing.T) {
	dir, _ := killedDaemon(t, "until test -e DIR/end; do sleep 0.02; done")
	m, err := Reconnect(ctx(t), dir)
	if !fault.Is(err, fault.Busy) {
		t.Fatalf("second daemon: %+v, %v", m, err)
	}
}

func TestUntakenExitComesAgain(t *testing.T) {
	dir, kill := killedDaemon(t, "until test -e DIR/end; do sleep 0.02; done")
	kill()
	for range 3 { // daemons that die before they take the exec session's exit
		m, err := Reconnect(ctx(t), dir)
		if err != nil {
			t.Fatal(err)
		}
		release(t, dir)
		time.Sleep(20 * time.Millisecond)
		m.Close()
		<-m.Gone()
	}
	m, err := Reconnect(ctx(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if e := exit(t, m); e.Target != "exec" || e.Code != 9 {
		t.Errorf("%+v", e)
	}
	os.WriteFile(dir+"/end", nil, 0o600)
	if e := exit(t, m); e.Target != "" || e.Code != 0 {
		t.Errorf("%+v", e)
	}
}

// TestSameDirectoryAgain: a container that is started again at the news of its
// exit has a socket and no exit file, whatever its last monitor still does.
func TestSameDirectoryAgain(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		b := run(t, take(t), func(r *Run) { r.Dir, r.Log.Path = dir, dir+"/json.log" }, "", shell("exec sleep 100")...)
		if _, ok := ReadExit(dir); ok {
			t.Error("exit file of the last run")
		}
		if _, err := os.Stat(dir + "/mon.sock"); err != nil {
			t.Error(err)
		}
		b.Signal(ctx(t), "", syscall.SIGKILL)
		exit(t, b.Monitor)
		if _, ok := ReadExit(dir); !ok {
			t.Error("no exit file")
		}
	}
}

func TestSocketIsPrivate(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "100")
	info, err := os.Stat(b.dir + "/mon.sock")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestReconnectToNothing(t *testing.T) {
	if _, err := Reconnect(ctx(t), t.TempDir()); !fault.Is(err, fault.NotFound) {
		t.Errorf("no socket: %v", err)
	}
	if _, ok := ReadExit(t.TempDir()); ok {
		t.Error("an exit out of nothing")
	}
	dir := t.TempDir()
	os.WriteFile(dir+"/exit", []byte("nonsense"), 0o600)
	if _, ok := ReadExit(dir); ok {
		t.Error("an exit out of nonsense")
	}
}
