// Package docker holds a session of the unmodified docker client with fiefd.
package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

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
	if err := os.WriteFile(archive, dockerArchive(t, layer), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(testenv.Root(), "test/docker/session.sh"))
	cmd.Dir = work
	cmd.Env = append(d.Env(t), "REGISTRY="+serveRegistry(t, layer), "ROOTFS="+rootfs, "ARCHIVE="+archive)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // the clients it waits for, too
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v (%v)\n%s", err, ctx.Err(), out)
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// config is an image config for one layer.
func config(t *testing.T, layer []byte) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "2024-01-02T03:04:05Z",
		"config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin:/usr/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dockerArchive is what `docker save` writes: manifest.json, a config, a layer.
func dockerArchive(t *testing.T, layer []byte) []byte {
	t.Helper()
	conf := config(t, layer)
	name := digest(conf)[len("sha256:"):] + ".json"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": name, "RepoTags": []string{"archived:latest"}, "Layers": []string{"layer/layer.tar"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		body []byte
	}{{name, conf}, {"layer/layer.tar", layer}, {"manifest.json", manifest}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
