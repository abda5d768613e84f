package docker

import (
	"bufio"
	"os"
	"strings"
	"testing"
	"time"
)

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}

func TestCLISystem(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	wantIn(t, c.must("version"), "Server: fief", "0.1.0", "1.51 (minimum version 1.24)")
	wantIn(t, c.must("info"), "userns", "Storage Driver: overlayfs", "Security Options", "Shift: idmapped", "Cgroup Version: 2")
	if got := c.must("info", "-f", "{{json .SecurityOptions}}"); got != `["name=seccomp,profile=builtin","name=userns","name=cgroupns"]` {
		t.Error(got)
	}
	wantIn(t, c.must("network", "ls"), "none", "host")
	wantIn(t, c.must("network", "inspect", "none"), `"Driver": "null"`)
	wantIn(t, c.must("volume", "ls"), "DRIVER")
	wantIn(t, c.must("system", "df"), "Images", "Build Cache")
	wantIn(t, c.must("plugin", "ls"), "ID")
	if _, errs, code := c.run("node", "ls"); code == 0 {
		t.Error("node ls succeeded")
	} else {
		wantIn(t, errs, "not a swarm manager")
	}
	if _, errs, _ := c.feed("secret", "login", "-u", "u", "--password-stdin", "localhost:1"); !strings.Contains(errs, "incorrect username or password") {
		t.Error(errs)
	}
	if out, errs, code := c.feed("right", "login", "-u", "u", "--password-stdin", "localhost:1"); code != 0 || !strings.Contains(out, "Login Succeeded") {
		t.Error(out, errs)
	}
}

func TestCLIRun(t *testing.T) {
	f, socket := serve(t)
	c := needCLI(t, socket)
	out, errs, code := c.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
	if out != "out\n" || code != 3 {
		t.Errorf("%q %q %d", out, errs, code)
	}
	wantIn(t, errs, "err\n", "WARNING: no network")
	if len(f.containers) != 0 {
		t.Error("--rm left a container")
	}
	if out, errs, code := c.feed("a\nb\n", "run", "--rm", "-i", "busybox", "cat"); out != "a\nb\n" || code != 0 {
		t.Errorf("cat: %q %q %d", out, errs, code)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if out, errs, code := c.feed(big, "run", "--rm", "-i", "busybox", "cat"); out != big || code != 0 {
		t.Errorf("big cat: %d bytes, %q %d", len(out), errs, code)
	}
	if _, errs, code := c.run("run", "--rm", "busybox", "no-such-command"); code != 127 {
		t.Errorf("missing command: exit %d\n%s", code, errs)
	}
	f.mu.Lock()
	left := len(f.containers)
	f.mu.Unlock()
	if left != 0 {
		t.Error("a failed start with --rm left a container")
	}
	if _, errs, code := c.run("run", "--rm", "-i", "-a", "stdin", "busybox", "sleep", "0.2"); code != 0 {
		t.Errorf("stdin only: exit %d\n%s", code, errs)
	}
}

func TestCLIPullsWhatIsMissing(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	out, errs, code := c.run("run", "--rm", "debian:13", "echo", "hi")
	if out != "hi\n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
	wantIn(t, errs, "Unable to find image 'debian:13' locally", "13: Pulling from library/debian", "0123456789ab: Pull complete",
		"Digest: sha256:", "Status: Downloaded newer image for debian:13")
	if _, errs, code := c.run("run", "--rm", "absent", "true"); code != 125 || !strings.Contains(errs, "pull access denied") {
		t.Errorf("%d %s", code, errs)
	}
	wantIn(t, c.must("pull", "debian:13"), "Status: Image is up to date for debian:13")
	if _, errs, code := c.run("pull", "broken"); code != 1 || !strings.Contains(errs, "digest does not match") || !strings.Contains(errs, "pull again") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestCLIDetachedLife(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	id := c.must("run", "-d", "--name", "web", "-l", "a=b", "busybox", "sh", "-c", "echo one; sleep 60")
	if got := c.must("ps", "-q", "--no-trunc"); got != id {
		t.Errorf("ps -q: %q, want %q", got, id)
	}
	ps := c.must("ps", "--filter", "label=a=b", "--filter", "name=we", "--format", "{{.Names}} {{.Image}} {{.Status}} {{.Command}}")
	wantIn(t, ps, "web busybox Up ", `sh -c 'echo one`)
	if got := c.must("ps", "-q", "--filter", "status=exited"); got != "" {
		t.Error(got)
	}
	if pid := c.must("inspect", "-f", "{{.State.Pid}}", "web"); pid == "0" || pid == "" {
		t.Error("no pid")
	}
	wantIn(t, c.must("top", "web", "-o", "pid"), "PID", "-o pid")
	wantIn(t, c.must("logs", "-t", "web"), "Z one")
	if out, errs, code := c.run("exec", "web", "sh", "-c", "echo in; exit 4"); out != "in\n" || code != 4 {
		t.Errorf("exec: %q %q %d", out, errs, code)
	}
	if out, _, code := c.feed("through\n", "exec", "-i", "web", "cat"); out != "through\n" || code != 0 {
		t.Errorf("exec -i: %q %d", out, code)
	}
	if out, errs, code := c.run("exec", "web", "no-such"); code != 127 || !strings.Contains(out+errs, "executable file not found") {
		t.Errorf("exec: %q %q %d", out, errs, code)
	}
	c.must("rename", "web", "www")
	if _, errs, code := c.run("run", "-d", "--name", "www", "busybox"); code != 125 || !strings.Contains(errs, "is already in use") {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := c.run("rm", "www"); code != 1 || !strings.Contains(errs, "stop the container before removing") {
		t.Errorf("%d %s", code, errs)
	}
	c.must("restart", "www")
	c.must("kill", "www")
	if got := c.must("wait", "www"); got != "137" {
		t.Error(got)
	}
	wantIn(t, c.must("ps", "-a"), "Exited (137)")
	c.must("start", "www")
	c.must("stop", "www")
	c.must("rm", "-f", "-v", "www")
	if _, errs, code := c.run("inspect", "www"); code != 1 || !strings.Contains(errs, "No such object: www") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestCLIFollowsLogs(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	c.must("run", "-d", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; echo e$i >&2; sleep 0.2; done")
	out, errs, code := c.run("logs", "-f", "talk")
	if out != "line 1\nline 2\nline 3\n" || errs != "e1\ne2\ne3\n" || code != 0 {
		t.Errorf("%q %q %d", out, errs, code)
	}
	if got := c.must("logs", "--tail", "2", "talk"); got != "line 3" {
		t.Errorf("tail: %q", got)
	}
	if got := c.must("logs", "--since", "1h", "--until", "1h", "talk"); got != "" {
		t.Errorf("window: %q", got)
	}
	wantIn(t, c.must("container", "prune", "-f"), "Deleted Containers:", "Total reclaimed space: 0B")
	wantIn(t, c.must("system", "prune", "-f", "-a"), "deleted: sha256:abab")
}

// TestCLIKilledAttach: a client that dies must not hold its attachment until
// the container happens to write again.
func TestCLIKilledAttach(t *testing.T) {
	f, socket := serve(t)
	c := needCLI(t, socket)
	id := c.must("run", "-d", "-i", "busybox", "cat")
	cmd := c.command("docker", "attach", "--sig-proxy=false", id)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	in.Write([]byte("hello\n"))
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "hello\n" {
		t.Errorf("%q %v", line, err)
	}
	p, _ := f.find(id)
	if n := p.attached(); n != 1 {
		t.Errorf("%d attachments", n)
	}
	in.Close()
	time.Sleep(200 * time.Millisecond)
	if n := p.attached(); n != 1 {
		t.Errorf("%d attachments after the end of stdin", n)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 3000 {
		if p.attached() == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("still attached")
}

// TestCLITerminal runs the client on a terminal of its own, by script(1).
func TestCLITerminal(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	if _, err := os.Stat("/usr/bin/script"); err != nil {
		t.Skip("tool: no script(1)")
	}
	cmd := c.command("script", "-qec", "docker run --rm -it busybox sh -c 'test -t 0 && stty size && read x && echo got $x; exit 7'", "/dev/null")
	in, _ := cmd.StdinPipe()
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(700 * time.Millisecond)
	in.Write([]byte("word\n"))
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	defer in.Close()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit %d\n%s", code, out.String())
	}
	wantIn(t, out.String(), "got word")
}

func TestCLIImages(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	wantIn(t, c.must("images"), "busybox", "latest", "abababababab", "2 days ago", "4.19MB")
	if got := c.must("images", "-q", "nothing"); got != "" {
		t.Error(got)
	}
	if got := c.must("images", "-q", "busy*"); got != "abababababab" {
		t.Error(got)
	}
	wantIn(t, c.must("history", "busybox"), "ADD rootfs", "<missing>", "4.19MB")
	if got := c.must("inspect", "-f", "{{.Architecture}} {{json .RepoTags}}", "busybox"); got != `amd64 ["busybox:latest"]` {
		t.Error(got)
	}
	c.must("tag", "busybox", "localhost:5000/mine:1")
	wantIn(t, c.must("images", "--format", "{{.Repository}}:{{.Tag}}"), "localhost:5000/mine:1")
	if out, errs, code := c.feed("an archive", "load"); code != 0 || !strings.Contains(out, "Loaded image: busybox:latest") {
		t.Errorf("%q %q %d", out, errs, code)
	}
	if _, errs, code := c.feed("junk", "load"); code != 1 || !strings.Contains(errs, "no archive") {
		t.Errorf("%q %d", errs, code)
	}
	if out, errs, code := c.feed("tar", "import", "-", "mine:2"); code != 0 || !strings.Contains(out, "sha256:") {
		t.Errorf("%q %q %d", out, errs, code)
	}
	wantIn(t, c.must("rmi", "busybox"), "Untagged: busybox:latest", "Deleted: sha256:")
	if _, errs, code := c.run("push", "busybox"); code == 0 || !strings.Contains(errs, "An image does not exist locally") {
		t.Errorf("%q %d", errs, code)
	}
}

// TestCLIUntaggedImage: a container is listed by its image's id once the name
// is no longer that image's.
func TestCLIUntaggedImage(t *testing.T) {
	f, socket := serve(t)
	c := needCLI(t, socket)
	c.must("create", "busybox", "true")
	if got := c.must("ps", "-a", "--format", "{{.Image}}"); got != "busybox" {
		t.Error(got)
	}
	f.mu.Lock()
	f.imgs[0].Names = nil
	f.mu.Unlock()
	if got := c.must("ps", "-a", "--format", "{{.Image}}"); got != "abababababab" {
		t.Error(got)
	}
}

func TestCLIEvents(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	begun := time.Now().Add(-time.Second).Format(time.RFC3339)
	c.must("run", "--rm", "--name", "seen", "busybox", "true")
	end := time.Now().Add(time.Second).Format(time.RFC3339)
	out := c.must("events", "--since", begun, "--until", end, "--filter", "container=seen", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}")
	if out != "container create seen\ncontainer start seen\ncontainer die seen\ncontainer destroy seen" {
		t.Error(out)
	}
}

func TestCLIRefusals(t *testing.T) {
	_, socket := serve(t)
	c := needCLI(t, socket)
	for args, want := range map[string]string{
		"--isolation hyperv":                         "HostConfig.Isolation hyperv",
		"--pid odd":                                  "invalid PID mode",
		"--ipc odd":                                  "invalid IPC mode: odd",
		"--uts odd":                                  "invalid UTS mode",
		"--cgroupns odd":                             "invalid CGROUP mode",
		"--uts host -h a":                            "conflicting options: hostname and the UTS mode",
		"--network container:a -h a":                 "conflicting options: hostname and the network mode",
		"--network container:a -p 1:1":               "conflicting options: port publishing and the container type network mode",
		"--network container:a --expose 1":           "conflicting options: port exposing and the container type network mode",
		"--network container:a --dns 1.1.1.1":        "conflicting options: dns and the network mode",
		"--network container:a --add-host a:1.1.1.1": "conflicting options: custom host-to-IP mapping and the network mode",
		"--network container:a --link b":             "onflicting options",
		"--network container:":                       "invalid container format container:<name|id>",
		"--network container":                        "invalid container format container:<name|id>",
		"--restart sometimes":                        "unknown policy 'sometimes'",
		"--network mine":                             "network mine not found",
		"--security-opt x=y":                         "invalid --security-opt 2",
		"--security-opt apparmor=abc":                "AppArmor profiles are not applied",
		"--security-opt userns=odd":                  "odd",
		"-v vol:/b:bad":                              "invalid mode: bad",
		"--network container:a --mac-address 02:42:ac:11:00:02": "mac-address and the network mode",
		"--mac-address 02:42:ac:11:0:2":                         "ac",
	} {
		_, errs, code := c.run(append(append([]string{"create"}, strings.Fields(args)...), "busybox", "true")...)
		if code == 0 || !strings.Contains(errs, want) || strings.Contains(errs, "Unable to find image") {
			t.Errorf("%s: exit %d, %s", args, code, errs)
		}
	}
}
