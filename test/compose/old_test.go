package compose

import (
	"os/exec"
	"strings"
	"testing"

	"fief/internal/testenv"
)

// TestOld: docker-compose 1, in Python, which Debian 12 has and the suite
// installs.
func TestOld(t *testing.T) {
	path, err := exec.LookPath("docker-compose")
	if err != nil || !strings.HasPrefix(version(path), "1.") {
		t.Skip("tool: no docker-compose 1")
	}
	p := &project{Daemon: testenv.Start(t), dir: t.TempDir() + "/proj", client: path}
	p.Busybox(t)
	p.write(t, "docker-compose.yml", `
version: "2.4"
services:
  web:
    image: busybox
    init: true
    command: sh -c 'echo web is up; exec httpd -f -p 80 -h /data'
    ports: ["127.0.0.1::80"]
    depends_on: {db: {condition: service_healthy}}
    volumes: [./data:/data:ro, /anonymous, store:/store]
    networks: {default: {}, closed: {ipv4_address: 10.77.0.9, aliases: [al]}}
    mem_limit: 64m
  db:
    image: busybox
    init: true
    command: sleep 1000
    healthcheck: {test: "true", interval: 300ms, timeout: 20s}
    ulimits: {nofile: 100}
    tmpfs: /tmp
  once: {image: busybox, command: "sh -c 'exit 3'", network_mode: "service:db"}
volumes: {store: {labels: {a: b}}}
networks:
  closed: {internal: true, ipam: {config: [{subnet: 10.77.0.0/24}]}}
`)
	p.write(t, "data/index.html", "hello\n")
	p.must(t, "up", "-d")
	eventually(t, "ps", `(?s)proj_db_1 .*Up \(healthy\).*proj_once_1 .*Exit 3.*proj_web_1 .*Up +127\.0\.0\.1:\d+->80/tcp`, func() string { return p.must(t, "ps") })
	want(t, "logs", p.must(t, "logs", "--no-color", "web"), `web_1   \| web is up`)
	if _, _, code := p.compose(t, "exec", "-T", "web", "sh", "-c", "exit 6"); code != 6 {
		t.Errorf("exec: exit %d", code)
	}
	want(t, "names", p.must(t, "exec", "-T", "db", "wget", "-qO-", "http://web/"), `^hello$`)
	if _, _, code := p.compose(t, "run", "--rm", "-T", "db", "sh", "-c", "exit 4"); code != 4 {
		t.Errorf("run: exit %d", code)
	}
	p.must(t, "exec", "-T", "web", "touch", "/anonymous/mark")
	p.must(t, "up", "-d", "--force-recreate", "-t", "1")
	want(t, "anonymous volume of one made anew", p.must(t, "exec", "-T", "web", "ls", "/anonymous"), `^mark$`)
	p.must(t, "up", "-d", "--scale", "db=2", "-t", "1")
	for _, args := range [][]string{{"pause", "web"}, {"unpause", "web"}, {"restart", "-t", "1"}, {"stop", "-t", "1"}} {
		p.must(t, args...)
	}
	want(t, "stopped", p.must(t, "ps", "web"), `proj_web_1 .*Exit 143`)
	p.must(t, "down", "-v", "--remove-orphans", "-t", "0")
	want(t, "what is left", p.docker(t, "ps", "-aq")+p.docker(t, "network", "ls", "-q", "--filter", "type=custom"), `^$`)
}
