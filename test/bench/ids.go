package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"fief/internal/store"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// crowd is how many containers with leases `fief ids` has to list.
const crowd = 10_000

// benchmarks are Go benchmarks whose medians are rows of the table.
var benchmarks = []struct {
	dir   string
	names []string
}{
	{"./internal/words/idmap", []string{"BenchmarkParse340", "BenchmarkAlgebra340"}},
	{"./internal/idpool", []string{"BenchmarkLease", "BenchmarkHolders10000"}},
}

// ids times what is done with ids: maps of as many extents as there may be,
// leases, and the list of many leases. Its rows are complete.
func (s *stage) ids(n int, idle time.Duration) (list []*contestant) {
	for _, b := range benchmarks {
		list = append(list, goBenchmarks(b.dir, b.names)...)
	}
	return append(list, s.crowded(n, idle)...)
}

// goBenchmarks runs benchmarks of a package, five times each. Those it does not
// have are left out, with a note.
func goBenchmarks(dir string, names []string) (list []*contestant) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^("+strings.Join(names, "|")+")$", "-benchtime", "20ms", "-count", "5", dir)
	cmd.Dir, cmd.Stderr = root(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: the benchmarks of %s fail: %v\n%s", dir, err, out)
		return nil
	}
	rows := map[string]*contestant{}
	for line := range strings.Lines(string(out)) {
		name, took, ok := benchmarkLine(line)
		if !ok {
			continue
		}
		if rows[name] == nil {
			rows[name] = &contestant{Group: "ids", Name: filepath.Base(dir) + " " + name}
			list = append(list, rows[name])
		}
		rows[name].Runs = append(rows[name].Runs, took)
	}
	for _, name := range names {
		if !strings.Contains(string(out), name) {
			fmt.Fprintf(os.Stderr, "bench: %s has no %s; it is left out\n", dir, name)
		}
	}
	return list
}

// benchmarkLine reads "BenchmarkParse340/List-2   500   40123 ns/op   0 B/op".
func benchmarkLine(line string) (name string, took time.Duration, ok bool) {
	words := strings.Fields(line)
	if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") || words[3] != "ns/op" {
		return "", 0, false
	}
	ns, err := strconv.ParseFloat(words[2], 64)
	name = strings.TrimPrefix(words[0], "Benchmark")
	if at := strings.LastIndexByte(name, '-'); at > 0 { // GOMAXPROCS
		name = name[:at]
	}
	return name, time.Duration(ns), err == nil
}

// crowded times `fief ids` of a daemon with many stopped containers, which it
// finds in the state of one before it.
func (s *stage) crowded(n int, idle time.Duration) []*contestant {
	if err := s.fief("ids", "--help").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: fief has no command ids; listing many leases is left out")
		return nil
	}
	dir := filepath.Join(s.work, "crowd")
	check(os.MkdirAll(filepath.Join(dir, "data"), 0o700))
	check(populate(filepath.Join(dir, "data/state.db")))
	log, err := os.Create(filepath.Join(dir, "log"))
	check(err)
	defer log.Close()
	daemon := exec.Command(s.bin+"/fiefd", "--data-root", dir+"/data", "--exec-root", dir+"/run", "--id-registry", dir+"/ids", "--pool-size", "0")
	daemon.Stdout, daemon.Stderr = log, log
	check(daemon.Start())
	defer daemon.Wait()
	defer daemon.Process.Signal(os.Interrupt)
	fief := func(args ...string) *exec.Cmd {
		cmd := exec.Command(s.bin+"/fief", args...)
		cmd.Env = append(os.Environ(), "FIEF_HOST=unix://"+dir+"/run/docker.sock")
		return cmd
	}
	for end := time.Now().Add(2 * time.Minute); fief("version").Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(log.Name())
			fatal(fmt.Errorf("fiefd with %d containers does not answer:\n%s", crowd, b))
		}
	}
	settle(daemon.Process.Pid)
	if out, err := fief("ids").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: listing many leases is left out: fief ids: %s", out)
		return nil
	}
	list := []*contestant{
		{Group: "ids", Name: fmt.Sprintf("fief ids, %d leases", crowd), make: func() *exec.Cmd { return fief("ids") }},
		{Group: "ids", Name: fmt.Sprintf("fief ids --json, %d leases", crowd), make: func() *exec.Cmd { return fief("ids", "--json") }},
	}
	round(list, min(n, 20), idle)
	return list
}

// settle waits until a daemon and its children use no processor any more: at its
// start it asks name services about thousands of ranges, once.
func settle(pid int) {
	used := func() string {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, after, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(after)
		return strings.Join(fields[min(11, len(fields)):min(15, len(fields))], " ") // utime, stime, cutime, cstime
	}
	for last, end := "", time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
		now := used()
		if now == last {
			return
		}
		last = now
	}
}

// populate writes the records of containers that once ran, each with a range of
// its own.
func populate(path string) error {
	db, err := store.Open(path)
	if err != nil {
		return err
	}
	records := map[string]any{}
	for i := range crowd {
		const first, size = 524288, 65536
		base := idmap.Host(first + i*size)
		spans := []idmap.Span{{In: 0, Out: base, N: size}}
		rec := record.Container{
			Version: record.Version, ID: fmt.Sprintf("%064x", i+1), Name: fmt.Sprintf("one-of-many-%d", i), Created: time.Now(),
			Image: "busybox", Path: "sleep", Args: []string{"1000"}, Runtime: "fief", Network: "none",
			Identity: record.Identity{Mode: "auto", UID: spans, GID: spans, Lease: &record.Lease{Base: base, Size: size}, Since: time.Now()},
			State:    record.State{Status: record.Exited, FinishedAt: time.Now()},
		}
		records[rec.ID] = rec
	}
	return errors.Join(db.Bucket("containers").PutAll(records), db.Close())
}
