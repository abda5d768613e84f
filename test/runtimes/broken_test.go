package runtimes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fief/internal/testenv"
)

// TestBroken: whatever a runtime does, the client gets a reason and exit code
// 125, and the daemon goes on.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	var more strings.Builder
	add := func(name, script string) {
		path := filepath.Join(dir, name)
		if script != "" {
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		more.WriteString("[runtimes." + name + "]\npath = \"" + path + "\"\ntimeout = \"3s\"\n")
	}
	// What a script needs to find the file that it shall write the pid to.
	const args = `while [ $# -gt 0 ]; do case $1 in --pid-file) file=$2;; create|start|delete) verb=$1;; esac; shift; done; `
	add("missing", "")
	add("hangs", `case "$1" in --version|features) exit 1;; esac; exec sleep 1000`)
	add("babbles", `head -c 100000 /dev/urandom; head -c 100000 /dev/urandom >&2; exit 3`)
	add("silent", "exit 0")
	add("one", args+`[ "$verb" != create ] || echo 1 >$file`)
	add("foreign", args+`[ "$verb" != create ] || echo `+"$PPID"+` >$file`)
	add("nonsense", args+`[ "$verb" != create ] || echo 99999999999999999999 >$file`)
	add("killed", `case "$1" in --version|features) exit 1;; esac; kill -9 $$`)
	add("text", "")
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte("not a program"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := testenv.Start(t, config(t, more.String())...)
	d.Busybox(t)
	for name, want := range map[string]string{
		"missing": "no such file or directory", "hangs": "has not come back within 3s", "babbles": "OCI runtime create failed: ",
		"silent": "has not noted the process id", "one": "has not noted the process id", "foreign": "not one that it has started",
		"nonsense": "has not noted the process id", "killed": "was ended by signal 9", "text": "it is no program", "unknown": "unknown or invalid runtime name: unknown",
	} {
		began := time.Now()
		_, errs, code := d.Fief(t, "run", "--rm", "--runtime", name, "busybox", "true")
		if code != 125 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("%s took %v", name, took)
		}
	}
	if got := d.Must(t, "ps", "-aq"); got != "" {
		t.Errorf("left: %s", got)
	}
	if got := d.Must(t, "run", "--rm", "busybox", "echo", "well"); got != "well" {
		t.Errorf("%q", got)
	}
}

// TestSettings: names are listed; a default is used; a runtime that is not
// registered any more is still used for what runs, and refused by name after.
func TestSettings(t *testing.T) {
	d := testenv.Start(t, append(config(t, ""), "--default-runtime", "crun")...)
	d.Busybox(t)
	info := d.Must(t, "info")
	for _, want := range []string{"crun", "runc", "Default Runtime: crun"} {
		if !strings.Contains(info, want) {
			t.Errorf("info does not say %q:\n%s", want, info)
		}
	}
	if got := d.Must(t, "__complete", "run", "--runtime", "cr"); got != "crun" {
		t.Errorf("completed to %q", got)
	}
	id := d.Must(t, "run", "-d", "--restart", "no", "busybox", "sleep", "1000")
	if got := d.Must(t, "inspect", "-f", "{{.HostConfig.Runtime}}", id); got != "crun" {
		t.Errorf("runtime %q", got)
	}
	d.Stop(t)
	d.Args()
	d.Up(t)
	if got := d.Must(t, "exec", id, "echo", "there"); got != "there" {
		t.Errorf("%q", got)
	}
	d.Must(t, "stop", "-t", "0", id)
	if _, errs, code := d.Fief(t, "start", id); code == 0 || !strings.Contains(errs, "unknown or invalid runtime name: crun") {
		t.Errorf("exit %d: %s", code, errs)
	}
	d.Must(t, "rm", id)
}
