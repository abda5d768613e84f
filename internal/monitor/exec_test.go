package monitor

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fief/internal/words/fault"
)

func execute(t *testing.T, b *box, id string, attach []Attach, change func(*Exec), options string, command ...string) (int, error) {
	t.Helper()
	e := Exec{ID: id, Names: stdio, PlanFiles: make([]*os.File, 3), Attach: attach,
		Plan: []byte(options + "\x00" + strings.Join(command, "\x00"))}
	if strings.Contains(options, "tty") {
		e.TTY, e.Names, e.PlanFiles = true, nil, nil
	}
	if change != nil {
		change(&e)
	}
	pid, err := b.Exec(ctx(t), e)
	if err == nil {
		t.Cleanup(func() { syscall.Kill(-pid, syscall.SIGKILL) })
	}
	return pid, err
}

func TestExecSessions(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "100")
	const n = 8
	outs := make([]*os.File, n)
	var wg sync.WaitGroup
	for i := range n {
		r, w := pipe(t)
		outs[i] = r
		wg.Go(func() {
			id := "exec-" + strconv.Itoa(i)
			options := ""
			if i%2 == 1 {
				options = "tty"
			}
			if _, err := execute(t, b, id, []Attach{{Stdout: w}}, nil, options, shell("echo "+id+"; exit "+strconv.Itoa(i))...); err != nil {
				t.Error(err)
			}
			w.Close()
		})
	}
	seen := map[string]int{}
	for range n {
		e := exit(t, b.Monitor)
		seen[e.Target] = e.Code
	}
	wg.Wait()
	for i, r := range outs {
		id := "exec-" + strconv.Itoa(i)
		if code, ok := seen[id]; !ok || code != i {
			t.Errorf("%s: code %d, %v", id, code, ok)
		}
		if got, _ := io.ReadAll(r); strings.TrimSpace(string(got)) != id {
			t.Errorf("%s printed %q", id, got)
		}
	}
	if log, _ := os.ReadFile(b.log); len(log) != 0 {
		t.Errorf("exec output in the log: %s", log)
	}
	if st, err := b.State(ctx(t)); err != nil || !st.Running || len(st.Execs) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestExecStdinSignalAndErrors(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "100")
	inR, inW := pipe(t)
	outR, outW := pipe(t)
	pid, err := execute(t, b, "cat", []Attach{{Stdin: inR, Stdout: outW}}, func(e *Exec) { e.OpenStdin = true }, "", "/bin/cat")
	if err != nil || pid <= 0 {
		t.Fatal(pid, err)
	}
	outW.Close()
	if _, err := execute(t, b, "cat", nil, nil, "", "/bin/true"); !fault.Is(err, fault.Exists) {
		t.Errorf("id in use: %v", err)
	}
	inW.WriteString("hello")
	inW.Close()
	if got, _ := io.ReadAll(outR); string(got) != "hello" {
		t.Errorf("%q", got)
	}
	if e := exit(t, b.Monitor); e.Target != "cat" || e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if _, err := execute(t, b, "none", nil, nil, "", "/does/not/exist"); err == nil {
		t.Error("a missing command was started")
	}
	if _, err := execute(t, b, "none", nil, nil, "", "/bin/sleep", "100"); err != nil {
		t.Errorf("the id of a failed start cannot be used: %v", err)
	}
	if err := b.Signal(ctx(t), "none", syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if e := exit(t, b.Monitor); e.Target != "none" || e.Code != 143 {
		t.Errorf("%+v", e)
	}
	for _, err := range []error{b.Signal(ctx(t), "none", syscall.SIGTERM), b.Resize(ctx(t), "none", 1, 1), b.Attach(ctx(t), "none", Attach{})} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("what has ended: %v", err)
		}
	}
}

// TestExecChildHoldsThePipe: the exit is told at once, what the child prints
// within two seconds still arrives. The child prints only after the exit was told,
// so that an exit held back until the pipe is given up would lose its line.
func TestExecChildHoldsThePipe(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "100")
	r, w := pipe(t)
	told := filepath.Join(b.dir, "told")
	if err := syscall.Mkfifo(told, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := execute(t, b, "x", []Attach{{Stdout: w}}, nil, "", shell("(read line <"+told+"; echo late; sleep 30) & echo early")...); err != nil {
		t.Fatal(err)
	}
	w.Close()
	exit(t, b.Monitor)
	within(t, "the child", func() {
		if err := os.WriteFile(told, []byte("now\n"), 0); err != nil { // waits for its reader
			t.Error(err)
		}
	})
	if got, _ := io.ReadAll(r); string(got) != "early\nlate\n" {
		t.Errorf("%q", got)
	}
}

// TestNamespaceDiesWithProcessOne: descendants that hold the pipes are killed
// by the kernel before process 1 can be waited for, and what they printed is
// in the log.
func TestNamespaceDiesWithProcessOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: a pid namespace of its own")
	}
	b := run(t, take(t), nil, "pidns", shell("(while :; do echo noise; done) & (sleep 1000; true) & sleep 0.1; echo last; exit 4")...)
	began := time.Now()
	if e := exit(t, b.Monitor); e.Code != 4 || time.Since(began) > time.Minute {
		t.Errorf("%+v after %v", e, time.Since(began))
	}
	within(t, "end of the monitor", func() { <-b.Gone() })
	if log, _ := os.ReadFile(b.log); !strings.Contains(string(log), `{"log":"last\n"`) {
		t.Error("the last line is missing")
	}
}
