package monitor

import (
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// adopt makes a stand-in for a running container.
func adopt(t *testing.T, b *box) (*Monitor, string) {
	t.Helper()
	s, err := b.State(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	m, dir := take(t), t.TempDir()
	if err := m.Adopt(ctx(t), Adoption{ID: b.ID, Dir: dir, PID: s.PID, Started: s.Started, PIDFD: pidfd}); err != nil {
		t.Fatal(err)
	}
	return m, dir
}

// TestStandIn: a second monitor runs sessions and checks health in a container
// whose process is another monitor's child, is found again, and ends when the
// container has.
func TestStandIn(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "1000")
	m, dir := adopt(t, b)
	plan := []byte("\x00/bin/sh\x00-c\x00exit 9")
	if _, err := m.Exec(ctx(t), Exec{ID: "x", Names: append(stdio, "pidfd"), PlanFiles: make([]*os.File, 4), Plan: plan}); err != nil {
		t.Fatal(err)
	}
	if e := exit(t, m); e.Target != "x" || e.Code != 9 {
		t.Errorf("%+v", e)
	}
	if watches, err := m.Watches(ctx(t)); watches || err != nil {
		t.Errorf("it watches: %v, %v", watches, err)
	}
	if err := m.Watch(ctx(t), Probe{Interval: 50 * time.Millisecond, Timeout: time.Minute, Names: stdio, PlanFiles: make([]*os.File, 3), Plan: []byte("\x00/bin/true")}); err != nil {
		t.Fatal(err)
	}
	if err := m.Adopt(ctx(t), Adoption{ID: "y", Dir: dir, PID: 1, PIDFD: os.Stdin}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second container: %v", err)
	}
	m.Close()
	again, err := Reconnect(ctx(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	if watches, err := again.Watches(ctx(t)); !watches || err != nil {
		t.Errorf("it watches no longer: %v", err)
	}
	s, err := b.State(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(s.PID, syscall.SIGKILL)
	exit(t, b.Monitor)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := again.Exec(ctx(t), Exec{ID: "late", Names: stdio, PlanFiles: make([]*os.File, 3), Plan: plan}); fault.Is(err, fault.Conflict) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a session in a container that has ended: %v", err)
		}
	}
	again.Close()
	within(t, "end of the stand-in", func() { waitGone(again.PID) })
}

// TestStandInEndsWithItsDaemon: one for which nothing runs.
func TestStandInEndsWithItsDaemon(t *testing.T) {
	b := run(t, take(t), nil, "", "/bin/sleep", "1000")
	m, dir := adopt(t, b)
	m.Close()
	within(t, "end of the stand-in", func() { waitGone(m.PID) })
	if _, err := Reconnect(ctx(t), dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is found: %v", err)
	}
}
