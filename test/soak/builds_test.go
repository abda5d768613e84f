package soak

import (
	"bytes"
	"context"
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

// otherPlans builds a daemon and a monitor whose plans those of this build cannot
// carry out, nor the other way round; or takes those that FIEF_PREVIOUS names.
func otherPlans(t *testing.T) string {
	t.Helper()
	return built(t, "-tags", "otherplan", "-ldflags", "-s -w -X main.version=other-plans")
}

func TestOtherPlans(t *testing.T) {
	other := otherPlans(t)
	t.Run("everything", func(t *testing.T) { throughEverything(t, other) })
	t.Run("health", func(t *testing.T) { checkedByAStandIn(t, other) })
}

// throughEverything: containers whose monitors were made by a build of other plans,
// under an upgrade and then under the way back. Everything that can be done with a
// running container is done.
func throughEverything(t *testing.T, other string) {
	d := testenv.Start(t)
	d.Busybox(t)
	for _, to := range []string{other, ""} {
		who := "before-" + strconv.Itoa(len(to))
		d.Must(t, "run", "-d", "--name", who, "--health-cmd", "echo probe >> /tmp/n", "--health-interval", "1s", "busybox", "sh", "-c",
			"trap 'echo heard; exit 33' USR1; echo started; while :; do sleep 0.1; done")
		wait(t, d, who, "healthy")
		asleep := background(t, d, "exec", who, "sh", "-c", "read x; exit 7") // in its own monitor
		d.Kill(t)
		d.Build(to)
		d.Up(t)
		everything(t, d, who)
		d.Must(t, "exec", "-d", who, "sh", "-c", "until test -e /tmp/go; do sleep 0.1; done; echo $$ > /tmp/went") // in a stand-in

		// The next daemon of that build finds what the stand-in runs.
		d.Kill(t)
		d.Up(t)
		if got := len(sessions(t, d, who)); got != 2 {
			t.Errorf("%d sessions after another restart, not 2", got)
		}
		d.Must(t, "exec", who, "touch", "/tmp/go")
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			if _, _, code := d.Fief(t, "exec", who, "test", "-s", "/tmp/went"); code == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the session in a stand-in did not survive the daemon")
			}
		}
		everything(t, d, who)
		withoutStandIn(t, d, who)
		asleep()
		d.Must(t, "kill", "-s", "USR1", who)
		if got := d.Must(t, "wait", who); got != "33" {
			t.Errorf("%s ended with %s", who, got)
		}
		if got := d.Must(t, "logs", who); got != "started\nheard" {
			t.Errorf("%s says %q", who, got)
		}
		if got := standIns(d); len(got) != 0 {
			t.Errorf("left in run directories: %v", got)
		}
		d.Must(t, "rm", who)
	}
}

// checkedByAStandIn: a daemon killed before it had a container's health
// checked, followed by one of other plans: a stand-in checks it, also after that
// one's end, and back under the first build there is one checker still.
func checkedByAStandIn(t *testing.T, other string) {
	d := testenv.Start(t)
	d.Busybox(t)
	d.Must(t, "run", "-d", "--name", "watched", "--health-cmd", "echo probe >> /tmp/n", "--health-interval", "1s", "busybox", "sleep", "1000")
	// A container without a check is started and its record given one, as if the
	// daemon had been killed between the start and the arming.
	d.Must(t, "run", "-d", "--name", "late", "busybox", "sleep", "1000")
	id := d.Must(t, "inspect", "-f", "{{.Id}}", "late")
	d.Kill(t)
	giveCheck(t, d, id)
	d.Build(other)
	for range 2 {
		d.Up(t)
		wait(t, d, "late", "healthy")
		wait(t, d, "watched", "healthy")
		d.Kill(t)
	}
	d.Build("")
	d.Up(t)
	wait(t, d, "late", "healthy")
	count := func() int { return strings.Count(d.Must(t, "exec", "late", "cat", "/tmp/n"), "probe") }
	from, probes := time.Now(), count()
	time.Sleep(4 * time.Second)
	if more, most := count()-probes, int(time.Since(from)/time.Second)+1; more < 1 || more > most {
		t.Errorf("%d probes, not 1 to %d: one monitor probes once a second", more, most)
	}
	d.Must(t, "rm", "-f", "late", "watched")
	if got := standIns(d); len(got) != 0 {
		t.Errorf("left in run directories: %v", got)
	}
}

// giveCheck writes a health check into a running container's record.
func giveCheck(t *testing.T, d *testenv.Daemon, id string) {
	t.Helper()
	path := d.Dir + "/run/c/" + id + "/record.json"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const check = `"Health":{"Test":["CMD-SHELL","echo probe >> /tmp/n"],"Interval":1000000000,"Retries":3},`
	i := bytes.Index(b, []byte(`"Health":null,`))
	if i < 0 {
		b = append([]byte("{"+check), b[1:]...)
	} else {
		b = bytes.Replace(b, []byte(`"Health":null,`), []byte(check), 1)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// withoutStandIn kills a stand-in: what it ran ends, the container does not, and
// there is another one for the next session.
func withoutStandIn(t *testing.T, d *testenv.Daemon, who string) {
	t.Helper()
	d.Must(t, "exec", "-d", who, "sleep", "4242")
	pid, parent := sleeper(t)
	syscall.Kill(parent, syscall.SIGKILL)
	for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a session outlives the monitor that held its output")
		}
	}
	everything(t, d, who)
}

// sleeper finds the process that sleeps for 4242 seconds, and who started it.
func sleeper(t *testing.T) (pid, parent int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		all, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range all {
			if line, _ := os.ReadFile(dir + "/cmdline"); string(line) != "sleep\x004242\x00" {
				continue
			}
			stat, _ := os.ReadFile(dir + "/stat")
			_, rest, _ := strings.Cut(string(stat), ") ")
			if fields := strings.Fields(rest); len(fields) > 1 {
				pid, _ = strconv.Atoi(filepath.Base(dir))
				parent, _ = strconv.Atoi(fields[1])
				return pid, parent
			}
		}
	}
	t.Fatal("the session does not start")
	return 0, 0
}

func wait(t *testing.T, d *testenv.Daemon, who, health string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got := d.Must(t, "inspect", "-f", "{{.State.Health.Status}}", who)
		if got == health {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s", who, got)
		}
	}
}

func standIns(d *testenv.Daemon) []string {
	out, _ := exec.Command("sh", "-c", "ls -d "+d.Dir+"/run/c/*/plans-* 2>/dev/null").Output()
	return strings.Fields(string(out))
}

func sessions(t *testing.T, d *testenv.Daemon, who string) []string {
	t.Helper()
	return strings.Fields(d.Must(t, "inspect", "-f", "{{range .ExecIDs}}{{.}} {{end}}", who))
}

// background starts a command of the client that reads its stdin, which is never
// closed by us: it outlives its daemon's connection or not, and is ended by the
// function that is returned.
func background(t *testing.T, d *testenv.Daemon, args ...string) (end func()) {
	t.Helper()
	cmd := d.Command(t, "fief", append([]string{args[0], "-i"}, args[1:]...)...)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	who := args[1]
	for until := time.Now().Add(time.Minute); len(sessions(t, d, who)) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the session does not start")
		}
	}
	return func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// everything asks of a running container whatever needs its monitor.
func everything(t *testing.T, d *testenv.Daemon, who string) {
	t.Helper()
	if got := d.Must(t, "exec", who, "echo", "through"); got != "through" {
		t.Errorf("exec says %q", got)
	}
	if _, _, code := d.Fief(t, "exec", who, "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("exec ends with %d", code)
	}
	if _, stderr, code := d.Fief(t, "exec", who, "/no-such"); code != 127 {
		t.Errorf("exec of nothing ends with %d: %s", code, stderr)
	}
	in := d.Command(t, "fief", "exec", "-i", who, "cat")
	in.Stdin = strings.NewReader("there and back")
	if out, err := in.Output(); err != nil || string(out) != "there and back" {
		t.Errorf("exec -i says %q, %v", out, err)
	}
	if got := terminal(t, d, "exec", "-t", who, "sh", "-c", "tty; stty size"); !strings.HasPrefix(got, "/dev/pts/") {
		t.Errorf("exec -t says %q", got)
	}
	d.Must(t, "update", "--memory", "64m", who)
	if got := d.Must(t, "inspect", "-f", "{{.HostConfig.Memory}}", who); got != "67108864" {
		t.Errorf("update left %s", got)
	}
	probes := func() int { return strings.Count(d.Must(t, "exec", who, "cat", "/tmp/n"), "probe") }
	from, before := time.Now(), probes()
	time.Sleep(3 * time.Second)
	if more, most := probes()-before, int(time.Since(from)/time.Second)+1; more < 1 || more > most {
		t.Errorf("%d probes, not 1 to %d: one monitor probes once a second", more, most)
	}
	wait(t, d, who, "healthy")
	if got := d.Must(t, "logs", who); got != "started" {
		t.Errorf("%s says %q", who, got)
	}
	d.Must(t, "pause", who)
	d.Must(t, "unpause", who)
	d.Must(t, "top", who)
}

// terminal runs a command of the client on a terminal of script(1).
func terminal(t *testing.T, d *testenv.Daemon, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = "'" + a + "'"
	}
	cmd := d.Command(t, "fief")
	script := exec.CommandContext(ctx, "script", "-qec", cmd.Path+" "+strings.Join(words, " "), "/dev/null")
	script.Env, script.Stdin = cmd.Env, io.LimitReader(nothing{}, 0)
	out, err := script.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }
