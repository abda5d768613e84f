// Package soak looks for what is lost or left only now and then, or little by
// little: many containers over restarts and changes of the daemon, and many runs
// one after the other. FIEF_SOAK_CONTAINERS and FIEF_SOAK_RUNS say how many; the
// suite takes a few.
package soak

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// many reads how many of something are asked for.
func many(t *testing.T, name string, few int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number", name, text)
	}
	return n
}

// load is a set of writers, which together write a megabyte a second. No shells:
// one that sleeps by sleep(1) forks at every pause, and 200 of them are all that a
// small machine can do.
type load struct {
	n      int
	lines  int
	binary string // of the writer
}

func name(i int) string { return "writer-" + strconv.Itoa(i) }

// code is what a writer ends with, lines how many it writes: some end while the
// daemon is away, whenever that is.
func (l load) code(i int) int { return 1 + i%120 }
func (l load) of(i int) int   { return l.lines*(i%4+1)/4 + i }

func (l load) start(t *testing.T, d *testenv.Daemon, i int) {
	t.Helper()
	// A burst each so many seconds: 1000 lines a second in all.
	pause := max(float64(l.n)/1000, 0.2)
	burst := max(int(pause*1000/float64(l.n)), 1)
	d.Must(t, "run", "-d", "--name", name(i), "-v", l.binary+":/writer:ro", "-e", "GOMAXPROCS=1", "busybox", "/writer",
		strconv.Itoa(l.of(i)), strconv.Itoa(burst), strconv.FormatFloat(pause, 'f', 3, 64)+"s", strconv.Itoa(l.code(i)))
}

// right reports what ps has wrong: a container is running when its process is.
func right(t *testing.T, d *testenv.Daemon, want int) string {
	t.Helper()
	out, _, code := d.Fief(t, "ps", "-a", "--format", "{{.Names}} {{.State}}")
	if code != 0 || len(strings.Fields(out)) != 2*want {
		return "it lists " + strconv.Itoa(len(strings.Fields(out))/2) + " of " + strconv.Itoa(want)
	}
	for line := range strings.Lines(out) {
		if state := strings.Fields(line)[1]; state != "running" && state != "exited" {
			return line
		}
	}
	return ""
}

// another returns the binaries of another build: those that FIEF_PREVIOUS names,
// or this source under another label.
func another(t *testing.T) string {
	t.Helper()
	return built(t, "-ldflags", "-s -w -X main.version=another")
}

// built returns a daemon and a monitor of this source, built with flags, or those
// that FIEF_PREVIOUS names.
func built(t *testing.T, flags ...string) string {
	t.Helper()
	if dir := os.Getenv("FIEF_PREVIOUS"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	compile(t, append(flags, "-o", dir+"/", "./cmd/fiefd", "./cmd/fief-mon")...)
	return dir
}

func compile(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-trimpath"}, args...)...)
	cmd.Dir = testenv.Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestLiveRestore: containers that write all the time, under a daemon that is
// killed, replaced by another build and replaced again. No line and no exit code
// is lost, and what is asked of a monitor of another build is done.
func TestLiveRestore(t *testing.T) {
	n := many(t, "FIEF_SOAK_CONTAINERS", 20)
	const patience = 30 * time.Second // how long it takes is told, not judged: the writers use all processors
	other := another(t)
	d := testenv.Start(t)
	d.Busybox(t)
	seconds := 20 + n/2 // until the last one has been started, and on
	l := load{n: n, lines: max(seconds*1000/n, 100), binary: filepath.Join(t.TempDir(), "writer")}
	compile(t, "-o", l.binary, "./test/soak/writer")
	for i := range n / 2 {
		l.start(t, d, i)
	}
	back := func(build string, started int) {
		t.Helper()
		d.Kill(t)
		time.Sleep(time.Second)
		d.Build(build)
		from := time.Now()
		d.Up(t)
		wrong := right(t, d, started)
		for wrong != "" && time.Since(from) < patience {
			time.Sleep(10 * time.Millisecond)
			wrong = right(t, d, started)
		}
		took, cpu := time.Since(from).Round(time.Millisecond), used(d)
		running := len(strings.Fields(d.Must(t, "ps", "-q")))
		t.Logf("%d containers, %d running: ps is right %v and %v of processors' time after the start of the daemon", started, running, took, cpu)
		if wrong != "" || time.Since(from) > patience {
			t.Errorf("after %v: %s", time.Since(from), wrong)
		}
	}
	back("", n/2)
	d.Must(t, "run", "-d", "--name", "asked", "busybox", "sh", "-c", "trap 'echo heard; exit 33' USR1; while :; do sleep 0.1; done")
	back(other, n/2+1)
	// A monitor of this build under the other daemon: everything that is asked of
	// one that runs.
	if got := d.Must(t, "exec", "asked", "echo", "through"); got != "through" {
		t.Errorf("exec says %q", got)
	}
	for i := n / 2; i < n; i++ {
		l.start(t, d, i)
	}
	d.Must(t, "run", "-d", "--name", "asked-too", "busybox", "sh", "-c", "trap 'echo heard; exit 33' USR1; while :; do sleep 0.1; done")
	back("", n+2)
	for _, who := range []string{"asked", "asked-too"} {
		if got := d.Must(t, "exec", who, "echo", "through"); got != "through" {
			t.Errorf("exec in %s says %q", who, got)
		}
		d.Must(t, "kill", "-s", "USR1", who)
		if got := d.Must(t, "wait", who); got != "33" {
			t.Errorf("%s ended with %s", who, got)
		}
		if got := d.Must(t, "logs", who); got != "heard" {
			t.Errorf("%s says %q", who, got)
		}
	}
	back(other, n+2)
	back("", n+2)
	for i := range n {
		l.check(t, d, i)
	}
	names := []string{"rm", "-f", "asked", "asked-too"}
	for i := range n {
		names = append(names, name(i))
	}
	d.Must(t, names...)
}

// used is the time of processors that a daemon has had (proc_pid_stat(5), fields
// 14 and 15, in hundredths of a second).
func used(d *testenv.Daemon) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	return time.Duration(leading(fields[11])+leading(fields[12])) * 10 * time.Millisecond
}

// check waits for a writer's end and looks at its code and at every line.
func (l load) check(t *testing.T, d *testenv.Daemon, i int) {
	t.Helper()
	if got := d.Must(t, "wait", name(i)); got != strconv.Itoa(l.code(i)) {
		t.Errorf("%s ended with %s, not %d", name(i), got, l.code(i))
	}
	lines := strings.Split(d.Must(t, "logs", name(i)), "\n")
	if len(lines) != l.of(i) {
		t.Errorf("%s: %d lines of %d", name(i), len(lines), l.of(i))
	}
	for k, line := range lines {
		if len(line) != 1000 || !strings.HasPrefix(line, fmt.Sprintf("%07d ", k)) {
			t.Errorf("%s: line %d is %.20q…, %d bytes", name(i), k, line, len(line))
			return
		}
	}
}

// counts is what may grow from run to run.
type counts map[string]int

// measure counts what a daemon and its containers have.
func measure(t *testing.T, d *testenv.Daemon) counts {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", d.PID())
	c := counts{}
	entries := func(what, dir string) {
		list, _ := os.ReadDir(dir)
		c[what] = len(list)
	}
	entries("descriptors", proc+"fd")
	entries("run directories", d.Dir+"/run/c")
	entries("logs", d.Dir+"/data/logs")
	entries("uppers", d.Dir+"/data/uppers")
	for what, path := range map[string]string{"mounts": "/proc/self/mountinfo", "mounts of the daemon": proc + "mountinfo"} {
		b, _ := os.ReadFile(path)
		c[what] = strings.Count(string(b), "\n")
	}
	c["empty cgroups"] = emptyGroups()
	namespaces := map[string]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/*")
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	mine := map[string]bool{strings.TrimSuffix(proc, "/"): true}
	for _, stat := range stats { // its monitors: others may have daemons, too
		b, _ := os.ReadFile(stat)
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(d.PID()) {
			mine[filepath.Dir(stat)] = true
		}
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && mine[filepath.Dir(filepath.Dir(l))] {
			namespaces[to] = true
		}
	}
	c["namespaces"], c["processes"] = len(namespaces), len(mine)
	info, _, _ := testenv.Output(t, d.Command(t, "docker", "info", "-f", "{{.NGoroutines}}\n{{range .DriverStatus}}{{index . 0}}={{index . 1}}\n{{end}}"))
	first, rest, _ := strings.Cut(info, "\n")
	c["goroutines"], _ = strconv.Atoi(first)
	_, ranges, _ := strings.Cut(rest, "Id Ranges=")
	c["leases"] = leading(ranges)
	rollup, _ := os.ReadFile(proc + "smaps_rollup")
	_, kib, _ := strings.Cut(string(rollup), "Anonymous:")
	c["memory, MiB"] = leading(kib) >> 10
	return c
}

// emptyGroups counts containers' groups that have no process: what is left of
// those that are gone. Others may have containers meanwhile.
func emptyGroups() (n int) {
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || !strings.Contains(path, "/fief/") {
			return nil
		}
		if procs, err := os.ReadFile(path + "/cgroup.procs"); err == nil && len(procs) == 0 {
			n++
		}
		return nil
	})
	return n
}

// leading is the number that a text begins with.
func leading(text string) int {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(words[0])
	return n
}

// TestRuns: what is made for a container goes with it, run after run.
func TestRuns(t *testing.T) {
	n := many(t, "FIEF_SOAK_RUNS", 200)
	d := testenv.Start(t)
	d.Busybox(t)
	cycle := func(i int) {
		switch i % 4 {
		case 0, 1:
			d.Must(t, "run", "--rm", "busybox", "true")
		case 2:
			d.Must(t, "create", "--name", "cycle", "--health-cmd", "true", "busybox", "sh", "-c", "echo hello; exit 3")
			d.Must(t, "start", "cycle")
			d.Must(t, "wait", "cycle")
			d.Must(t, "logs", "cycle")
			d.Must(t, "rm", "cycle")
		case 3:
			d.Must(t, "run", "-d", "--name", "cycle", "--restart", "on-failure:3", "busybox", "sleep", "1000")
			d.Must(t, "exec", "cycle", "true")
			d.Must(t, "rm", "-f", "cycle")
		}
	}
	for i := range 40 {
		cycle(i)
	}
	before := settled(t, d, nil)
	for i := range n {
		cycle(i)
	}
	after := settled(t, d, before)
	t.Logf("before %v\nafter %d runs %v", before, n, after)
	for what, now := range after {
		if now > before[what]+slack[what] {
			t.Errorf("%s: %d before, %d after %d runs", what, before[what], now, n)
		}
	}
}

// slack is how much of what comes and goes by itself: connections and goroutines
// on their way out, the heap between collections.
var slack = counts{"descriptors": 4, "goroutines": 6, "memory, MiB": 24, "leases": 1, "namespaces": 8, "processes": 1}

// settled measures until nothing is above what it was, or for some time.
func settled(t *testing.T, d *testenv.Daemon, before counts) counts {
	t.Helper()
	time.Sleep(2 * time.Second) // pools are filled again
	for end := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		c := measure(t, d)
		grown := false
		for what, now := range c {
			grown = grown || before != nil && now > before[what]
		}
		if before == nil || !grown || time.Now().After(end) {
			return c
		}
	}
}
