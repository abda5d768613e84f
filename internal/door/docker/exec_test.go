package docker

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// TestExecCodeIsKnownAtStreamEnd: clients ask for the exit code as soon as the
// stream has ended, once. The streams of a process may end well before its exit
// is known.
func TestExecCodeIsKnownAtStreamEnd(t *testing.T) {
	f, socket := serve(t)
	f.exitDelay = 50 * time.Millisecond
	id := startSleeper(t, socket)
	const runs, atOnce = 200, 20
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			c, err := client.New(client.WithHost("unix://" + socket))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range runs / atOnce {
				execExpects(t, c, id, 3)
			}
		})
	}
	all.Wait()
}

// startSleeper starts a container that does nothing and returns its id.
func startSleeper(t *testing.T, socket string) string {
	t.Helper()
	return needCLI(t, socket).must("run", "-d", "busybox", "sleep", "60")
}

// execExpects runs a session to the end of its stream and looks at its exit
// code, as `docker exec` does.
func execExpects(t *testing.T, c *client.Client, id string, code int) {
	ctx := context.Background()
	made, err := c.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "exit 3"}, AttachStdout: true, AttachStderr: true})
	if err != nil {
		t.Error(err)
		return
	}
	att, err := c.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	io.Copy(io.Discard, att.Reader)
	seen, err := c.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	att.Close()
	if err != nil || seen.Running || seen.ExitCode != code {
		t.Errorf("exit %d, running %v, %v; want exit %d", seen.ExitCode, seen.Running, err, code)
	}
}

func TestCLIExecCode(t *testing.T) {
	f, socket := serve(t)
	f.exitDelay = 50 * time.Millisecond
	id := startSleeper(t, socket)
	c := needCLI(t, socket)
	for range 5 {
		if out, errs, code := c.run("exec", id, "sh", "-c", "exit 3"); code != 3 {
			t.Errorf("%q %q %d", out, errs, code)
		}
	}
}
