package docker

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs the door over a fake engine on a unix socket.
func serve(t testing.TB) (f *fake, socket string) {
	t.Helper()
	f = newFake()
	dir, err := os.MkdirTemp("", "door")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "docker.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(New(f, Options{Version: "0.1.0", GitCommit: "abc"}))
	done := make(chan struct{})
	go func() { srv.Serve(l); close(done) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
		f.mu.Lock()
		for _, p := range f.containers {
			if running(p.record()) {
				syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			}
		}
		f.mu.Unlock()
		os.RemoveAll(dir)
	})
	return f, socket
}

// cli is the docker command line on a socket.
type cli struct {
	t      testing.TB
	socket string
	config string
}

func needCLI(t testing.TB, socket string) *cli {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("tool: no docker command line")
	}
	return &cli{t, socket, t.TempDir()}
}

func (c *cli) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+c.socket, "DOCKER_CONFIG="+c.config)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run returns stdout, stderr and the exit code.
func (c *cli) run(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	return c.feed("", args...)
}

func (c *cli) feed(stdin string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := c.command("docker", args...)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed and returns its stdout, trimmed.
func (c *cli) must(args ...string) string {
	c.t.Helper()
	out, errs, code := c.run(args...)
	if code != 0 {
		c.t.Fatalf("docker %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}
