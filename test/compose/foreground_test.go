package compose

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

const talking = `
services:
  a:
    image: busybox
    command: sh -c 'trap "echo a ends; exit 0" TERM; echo a begins; while :; do sleep 0.1; done'
  b:
    image: busybox
    depends_on: [a]
    command: sh -c 'trap "echo b ends; exit 5" TERM; echo b begins; while :; do sleep 0.1; done'
  c:
    image: busybox
    restart: on-failure:2
    command: sh -c 'echo c says; exit 6'
`

// TestForeground: up shows what containers say, and ctrl-C stops them.
func TestForeground(t *testing.T) {
	p := start(t, talking)
	up := p.begin(t, "up")
	up.until(t, `(?s)Attaching to a-1, b-1, c-1.*a-1  \| a begins`)
	up.until(t, `b-1  \| b begins`)
	up.until(t, `(?s)c-1  \| c says.*c-1  \| c says.*c-1  \| c says.*c-1 exited with code 6`)
	t.Run("restart", func(t *testing.T) {
		p.must(t, "restart", "-t", "10", "a")
		up.until(t, `(?s)a-1  \| a ends.*a-1  \| a begins`)
	})
	up.Process.Signal(syscall.SIGINT)
	up.until(t, `(?s)Gracefully Stopping.*Container proj-b-1  Stopped.*Container proj-a-1  Stopped`)
	if code := up.end(t, nil); code != 130 && code != 0 {
		t.Errorf("up ended with %d\n%s", code, up.said())
	}
	want(t, "after ctrl-C", p.must(t, "ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}"), `^a exited 0\nb exited 5\nc exited 6$`)
	again := p.begin(t, "up")
	again.until(t, `(?s)a-1  \| a begins.*b-1  \| b begins`)
	if strings.Contains(again.said(), "ends") {
		t.Errorf("what was said before is shown again:\n%s", again.said())
	}
	again.Process.Signal(syscall.SIGTERM)
	again.end(t, nil)
	p.must(t, "up", "-d")
	watch := p.begin(t, "up", "--no-recreate", "--no-attach", "b")
	watch.until(t, `Attaching to a-1`)
	p.must(t, "kill")
	if code := watch.end(t, nil); code != 0 {
		t.Errorf("up of what was killed: %d\n%s", code, watch.said())
	}
	want(t, "up of what was killed", watch.said(), `a-1 exited with code 137`)
}

// TestExitCodeFrom: up ends with the first container, as tests of others use it.
func TestExitCodeFrom(t *testing.T) {
	p := start(t, `
services:
  server:
    image: busybox
    command: sh -c 'echo serves; exec sleep 1000'
    stop_grace_period: 0s
  tests:
    image: busybox
    depends_on: [server]
    command: sh -c 'echo testing; echo bad >&2; exit 9'
`)
	out, errs, code := p.compose(t, "up", "--exit-code-from", "tests")
	if code != 9 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	want(t, "output", out+errs, `(?s)tests-1   \| testing.*tests-1 exited with code 9`)
	want(t, "error output", out+errs, `tests-1   \| bad`)
	out, errs, code = p.compose(t, "up", "--abort-on-container-failure")
	if code != 9 {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

// TestAttach: what is typed reaches the service, and detaching leaves it.
func TestAttach(t *testing.T) {
	p := start(t, `
services:
  echo:
    image: busybox
    stdin_open: true
    command: sh -c 'while read line; do echo "<$$line>"; [ $$line = end ] && exit 4; done'
`)
	p.must(t, "up", "-d")
	cmd := p.command(t, "attach", "echo")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Cmd: cmd}
	r.Stdout, r.Stderr = r, r
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("one\n"))
	r.until(t, `<one>`)
	in.Write([]byte("end\n"))
	r.until(t, `<end>`)
	if code := r.end(t, nil); code != 4 {
		t.Errorf("attach: %d\n%s", code, r.said())
	}
}

// TestDependencies: services start when those they need are healthy or done.
func TestDependencies(t *testing.T) {
	p := start(t, `
services:
  db:
    image: busybox
    command: sh -c 'sleep 1; touch /ready; exec sleep 1000'
    init: true
    healthcheck: {test: [CMD, test, -e, /ready], interval: 300ms, timeout: 20s, retries: 100, start_period: 30s, start_interval: 300ms}
  migrate:
    image: busybox
    depends_on: {db: {condition: service_healthy}}
    command: sh -c 'echo migrated; exit $${CODE:-0}'
    environment: [CODE]
  web:
    image: busybox
    init: true
    depends_on:
      migrate: {condition: service_completed_successfully}
      db: {condition: service_started, restart: true}
      absent: {condition: service_started, required: false}
    command: sleep 1000
  absent:
    image: busybox
    profiles: [other]
    command: sleep 1000
`)
	listen := p.begin(t, "events", "--json")
	time.Sleep(100 * time.Millisecond)
	_, errs, code := p.compose(t, "up", "-d")
	if code != 0 {
		t.Fatalf("up: %d\n%s", code, errs)
	}
	want(t, "up", errs, `(?s)Container proj-db-1  Healthy.*Container proj-migrate-1  Exited.*Container proj-web-1  Started`)
	listen.until(t, `"action":"health_status: healthy"`)
	want(t, "ps", p.must(t, "ps", "-a", "--format", "{{.Service}} {{.State}} {{.Health}}|"), `^db running healthy\|\nmigrate exited \|\nweb running \|$`)
	want(t, "status", p.docker(t, "ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.Status}}"), `^proj-db-1 Up .* \(healthy\)$`)
	before := p.docker(t, "inspect", "-f", "{{.State.StartedAt}}", "proj-web-1")
	p.must(t, "restart", "-t", "1", "db")
	if p.docker(t, "inspect", "-f", "{{.State.StartedAt}}", "proj-web-1") == before {
		t.Error("web was not restarted with db")
	}
	p.must(t, "down", "-t", "1")

	_, errs, code = p.compose(t, "up", "-d", "--wait", "db")
	if code != 0 {
		t.Errorf("up --wait: %d\n%s", code, errs)
	}
	cmd := p.command(t, "up", "-d")
	cmd.Env = append(cmd.Env, "CODE=3")
	r := &running{Cmd: cmd}
	r.Stdout, r.Stderr = r, r
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if code := r.end(t, nil); code != 1 {
		t.Errorf("up with a failing migration: %d", code)
	}
	want(t, "up with a failing migration", r.said(), `service "migrate" didn't complete successfully: exit 3`)
	p.file(t, `
services:
  sick:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: "false", interval: 200ms, timeout: 20s, retries: 2}
  web: {image: busybox, command: sleep 1000, depends_on: {sick: {condition: service_healthy}}}
`)
	_, errs, code = p.compose(t, "up", "-d", "--remove-orphans")
	if code != 1 {
		t.Errorf("up with a sick dependency: %d", code)
	}
	want(t, "up with a sick dependency", errs, `dependency failed to start: container proj-sick-1 is unhealthy`)
}
