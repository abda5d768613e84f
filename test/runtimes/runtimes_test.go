// Package runtimes runs the same containers by fief's own launch path and by
// every other OCI runtime of the machine, and expects the same of them.
package runtimes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// others are the runtimes that are looked for besides fief's own; fief-oci is
// always there. runsc is no part of Debian's main section everywhere, and not
// needed.
func others(t *testing.T) map[string]string {
	found := map[string]string{"foci": filepath.Join(testenv.Bin(t), "fief-oci")}
	for _, name := range []string{"crun", "runc", "runsc"} {
		for _, dir := range []string{"/usr/bin/", "/usr/sbin/", "/usr/local/bin/"} {
			if _, err := os.Stat(dir + name); err == nil && found[name] == "" {
				found[name] = dir + name
			}
		}
		if found[name] == "" && name != "runsc" {
			t.Skip("tool: no " + name)
		}
	}
	return found
}

// config writes a fief.toml that registers every runtime.
func config(t *testing.T, more string) []string {
	t.Helper()
	var text strings.Builder
	for name, path := range others(t) {
		args := ""
		if name == "runsc" { // as this machine may have no KVM
			args = `"--platform=ptrace", "--network=none"`
		}
		fmt.Fprintf(&text, "[runtimes.%s]\npath = %q\nargs = [%s]\n", name, path, args)
	}
	file := filepath.Join(t.TempDir(), "fief.toml")
	if err := os.WriteFile(file, []byte(text.String()+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config-file", file}
}

// each runs a test for every runtime, on one daemon.
func each(t *testing.T, test func(t *testing.T, d *testenv.Daemon, runtime string)) {
	d := testenv.Start(t, config(t, "")...)
	d.Busybox(t)
	names := []string{"fief", "crun", "runc", "foci"}
	if others(t)["runsc"] != "" {
		names = append(names, "runsc")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { test(t, d, name) })
	}
}

// fief runs fief with something on its standard input.
func fief(t *testing.T, d *testenv.Daemon, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := d.Command(t, "fief", args...)
	cmd.Stdin = strings.NewReader(stdin)
	return testenv.Output(t, cmd)
}

// until waits for something to become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestProcess: what a program gets and gives.
func TestProcess(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		for name, c := range map[string]struct {
			args  string
			stdin string
			out   string
			err   string // a part of it
			code  int
		}{
			"output":     {args: "busybox echo hello", out: "hello\n"},
			"code":       {args: "busybox sh -c exit+7", code: 7},
			"stderr":     {args: "busybox sh -c echo+oops+>&2", err: "oops\n"},
			"stdin":      {args: "-i busybox cat", stdin: "through", out: "through"},
			"env":        {args: "-e A=b busybox sh -c echo+$A+$HOME", out: "b /root\n"},
			"user":       {args: "-u app busybox id -u", out: "1000\n"},
			"workdir":    {args: "-w /tmp busybox pwd", out: "/tmp\n"},
			"hostname":   {args: "-h box busybox hostname", out: "box\n"},
			"init":       {args: "--init busybox head -c 14 /proc/1/cmdline", out: "/dev/fief-init"},
			"read-only":  {args: "--read-only busybox touch /x", code: 1, err: "Read-only file system"},
			"tmpfs":      {args: "--read-only --tmpfs /t busybox sh -c echo+x+>/t/x;cat+/t/x", out: "x\n"},
			"not there":  {args: "busybox nosuch", code: 127, err: "OCI runtime create failed"},
			"no program": {args: "busybox /etc/passwd", code: 126, err: "ermission denied"},
			"signal":     {args: "busybox sh -c sleep+1000+&+kill+-9+$!;wait+$!", code: 137},
			"masked":     {args: "busybox sh -c cat+/proc/kcore+|+wc+-c", out: "0\n"},
		} {
			if runtime == "runsc" && name == "no program" {
				continue // its answer differs
			}
			words := append([]string{"run", "--rm", "--runtime", runtime}, strings.Fields(c.args)...)
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "+", " ")
			}
			if runtime == "fief" && name == "not there" {
				c.err = "executable file not found"
			}
			out, errs, code := fief(t, d, c.stdin, words...)
			if out != c.out || code != c.code || !strings.Contains(errs, c.err) {
				t.Errorf("%s: exit %d, %q, %q", name, code, out, errs)
			}
		}
	})
}

// TestIdentity: a container has host ids of its own, seen from outside, and a
// bind shows the host's owners as ever.
func TestIdentity(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		dir := t.TempDir()
		os.Chmod(dir, 0o777)
		one := d.Must(t, "run", "-d", "--runtime", runtime, "-v", dir+":/data", "-v", dir+":/ro:ro", "busybox", "sleep", "1000")
		two := d.Must(t, "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000")
		d.Must(t, "exec", one, "touch", "/data/made")
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, "made"), &st); err != nil {
			t.Fatal(err)
		}
		if runtime != "runsc" { // whose sandbox runs as nobody
			if a, b := owner(t, d, one), owner(t, d, two); a == b || a < 65536 || int(st.Uid) != a {
				t.Errorf("host uids %d and %d, of the file %d", a, b, st.Uid)
			}
		}
		if _, _, code := d.Fief(t, "exec", one, "touch", "/ro/x"); code == 0 {
			t.Error("a read-only bind was written to")
		}
		if got := d.Must(t, "inspect", "-f", "{{.HostConfig.Runtime}}", one); got != runtime {
			t.Errorf("inspect says %q", got)
		}
		d.Must(t, "rm", "-f", one, two)
	})
}

// owner is the host uid of a container's first process.
func owner(t *testing.T, d *testenv.Daemon, id string) int {
	t.Helper()
	info, err := os.Stat("/proc/" + pid(t, d, id))
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

func pid(t *testing.T, d *testenv.Daemon, id string) string {
	t.Helper()
	return d.Must(t, "inspect", "-f", "{{.State.Pid}}", id)
}

// TestSessions: other processes in a container, with and without a terminal.
func TestSessions(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		id := d.Must(t, "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000")
		out, _, code := fief(t, d, "in", "exec", "-i", id, "sh", "-c", "cat; exit 3")
		if out != "in" || code != 3 {
			t.Errorf("exit %d, %q", code, out)
		}
		if _, errs, code := d.Fief(t, "exec", id, "nosuch"); code != 127 {
			t.Errorf("exit %d of a command that is not there: %s", code, errs)
		}
		if got := d.Must(t, "exec", "-u", "1000", "-e", "A=b", "-w", "/tmp", id, "sh", "-c", "echo $A $(id -u) $(pwd)"); got != "b 1000 /tmp" {
			t.Errorf("%q", got)
		}
		for _, words := range []string{"exec -it " + id, "run --rm -it --runtime " + runtime + " busybox"} {
			cmd := exec.Command("script", "-qec", filepath.Join(testenv.Bin(t), "fief")+" "+words+" sh -c 'test -t 0 && echo terminal'", "/dev/null")
			cmd.Env = d.Env(t)
			if out, _, _ := testenv.Output(t, cmd); !strings.Contains(out, "terminal") {
				t.Errorf("%s: %q", words, out)
			}
		}
		d.Must(t, "rm", "-f", id)
	})
}

// TestLife: a container is limited, stopped, paused, looked into, restarted and
// removed like any other, and nothing of a runtime's state is left.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		name := "life-" + runtime
		d.Must(t, "run", "-d", "--runtime", runtime, "--name", name, "-m", "64m", "--pids-limit", "200", "--health-cmd", "test -e /tmp/well", "--health-interval", "1s",
			"busybox", "sh", "-c", "trap 'echo told; exit 5' TERM; echo up; touch /tmp/well; while :; do sleep 1; done")
		until(t, "the container is healthy", func() bool { return d.Must(t, "inspect", "-f", "{{.State.Health.Status}}", name) == "healthy" })
		limited(t, pid(t, d, name), 64<<20)
		d.Must(t, "update", "-m", "128m", "--memory-swap", "-1", name)
		limited(t, pid(t, d, name), 128<<20)
		d.Must(t, "pause", name)
		if _, _, code := d.Fief(t, "exec", name, "true"); code == 0 {
			t.Error("a paused container took a session")
		}
		d.Must(t, "unpause", name)
		if runtime != "runsc" {
			if out := d.Must(t, "cp", name+":/etc/passwd", "-"); !strings.Contains(out, "www-data") {
				t.Errorf("cp: %q", out)
			}
			d.Must(t, "commit", name, "made-by-"+runtime)
			if got := d.Must(t, "run", "--rm", "made-by-"+runtime, "ls", "/tmp"); got != "well" {
				t.Errorf("the committed image has %q", got)
			}
			if out := d.Must(t, "diff", name); !strings.Contains(out, "A /tmp/well") {
				t.Errorf("diff: %q", out)
			}
		}
		d.Must(t, "stop", "-t", "60", name)
		if got := d.Must(t, "inspect", "-f", "{{.State.ExitCode}}", name); got != "5" {
			t.Errorf("exit code %s", got)
		}
		if got := d.Must(t, "logs", name); got != "up\ntold" {
			t.Errorf("log %q", got)
		}
		d.Must(t, "start", name)
		d.Must(t, "kill", name)
		if got := d.Must(t, "inspect", "-f", "{{.State.ExitCode}}", name); got != "137" {
			t.Errorf("exit code %s", got)
		}
		left, _ := filepath.Glob(d.Dir + "/run/c/*/oci")
		if len(left) > 0 {
			t.Errorf("the runtime's state is left: %v", left)
		}
		d.Must(t, "rm", name)
		d.Must(t, "run", "-d", "--runtime", runtime, "--name", name, "--restart", "on-failure:2", "busybox", "false")
		until(t, "the container has been restarted twice", func() bool {
			return d.Must(t, "inspect", "-f", "{{.RestartCount}} {{.State.Status}}", name) == "2 exited"
		})
		d.Must(t, "rm", "-f", name)
	})
}

// limited checks the memory limit of the cgroup that a process is in, where the
// machine has the controller.
func limited(t *testing.T, pid string, want int) {
	t.Helper()
	groups, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for _, file := range []string{"/sys/fs/cgroup/memory" + parts[2] + "/memory.limit_in_bytes", "/sys/fs/cgroup" + parts[2] + "/memory.max"} {
			if parts[1] != "memory" && parts[1] != "" {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil || parts[1] == "" && strings.Contains(file, "limit_in_bytes") {
				continue
			}
			if got := strings.TrimSpace(string(text)); got != strconv.Itoa(want) {
				t.Errorf("%s is %s, not %d", file, got, want)
			}
			return
		}
	}
	t.Logf("this machine has no memory controller: %s", groups)
}

// TestKilled: a container outlives its daemon, which is told its end by the
// monitor; one whose monitor is killed is ended and can be started again.
func TestKilled(t *testing.T) {
	each(t, func(t *testing.T, d *testenv.Daemon, runtime string) {
		lives := d.Must(t, "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000")
		ends := d.Must(t, "run", "-di", "--runtime", runtime, "busybox", "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 1; done; exit 9")
		orphan := d.Must(t, "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000")
		d.Must(t, "exec", "-d", ends, "sh", "-c", "sleep 3; touch /tmp/go")
		first := pid(t, d, orphan)
		d.Kill(t)
		monitor := parent(t, first)
		if err := syscall.Kill(monitor, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		d.Up(t)
		if got := d.Must(t, "exec", lives, "echo", "here"); got != "here" {
			t.Errorf("%q", got)
		}
		until(t, "the other one has ended", func() bool {
			return d.Must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", ends) == "exited 9"
		})
		if got := d.Must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", orphan); got != "exited 137" {
			t.Errorf("without its monitor a container is %q", got)
		}
		status, _ := os.ReadFile("/proc/" + first + "/status")
		if s := string(status); s != "" && !strings.Contains(s, "\nState:\tZ") && runtime != "runsc" {
			t.Errorf("its process goes on: %s", s) // a dead one waits for whoever has become its parent
		}
		d.Must(t, "start", orphan)
		if got := d.Must(t, "exec", orphan, "echo", "again"); got != "again" {
			t.Errorf("%q", got)
		}
		if err := syscall.Kill(parent(t, pid(t, d, orphan)), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "the container has ended with its monitor", func() bool {
			return d.Must(t, "inspect", "-f", "{{.State.Status}}", orphan) == "exited"
		})
		d.Must(t, "rm", "-f", lives, ends, orphan)
	})
}

// parent is the parent of a process.
func parent(t *testing.T, pid string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	n, err := strconv.Atoi(fields[1])
	if err != nil || n < 2 {
		t.Fatalf("the parent of %s is %s", pid, fields[1])
	}
	return n
}
