// Package docker holds a session of the unmodified docker client with fiefd.
package docker

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// bound is how long the session may take; it takes some 30 s on a busy machine.
const bound = 100 * time.Second

func TestDockerSession(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("tool: no docker client")
	}
	d := testenv.Start(t)
	layer := testenv.BusyboxTar(t)
	work := t.TempDir()
	rootfs := filepath.Join(work, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	untar := exec.Command("tar", "-C", rootfs, "-xf", "-")
	untar.Stdin = bytes.NewReader(layer)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	archive := filepath.Join(work, "archive.tar")
	img := registrytest.Gzipped(layer)
	img.Docker, img.Architecture = true, runtime.GOARCH
	img.Config = map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin:/usr/bin"}}
	if err := os.WriteFile(archive, img.DockerArchive("archived:latest"), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := &registrytest.Registry{}
	registry.Push("busybox", "latest", img)
	server := httptest.NewServer(registry)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(testenv.Root(), "test/docker/session.sh"))
	cmd.Dir = work
	cmd.Env = append(d.Env(t), "REGISTRY="+strings.TrimPrefix(server.URL, "http://"), "ROOTFS="+rootfs, "ARCHIVE="+archive)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // the clients it waits for, too
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v (%v)\n%s", err, ctx.Err(), out)
	}
}
