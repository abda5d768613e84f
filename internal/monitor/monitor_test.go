package monitor

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

func TestRunToTheEnd(t *testing.T) {
	r, w, _ := os.Pipe()
	b := run(t, take(t), func(r *Run) { r.Attach = []Attach{{Stdout: w}} }, "", shell("echo out; echo err >&2; exit 3")...)
	w.Close()
	e := exit(t, b.Monitor)
	if e.Target != "" || e.Code != 3 || e.Signal != 0 || time.Since(e.At) > time.Minute {
		t.Errorf("exit %+v", e)
	}
	out, err := io.ReadAll(r)
	if string(out) != "out\n" || err != nil {
		t.Errorf("client got %q, %v", out, err)
	}
	if left, ok := ReadExit(b.dir); !ok || left.Code != 3 || !left.At.Equal(e.At) {
		t.Errorf("exit file says %+v, %v", left, ok)
	}
	within(t, "end of the monitor", func() { <-b.Gone() })
	if _, ok := <-b.Exits(); ok {
		t.Error("a second exit")
	}
	if _, err := os.Stat(b.dir + "/mon.sock"); !os.IsNotExist(err) {
		t.Error("mon.sock is left")
	}
	log, _ := os.ReadFile(b.log)
	for _, want := range []string{`{"log":"out\n","stream":"stdout","time":"`, `{"log":"err\n","stream":"stderr","time":"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("log has no %s:\n%s", want, log)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0}, {"exit 255", 255, 0},
		{"kill -TERM $$", 143, 15}, {"kill -KILL $$", 137, 9}, {"kill -SEGV $$", 139, 11},
	} {
		b := run(t, take(t), nil, "", shell(c.script)...)
		if e := exit(t, b.Monitor); e.Code != c.code || e.Signal != c.signal {
			t.Errorf("%s: %+v", c.script, e)
		}
	}
}

func TestStepThatFails(t *testing.T) {
	m := take(t)
	dir := t.TempDir()
	r, w, _ := os.Pipe()
	_, err := m.Start(ctx(t), Run{ID: "x", Dir: dir, Log: Log{Driver: "none"}, Names: stdio, PlanFiles: make([]*os.File, 3),
		Plan: []byte("\x00/does/not/exist"), Attach: []Attach{{Stdout: w}}})
	w.Close()
	var f *plan.Failure
	if !errors.As(err, &f) || f.Step != 7 || f.Call != 1 || f.Errno != syscall.ENOENT {
		t.Errorf("error %#v", err)
	}
	within(t, "end of the client's stream", func() { io.ReadAll(r) })
	if _, err := os.Stat(dir + "/mon.sock"); !os.IsNotExist(err) {
		t.Error("mon.sock is left")
	}
	if _, err := m.Start(ctx(t), Run{ID: "x", Dir: dir}); !fault.Is(err, fault.Conflict) {
		t.Errorf("second start: %v", err)
	}
	m.Close()
	within(t, "end of the monitor", func() { <-m.Gone() })
}

func TestSignalAndState(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "100")
	st, err := b.State(ctx(t))
	if err != nil || !st.Running || st.ID != "box" || syscall.Kill(st.PID, 0) != nil {
		t.Fatalf("state %+v, %v", st, err)
	}
	if err := b.Signal(ctx(t), "", syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if e := exit(t, b.Monitor); e.Code != 130 || e.Signal != 2 {
		t.Errorf("exit %+v", e)
	}
	if err := b.Signal(ctx(t), "", syscall.SIGINT); err == nil {
		t.Error("a signal to what has ended")
	}
}

// TestNoLog: a container whose log cannot be opened is not left running, and
// nobody finds a monitor for it.
func TestNoLog(t *testing.T) {
	dir := t.TempDir()
	m := take(t)
	_, err := m.Start(ctx(t), Run{ID: "box", Dir: dir, Log: Log{Path: dir + "/missing/json.log"}, Names: stdio, PlanFiles: make([]*os.File, 3),
		Plan: []byte("\x00/bin/sh\x00-c\x00touch " + dir + "/ran; exec sleep 100")})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "open log") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir + "/mon.sock"); !os.IsNotExist(err) {
		t.Errorf("mon.sock was left: %v", err)
	}
}
