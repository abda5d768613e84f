package script

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

const journald = "/lib/systemd/systemd-journald"

// TestJournald has a journald of its own, in a mount namespace with another
// /run: what a container says is there with Docker's fields, and is read back.
func TestJournald(t *testing.T) {
	testenv.NeedRoot(t)
	if _, err := os.Stat(journald); err != nil {
		t.Skip("tool: systemd-journald")
	}
	if os.Getenv("FIEF_TEST_JOURNAL") == "" {
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", os.Args[0], "-test.run", "^TestJournald$", "-test.v")
		cmd.Env = append(os.Environ(), "FIEF_TEST_JOURNAL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	ownJournal(t)
	d := testenv.Start(t)
	d.Busybox(t)
	long := strings.Repeat("x", 20000)
	script := `echo one; echo two >&2; printf 'multi\tbyte é\n'; yes x | head -c 40000 | tr -d '\n'; echo; sleep 1; echo last`
	out, errs, code := d.Fief(t, "run", "--name", "noted", "-l", "team.name=red", "--log-driver", "journald", "--log-opt", "labels=team.name", "--log-opt", "tag={{.Name}}",
		"busybox", "sh", "-c", script)
	if code != 0 || !strings.HasPrefix(out, "one\n") {
		t.Fatalf("%d\n%s%s", code, out[:min(200, len(out))], errs)
	}
	followed, errs, code := d.Fief(t, "logs", "-f", "noted")
	if want := "one\nmulti\tbyte é\n" + long + "\nlast\n"; code != 0 || followed != want || errs != "two\n" {
		t.Errorf("%d: %d bytes instead of %d, stderr %q\n%.300q", code, len(followed), len(want), errs, followed)
	}
	if got, _, _ := d.Fief(t, "logs", "--tail", "1", "--details", "noted"); got != "TEAM_NAME=red last\n" {
		t.Errorf("the last line with details: %q", got)
	}
	fields, err := exec.Command("journalctl", "-o", "verbose", "CONTAINER_NAME=noted", "PRIORITY=3").CombinedOutput()
	for _, want := range []string{"CONTAINER_TAG=noted", "SYSLOG_IDENTIFIER=noted", "IMAGE_NAME=busybox", "MESSAGE=two", "TEAM_NAME=red", "CONTAINER_ID_FULL="} {
		if !strings.Contains(string(fields), want) {
			t.Errorf("no %s in the journal (%v)\n%s", want, err, fields)
		}
	}
	partial, _ := exec.Command("journalctl", "-o", "json", "CONTAINER_NAME=noted", "CONTAINER_PARTIAL_MESSAGE=true").Output()
	if n := strings.Count(string(partial), "CONTAINER_PARTIAL_ID"); n != 1 {
		t.Errorf("%d pieces of the long line go on", n)
	}
	d.Fief(t, "rm", "noted")
}

// ownJournal starts a journald in this mount namespace.
func ownJournal(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run", "/var/log"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
	}
	id := t.TempDir() + "/machine-id"
	os.WriteFile(id, []byte("0123456789abcdef0123456789abcdef\n"), 0o444)
	if _, err := os.Stat("/etc/machine-id"); err == nil {
		if err := syscall.Mount(id, "/etc/machine-id", "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll("/run/systemd/journal", 0o755)
	os.MkdirAll("/run/log/journal", 0o755)
	cmd := exec.Command(journald)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/run/systemd/journal/socket"); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("journald does not listen")
		}
	}
}
