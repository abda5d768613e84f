package docker

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// TestGoClient drives the door with the Go client, which negotiates down from
// a newer API.
func TestGoClient(t *testing.T) {
	_, socket := serve(t)
	ctx := context.Background()
	c, err := client.New(client.WithHost("unix://" + socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil || ping.APIVersion != "1.51" || ping.OSType != "linux" {
		t.Fatalf("%+v %v", ping, err)
	}
	if c.ClientVersion() != "1.51" {
		t.Error(c.ClientVersion())
	}
	pull, err := c.ImagePull(ctx, "debian:13", client.ImagePullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pull.Wait(ctx); err != nil {
		t.Error(err)
	}
	broken, err := c.ImagePull(ctx, "broken", client.ImagePullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := broken.Wait(ctx); err == nil || !strings.Contains(err.Error(), "digest does not match") {
		t.Error(err)
	}
	made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: "debian:13", Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 6"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	att, err := c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	wait := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &errs, att.Reader); err != nil {
		t.Error(err)
	}
	att.Close()
	if out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("%q %q", out.String(), errs.String())
	}
	select {
	case res := <-wait.Result:
		if res.StatusCode != 6 {
			t.Error(res.StatusCode)
		}
	case err := <-wait.Error:
		t.Error(err)
	}
	logs, err := c.ContainerLogs(ctx, made.ID, client.ContainerLogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if _, err := stdcopy.StdCopy(&out, io.Discard, logs); err != nil || out.String() != "out\n" {
		t.Errorf("%q %v", out.String(), err)
	}
	logs.Close()
	seen, err := c.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{})
	if err != nil || seen.Container.State.ExitCode != 6 {
		t.Errorf("%+v %v", seen.Container.State, err)
	}
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("ancestor", "debian:13")})
	if err != nil || len(list.Items) != 1 || !strings.HasPrefix(list.Items[0].Status, "Exited (6)") {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := c.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.ContainerInspect(ctx, made.ID, client.ContainerInspectOptions{}); err == nil {
		t.Error("inspect of a removed container")
	}
}
