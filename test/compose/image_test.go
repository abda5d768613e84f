package compose

import (
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/testenv"
)

// TestImages: what is missing is pulled, what changed is pulled when that is asked
// for, and what cannot be had is said.
func TestImages(t *testing.T) {
	registry := &registrytest.Registry{}
	server := httptest.NewServer(registry)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	push := func(version string) {
		img := registrytest.Gzipped(testenv.BusyboxTar(t))
		img.Docker, img.Architecture = true, runtime.GOARCH
		img.Config = map[string]any{"Cmd": []string{"sleep", "1000"}, "Env": []string{"PATH=/bin", "IS=" + version}, "Volumes": map[string]any{"/kept": map[string]any{}}}
		registry.Push("tool", "latest", img)
	}
	push("1")
	p := start(t, `
services:
  web: {image: "`+host+`/tool", init: true}
  lost: {image: "`+host+`/missing:9", profiles: [lost]}
  local: {image: busybox, init: true, command: sleep 1000, pull_policy: never}
`)
	_, errs, code := p.compose(t, "up", "-d")
	if code != 0 {
		t.Fatalf("up: %d %s", code, errs)
	}
	want(t, "up pulls", errs, `(?s)web Pulling.*web Pulled`)
	want(t, "digest", p.docker(t, "image", "inspect", "-f", "{{.RepoTags}} {{.RepoDigests}}", host+"/tool"), `^\[\S+/tool:latest\] \[\S+/tool@sha256:[0-9a-f]{64}\]$`)
	web := p.must(t, "ps", "-q", "web")
	p.must(t, "exec", "-T", "web", "touch", "/kept/file")
	push("2")
	p.must(t, "up", "-d")
	if p.must(t, "ps", "-q", "web") != web {
		t.Error("made anew without a pull")
	}
	_, errs, code = p.compose(t, "pull", "web")
	if code != 0 {
		t.Fatalf("pull: %d %s", code, errs)
	}
	p.must(t, "up", "-d", "-t", "0")
	want(t, "the new image", p.must(t, "exec", "-T", "web", "sh", "-c", "echo $IS; ls /kept"), `^2\nfile$`)
	p.must(t, "up", "-d", "--pull", "always", "web")
	_, errs, code = p.compose(t, "--profile", "lost", "up", "-d")
	if code == 0 {
		t.Error("up of a missing image")
	}
	want(t, "up of a missing image", errs, `lost Error.*(not found|manifest unknown)`)
	// Pinned by digest.
	digest := p.docker(t, "image", "inspect", "-f", "{{index .RepoDigests 0}}", host+"/tool")
	p.file(t, `
services:
  web: {image: "`+digest+`", init: true}
`)
	p.must(t, "up", "-d", "-t", "0", "--remove-orphans")
	want(t, "by digest", p.must(t, "exec", "-T", "web", "sh", "-c", "echo $IS"), `^2$`)
	_, errs, code = p.compose(t, "down", "--rmi", "all", "-t", "0")
	if code != 0 {
		t.Errorf("down --rmi all: %d", code)
	}
	want(t, "down --rmi all", errs, `Image \S+tool@sha256:\S+ +Removed`)
}

// TestBuild: building is refused by name, whichever way compose asks for it.
func TestBuild(t *testing.T) {
	p := start(t, `
services:
  web: {build: ., image: made}
`)
	p.write(t, "Dockerfile", "FROM busybox\nRUN true\n")
	for _, kit := range []string{"0", "1"} {
		cmd := p.command(t, "build")
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT="+kit)
		out, errs, code := testenv.Output(t, cmd)
		if code == 0 {
			t.Errorf("build with DOCKER_BUILDKIT=%s", kit)
		}
		want(t, "build", out+errs, `building images is not supported|BuildKit is not supported|buildx`)
	}
	// What others have built is used.
	p.docker(t, "tag", "busybox", "made")
	p.must(t, "up", "-d", "--no-build")
	if err := os.Remove(p.dir + "/Dockerfile"); err != nil {
		t.Fatal(err)
	}
	p.must(t, "up", "-d")
}
