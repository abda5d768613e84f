package monitor

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/launch/child"
	"fief/internal/words/fault"
)

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestPoolRefillsAndEnds(t *testing.T) {
	p := pool(t, 2)
	within(t, "full pool", func() {
		for p.short() {
			time.Sleep(time.Millisecond)
		}
	})
	first, err := p.Take(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	within(t, "refill", func() {
		for p.short() {
			time.Sleep(time.Millisecond)
		}
	})
	p.mu.Lock()
	idle := append([]*Monitor(nil), p.idle...)
	p.mu.Unlock()
	syscall.Kill(idle[1].PID, syscall.SIGKILL) // the next to be taken is dead
	within(t, "its death", func() { <-idle[1].Gone() })
	second, err := p.Take(ctx(t))
	if err != nil || second.PID == idle[1].PID {
		t.Fatalf("%+v, %v", second, err)
	}
	p.mu.Lock()
	idle = append([]*Monitor(nil), p.idle...)
	p.mu.Unlock()
	p.Close()
	if _, err := p.Take(ctx(t)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("take of a closed pool: %v", err)
	}
	for _, m := range idle {
		within(t, "end of the idle", func() { waitGone(m.PID) })
	}
	for _, m := range []*Monitor{first, second} { // taken: not the pool's any more
		if syscall.Kill(m.PID, 0) != nil {
			t.Error("a monitor that was taken has ended with the pool")
		}
		m.Close()
		within(t, "end of an idle monitor with its daemon", func() { waitGone(m.PID) })
	}
}

func TestOtherBuildIsRefused(t *testing.T) {
	exe, _ := os.Executable()
	p := NewPool(PoolConfig{Binary: exe, Label: "another"})
	defer p.Close()
	if _, err := p.Take(ctx(t)); !fault.Is(err, fault.Unavailable) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	p = NewPool(PoolConfig{Binary: "/does/not/exist", Label: "x", Size: 1})
	defer p.Close()
	if _, err := p.Take(ctx(t)); err == nil {
		t.Error("a monitor out of nothing")
	}
	p = NewPool(PoolConfig{Binary: "/bin/true", Label: "x"})
	defer p.Close()
	if _, err := p.Take(ctx(t)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a program that is no monitor: %v", err)
	}
}

// TestMonitorIsApart: own session, no descriptors or environment of the daemon.
func TestMonitorIsApart(t *testing.T) {
	stray, err := unix.FcntlInt(0, unix.F_DUPFD, 200) // a descriptor that would be inherited
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	m := take(t)
	if _, err := os.Stat("/proc/" + strconv.Itoa(m.PID) + "/fd/" + strconv.Itoa(stray)); err == nil {
		t.Error("it has a descriptor of the daemon")
	}
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(m.PID) + "/stat")
	fields := strings.Fields(string(status[strings.LastIndexByte(string(status), ')')+1:]))
	if fields[3] != strconv.Itoa(m.PID) {
		t.Errorf("session %s of process %d", fields[3], m.PID)
	}
	env, _ := os.ReadFile("/proc/" + strconv.Itoa(m.PID) + "/environ")
	if got := strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00"); len(got) != 4 || got[0] != "GOMAXPROCS=1" || got[1] != "GOGC=25" {
		t.Errorf("environment %q", got)
	}
	if cwd, _ := os.Readlink("/proc/" + strconv.Itoa(m.PID) + "/cwd"); cwd != "/" {
		t.Errorf("works in %s", cwd)
	}
}

// TestNoLeaks: a hundred starts leave the daemon's descriptors, and a hundred
// exec sessions the monitor's, as they were.
func TestNoLeaks(t *testing.T) {
	start := func() {
		m, err := spawn(ctx(t), pool(t, 0).cfg)
		if err != nil {
			t.Fatal(err)
		}
		r, w := pipe(t)
		ours, alive := socket(t)
		run(t, m, func(r *Run) { r.Attach = []Attach{{Stdout: w, Alive: alive}} }, "", "/bin/true")
		exit(t, m)
		within(t, "end of the monitor", func() { <-m.Gone(); waitGone(m.PID) })
		for _, f := range []*os.File{r, w, ours, alive} {
			f.Close()
		}
	}
	start()
	before := openFiles(t, os.Getpid())
	n := 100
	if !child.Available || testing.Short() { // the race detector makes each process sleep a second before it ends
		n = 10
	}
	for range n {
		start()
	}
	if now := openFiles(t, os.Getpid()); now > before+2 { // the poller may still hold what it just closed
		t.Errorf("%d descriptors, %d before", now, before)
	}

	b := run(t, take(t), func(r *Run) { r.OpenStdin = true }, "", "/bin/sleep", "100")
	before = openFiles(t, b.PID)
	if before >= 64 {
		t.Errorf("a monitor at rest has %d descriptors", before)
	}
	for i := range n {
		inR, inW := pipe(t)
		r, w := pipe(t)
		ours, alive := socket(t)
		options := [...]string{"", "tty"}[i%2]
		attach := []Attach{{Stdin: inR, Stdout: w, Alive: alive}}
		if _, err := execute(t, b, "x", attach, func(e *Exec) { e.OpenStdin = true }, options, "/bin/true"); err != nil {
			t.Fatal(err)
		}
		alive.Close()
		exit(t, b.Monitor)
		parted(t, ours)
		for _, f := range []*os.File{inR, inW, r, w, ours} {
			f.Close()
		}
		execute(t, b, "y", []Attach{{Stdout: os.Stderr}}, nil, options, "/does/not/exist")
	}
	within(t, "closed descriptors", func() {
		for openFiles(t, b.PID) > before {
			time.Sleep(10 * time.Millisecond)
		}
	})
}
