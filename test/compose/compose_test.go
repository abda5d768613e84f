// Package compose holds stories of people with a compose file, told by the
// unmodified docker compose v2 to fiefd.
package compose

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

// bound is how long one command of compose may take on a busy machine.
const bound = 90 * time.Second

// client is docker compose v2, as test/compose/client builds it or the machine has
// it; empty: there is none.
var client = sync.OnceValue(func() string {
	for _, name := range []string{filepath.Join(testenv.Root(), "bin/compose/docker-compose"), "docker-compose"} {
		if path, err := exec.LookPath(name); err == nil && !strings.HasPrefix(version(path), "1.") {
			return path
		}
	}
	return ""
})

func version(path string) string {
	out, err := exec.Command(path, "version", "--short").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// project is a compose file and what lies beside it, the daemon it is for and
// the compose that is used.
type project struct {
	*testenv.Daemon
	dir, client string
}

// start starts a daemon that has busybox and writes the compose file.
func start(t *testing.T, file string, args ...string) *project {
	t.Helper()
	if client() == "" {
		t.Skip("tool: no docker compose v2: make test-compose builds it")
	}
	p := &project{Daemon: testenv.Start(t, args...), dir: filepath.Join(t.TempDir(), "proj"), client: client()}
	p.Busybox(t)
	p.file(t, file)
	t.Cleanup(func() {
		if t.Failed() {
			_, errs, _ := p.compose(t, "ps", "-a")
			t.Log(errs)
		}
		if !p.Ended() {
			p.compose(t, "down", "-v", "-t", "0", "--remove-orphans")
		}
	})
	return p
}

// file replaces the compose file.
func (p *project) file(t *testing.T, text string) {
	t.Helper()
	p.write(t, "compose.yaml", text)
}

// write puts a file into the project's directory.
func (p *project) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// command is one of compose in the project's directory.
func (p *project) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, p.client, args...)
	cmd.Dir, cmd.Env = p.dir, append(p.Env(t), "COMPOSE_MENU=false", "COMPOSE_ANSI=never", "COMPOSE_PROGRESS=plain")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (p *project) compose(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return testenv.Output(t, p.command(t, args...))
}

// must runs compose, which must succeed, and returns its output without the
// last newline.
func (p *project) must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := p.compose(t, args...)
	if code != 0 {
		t.Fatalf("compose %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// docker runs the docker client, which must succeed.
func (p *project) docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := p.Command(t, "docker", args...)
	cmd.Dir = p.dir
	out, errs, code := testenv.Output(t, cmd)
	if code != 0 {
		t.Fatalf("docker %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// want fails the test unless got matches the pattern.
func want(t *testing.T, what, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s: got\n%s\nwant /%s/", what, got, pattern)
	}
}

// eventually waits until what ask returns matches the pattern.
func eventually(t *testing.T, what, pattern string, ask func() string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(bound); ; time.Sleep(50 * time.Millisecond) {
		got := ask()
		if re.MatchString(got) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: got\n%s\nwant /%s/", what, got, pattern)
		}
	}
}

// running is a command whose output is read while it runs.
type running struct {
	*exec.Cmd
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *running) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

// begin starts compose and leaves it running.
func (p *project) begin(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: p.command(t, args...)}
	r.Stdout, r.Stderr = r, r
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.ProcessState == nil {
			r.Cancel()
			r.Wait()
		}
	})
	return r
}

// until waits for the output to match.
func (r *running) until(t *testing.T, pattern string) {
	t.Helper()
	eventually(t, r.String(), pattern, r.said)
}

// end waits for the command's end, for which it may have been told a signal.
func (r *running) end(t *testing.T, sig os.Signal) int {
	t.Helper()
	if sig != nil {
		r.Process.Signal(sig)
	}
	r.Wait()
	return r.ProcessState.ExitCode()
}
