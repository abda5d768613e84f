package compose

import (
	"syscall"
	"testing"
)

// TestDaemonKilled: a project goes on while its daemon is killed, and the next
// one knows it.
func TestDaemonKilled(t *testing.T) {
	const file = `
services:
  web:
    image: busybox
    init: true
    command: sh -c 'i=0; while :; do echo line $$i; i=$$((i+1)); sleep 0.2; done'
    ports: ["127.0.0.1::80"]
    volumes: [store:/store, /anonymous]
    healthcheck: {test: "true", interval: 300ms, timeout: 20s}
    networks: [default, second]
  db: {image: busybox, init: true, command: sleep 1000, restart: always}
  once: {image: busybox, command: "sh -c 'exit 3'"}
volumes: {store: }
networks: {second: }
`
	p := start(t, file)
	p.must(t, "up", "-d")
	p.must(t, "up", "-d", "--wait", "web")
	state := func() string {
		return p.must(t, "ps", "-a", "--format", "{{.Name}} {{.State}} {{.Health}} {{.ExitCode}} {{.Ports}}|")
	}
	pids := func() string { return p.docker(t, "inspect", "-f", "{{.State.Pid}}", "proj-web-1", "proj-db-1") }
	before, ran := state(), pids()
	want(t, "before", before, `^proj-db-1 running  0 \|\nproj-once-1 exited  3 \|\nproj-web-1 running healthy 0 127\.0\.0\.1:\d+->80/tcp\|$`)
	p.Kill(t)
	p.Up(t)
	if after := state(); after != before {
		t.Errorf("ps was\n%s\nis\n%s", before, after)
	}
	if after := pids(); after != ran {
		t.Errorf("processes were %s, are %s", ran, after)
	}
	follow := p.begin(t, "logs", "-f", "--tail", "1", "web")
	follow.until(t, `(?s)line \d+.*line \d+.*line \d+`)
	want(t, "logs", p.must(t, "logs", "web"), `(?s)line 0\n.*line 1\n.*line 5\n`)
	follow.end(t, syscall.SIGINT)
	want(t, "names", p.must(t, "exec", "-T", "db", "sh", "-c", "nslookup web | tail -n +3"), `Address: 172\.`)
	_, errs, _ := p.compose(t, "up", "-d")
	want(t, "up again", errs, `(?s)Container proj-web-1  Running`)
	if after := pids(); after != ran {
		t.Errorf("up made anew what ran: processes were %s, are %s", ran, after)
	}
	p.docker(t, "kill", "proj-web-1") // of its own restart policy, none
	eventually(t, "killed", `^exited 137$`, func() string { return p.must(t, "ps", "-a", "web", "--format", "{{.State}} {{.ExitCode}}") })
	p.must(t, "start", "web")
	p.Kill(t)
	p.Up(t)
	p.must(t, "stop", "-t", "1")
	want(t, "stopped", p.must(t, "ps", "-a", "--format", "{{.Service}} {{.State}}"), `^db exited\nonce exited\nweb exited$`)
	p.Kill(t)
	p.Up(t)
	eventually(t, "restart: always", `^db running\nonce exited\nweb exited$`, func() string {
		return p.must(t, "ps", "-a", "--format", "{{.Service}} {{.State}}")
	})
	p.must(t, "down", "-v", "-t", "1")
	want(t, "what is left", p.docker(t, "ps", "-aq")+p.docker(t, "volume", "ls", "-q")+p.docker(t, "network", "ls", "-q", "--filter", "type=custom"), `^$`)
}
