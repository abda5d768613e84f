package runtimes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// TestUpgrade: from the moment in which fief-mon is replaced, or removed, until
// the daemon is restarted, everything that needs a monitor is done by those of
// the daemon's own build; from then on by the new one's.
func TestUpgrade(t *testing.T) {
	d := testenv.Start(t, config(t, "")...)
	d.Busybox(t)
	d.Stop(t)
	bin := t.TempDir()
	mon := filepath.Join(bin, "fief-mon")
	install(t, bin, "fiefd")
	install(t, bin, "fief-mon")
	d.Build(bin)
	d.Up(t)
	d.Must(t, "run", "-d", "--name", "old", "busybox", "sleep", "1000")
	d.Must(t, "run", "-d", "--name", "crun", "--runtime", "crun", "busybox", "sleep", "1000")
	first := monitorOf(t, d, "old")

	install(t, bin, "fief-mon")
	if got := d.Must(t, "run", "--rm", "--init", "busybox", "echo", "init"); got != "init" {
		t.Errorf("with the init of the new build: %q", got)
	}
	garbage := filepath.Join(bin, "new")
	if err := os.WriteFile(garbage, []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(garbage, mon); err != nil {
		t.Fatal(err)
	}
	asBefore(t, d, "replaced", first)
	if err := os.Remove(mon); err != nil {
		t.Fatal(err)
	}
	asBefore(t, d, "removed", first)
	// The init of --init is bound, and what has no name cannot be.
	if _, errs, code := d.Fief(t, "run", "--rm", "--init", "busybox", "true"); code != 125 || !strings.Contains(errs, mon) {
		t.Errorf("--init without the binary: exit %d, %s", code, errs)
	}

	install(t, bin, "fief-mon")
	old := monitorDir(t, d, "old")
	d.Kill(t)
	if name, err := os.ReadFile(filepath.Join(old, "comm")); err != nil || string(name) != "fief-mon\n" {
		t.Errorf("without its daemon the monitor is called %q, %v", name, err)
	}
	d.Up(t)
	d.Must(t, "run", "-d", "--name", "new", "busybox", "sleep", "1000")
	installed, err := os.Stat(mon)
	if err != nil {
		t.Fatal(err)
	}
	if now := monitorOf(t, d, "new"); !os.SameFile(now, installed) {
		t.Error("a container of the new daemon has another monitor than the one installed")
	}
	if now := monitorOf(t, d, "old"); !os.SameFile(now, first) {
		t.Error("an old container has another monitor than before")
	}
	for _, name := range []string{"old", "crun", "new"} {
		if got := d.Must(t, "exec", name, "echo", "in"); got != "in" {
			t.Errorf("exec in %s: %q", name, got)
		}
	}
}

// asBefore does what needs a monitor, more often than monitors wait for work.
func asBefore(t *testing.T, d *testenv.Daemon, when string, first os.FileInfo) {
	t.Helper()
	for range 6 {
		if got := d.Must(t, "run", "--rm", "busybox", "echo", "hello"); got != "hello" {
			t.Errorf("%s: run: %q", when, got)
		}
	}
	if got := d.Must(t, "run", "--rm", "--runtime", "crun", "busybox", "echo", "crun"); got != "crun" {
		t.Errorf("%s: crun: %q", when, got)
	}
	for _, name := range []string{"old", "crun"} {
		if got := d.Must(t, "exec", name, "echo", "in"); got != "in" {
			t.Errorf("%s: exec in %s: %q", when, name, got)
		}
	}
	d.Must(t, "run", "-d", "--name", when, "busybox", "sleep", "1000")
	if now := monitorOf(t, d, when); !os.SameFile(now, first) {
		t.Errorf("%s: another program is the monitor", when)
	}
	d.Must(t, "rm", "-f", when)
}

// install puts one of the binaries under test into a directory as package
// managers do: a file of its own, put in place by its name.
func install(t *testing.T, dir, name string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.Bin(t), name))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "."+name), b, 0o755)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// monitorOf is the program that a container's monitor runs.
func monitorOf(t *testing.T, d *testenv.Daemon, name string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(monitorDir(t, d, name), "exe"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// monitorDir is the directory in /proc of a container's monitor, the parent of its
// first process.
func monitorDir(t *testing.T, d *testenv.Daemon, name string) string {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + d.Must(t, "inspect", "-f", "{{.State.Pid}}", name) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return "/proc/" + strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1]
}
