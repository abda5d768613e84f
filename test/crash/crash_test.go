// Package crash kills the daemon and its monitors at awkward moments and looks
// at what is left.
package crash

import (
	"bufio"
	"fmt"
	"io"
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

// counter writes numbered lines for as long as it runs.
const counter = `i=0; while :; do echo n $i; i=$((i+1)); sleep 0.01; done`

func TestKilledDaemonFindsEverythingAgain(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "writer", "busybox", "sh", "-c", counter)
	d.Must(t, "run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 5; exit 9")
	d.Must(t, "run", "-d", "--rm", "--name", "fleeting", "busybox", "sleep", "1000")
	d.Must(t, "create", "--name", "asleep", "busybox", "true")
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "writer")
	before := d.Must(t, "exec", "writer", "cat", "/proc/self/uid_map")
	ends := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "ends")

	d.Kill(t)
	for end := time.Now().Add(time.Minute); alive(ends); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was to end without a daemon does not")
		}
	}
	d.Up(t)

	if now := d.Must(t, "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "writer"); now != pid+" running" {
		t.Errorf("writer was pid %s running, is %s", pid, now)
	}
	// its monitor may still be noting it
	if got := d.Must(t, "wait", "ends"); got != "9" {
		t.Errorf("what ended without a daemon ended with %s", got)
	}
	if got := d.Must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends"); got != "exited 9" {
		t.Errorf("what ended without a daemon is recorded as %q", got)
	}
	if got := d.Must(t, "inspect", "-f", "{{.State.Status}}", "fleeting"); got != "running" {
		t.Errorf("the --rm container is %q", got)
	}
	if got := d.Must(t, "inspect", "-f", "{{.State.Status}}", "asleep"); got != "created" {
		t.Errorf("the created container is %q", got)
	}
	if now := d.Must(t, "exec", "writer", "cat", "/proc/self/uid_map"); now != before {
		t.Errorf("map was %s, is %s", before, now)
	}
	other := d.Must(t, "run", "--rm", "busybox", "cat", "/proc/self/uid_map")
	if other == before {
		t.Error("a range that is in use was granted again after the restart")
	}
	d.Must(t, "stop", "-t", "0", "writer")
	sequence(t, d.Must(t, "logs", "writer"))
	d.Must(t, "start", "asleep")
	d.Must(t, "rm", "-f", "fleeting")
}

// sequence wants lines "n 0", "n 1" … without a gap.
func sequence(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(log, "\n")
	for i, line := range lines {
		if line != fmt.Sprintf("n %d", i) {
			t.Fatalf("line %d of the log is %q", i, line)
		}
	}
	if len(lines) < 20 {
		t.Errorf("only %d lines", len(lines))
	}
}

// foreground starts a command that prints "begun" first, waits for that, and a
// moment more: the client knows whom to ask for the exit code when the daemon
// has said that the process is started. The rest of its output, and its exit
// code, come from end.
func foreground(t *testing.T, d *testenv.Daemon, args ...string) (end func() (string, int)) {
	t.Helper()
	cmd := d.Command(t, "fief", args...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	line, err := out.ReadString('\n')
	if err != nil || line != "begun\n" {
		t.Errorf("%q, %v", line, err)
	}
	time.Sleep(3 * time.Second)
	return func() (string, int) {
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Error(err)
		}
		cmd.Wait()
		return string(rest), cmd.ProcessState.ExitCode()
	}
}

// The client of a foreground run keeps its output and its exit code.
func TestForegroundRunOutlivesTheDaemon(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	end := foreground(t, d, "run", "--name", "fg", "busybox", "sh", "-c", "echo begun; sleep 6; echo two; exit 5")
	d.Kill(t)
	d.Up(t)
	if out, code := end(); code != 5 || out != "two\n" {
		t.Errorf("exit %d, output %q", code, out)
	}
}

// So does one that is removed at its end, and ends while no daemon is there.
func TestEndsWithoutADaemon(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	end := foreground(t, d, "run", "--rm", "busybox", "sh", "-c", "echo begun; sleep 6; echo end; exit 6")
	d.Kill(t)
	time.Sleep(5 * time.Second)
	d.Up(t)
	if out, code := end(); code != 6 || out != "end\n" {
		t.Errorf("exit %d, output %q", code, out)
	}
}

// An exec session does when the next daemon is there before its end.
func TestExecOutlivesTheDaemon(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "host", "busybox", "sleep", "1000")
	end := foreground(t, d, "exec", "host", "sh", "-c", "echo begun; until test -e /go; do sleep 0.1; done; echo end; exit 7")
	d.Kill(t)
	d.Up(t)
	d.Must(t, "exec", "host", "touch", "/go")
	if out, code := end(); code != 7 || out != "end\n" {
		t.Errorf("exit %d, output %q", code, out)
	}
}

// fief logs -f goes on across a restart of the daemon.
func TestFollowedLogsGoOn(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "writer", "busybox", "sh", "-c", counter)
	cmd := d.Command(t, "fief", "logs", "-f", "writer")
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	d.Kill(t)
	time.Sleep(300 * time.Millisecond)
	d.Up(t)
	time.Sleep(500 * time.Millisecond)
	d.Must(t, "stop", "-t", "0", "writer")
	cmd.Wait()
	sequence(t, strings.TrimSuffix(out.String(), "\n"))
	if all := d.Must(t, "logs", "writer"); all+"\n" != out.String() {
		t.Errorf("followed %d bytes of %d", out.Len(), len(all)+1)
	}
}

// A killed monitor takes its container with it, and the daemon says so.
func TestKilledMonitor(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
	pid := d.Must(t, "inspect", "-f", "{{.State.Pid}}", "orphan")
	mon := parent(t, pid)
	if err := syscall.Kill(mon, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := d.Must(t, "wait", "orphan"); got != "137" {
		t.Errorf("exit code %s", got)
	}
	for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %s of a container without monitor still runs", pid)
		}
	}
}

func parent(t *testing.T, pid string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no PPid")
	return 0
}

func alive(pid string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestSecondDaemonOnTheSameState(t *testing.T) {
	d := testenv.Start(t)
	second := exec.Command(filepath.Join(testenv.Bin(t), "fiefd"), "--data-root", d.Dir+"/data", "--exec-root", d.Dir+"/run2", "--id-registry", d.Dir+"/ids")
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another daemon") {
		t.Errorf("a second daemon on the same state: %v\n%s", err, out)
	}
	d.Must(t, "version")
}

// Daemons side by side never grant the same ids.
func TestDaemonsSideBySide(t *testing.T) {
	a := testenv.Start(t)
	b := testenv.Start(t, "--id-registry", a.Dir+"/ids")
	seen := map[string]bool{}
	for _, d := range []*testenv.Daemon{a, b} {
		d.Busybox(t)
		for range 3 {
			d.Must(t, "run", "-d", "busybox", "sleep", "1000")
		}
		for id := range strings.FieldsSeq(d.Must(t, "ps", "-q")) {
			base := strings.Fields(d.Must(t, "exec", id, "cat", "/proc/self/uid_map"))[1]
			if seen[base] {
				t.Errorf("range %s was granted twice", base)
			}
			seen[base] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d ranges for 6 containers", len(seen))
	}
}

// A full disk fails an import, and leaves the store as it was.
func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	small := t.TempDir()
	if err := syscall.Mount("fief-small", small, "tmpfs", 0, "size=24m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	d := testenv.Start(t, "--data-root", small+"/data")
	d.Busybox(t)
	big := filepath.Join(t.TempDir(), "big")
	if err := os.Mkdir(big, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(big, "zeros"), make([]byte, 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tarball := big + ".tar"
	if out, err := exec.Command("tar", "-C", big, "-cf", tarball, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := d.Must(t, "images", "-q", "--no-trunc")
	_, errs, code := d.Fief(t, "import", tarball, "big")
	if code == 0 || !strings.Contains(errs, "no space left on device") {
		t.Errorf("import onto a full disk: exit %d, %s", code, errs)
	}
	if after := d.Must(t, "images", "-q", "--no-trunc"); after != before {
		t.Errorf("images were\n%s\nare\n%s", before, after)
	}
	if got := d.Must(t, "run", "--rm", "busybox", "echo", "works"); got != "works" {
		t.Errorf("after the full disk a run says %q", got)
	}
}
