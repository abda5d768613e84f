package compose

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"fief/internal/testenv"
)

const life = `
services:
  web:
    image: busybox
    command: sh -c 'trap "echo bye; exit 0" TERM; echo web is up; while :; do sleep 0.1; done'
    ports: ["127.0.0.1::80"]
    labels: {colour: blue}
  db:
    image: busybox
    command: ["sh", "-c", "echo db is up; exec sleep 1000"]
    init: true
    volumes: [store:/store]
volumes:
  store:
`

// TestLife: a project from its first up to its last down.
func TestLife(t *testing.T) {
	p := start(t, life)
	_, errs, code := p.compose(t, "up", "-d")
	if code != 0 {
		t.Fatalf("up -d: %d %s", code, errs)
	}
	for _, line := range []string{"Network proj_default  Created", `Volume "?proj_store"?  Created`, "Container proj-web-1  Started", "Container proj-db-1  Started"} {
		want(t, "up -d", errs, line)
	}
	t.Run("ps", func(t *testing.T) { testPs(t, p) })
	t.Run("logs", func(t *testing.T) { testLogs(t, p) })
	t.Run("exec", func(t *testing.T) { testExec(t, p) })
	t.Run("run", func(t *testing.T) { testRun(t, p) })
	t.Run("show", func(t *testing.T) { testShow(t, p) })
	t.Run("copy", func(t *testing.T) { testCopy(t, p) })
	t.Run("states", func(t *testing.T) { testStates(t, p) })
	t.Run("events", func(t *testing.T) { testEvents(t, p) })
	_, errs, code = p.compose(t, "down", "-v", "--remove-orphans", "-t", "1")
	if code != 0 {
		t.Fatalf("down: %d %s", code, errs)
	}
	for _, line := range []string{"Container proj-web-1  Removed", "Network proj_default  Removed", "Volume proj_store  Removed"} {
		want(t, "down", errs, line)
	}
	want(t, "what is left", p.docker(t, "ps", "-aq")+p.docker(t, "volume", "ls", "-q")+p.docker(t, "network", "ls", "-q", "--filter", "type=custom"), `^$`)
	want(t, "ls", p.must(t, "ls", "-a", "--format", "json"), `^\[\]$`)
}

func testPs(t *testing.T, p *project) {
	want(t, "ps", p.must(t, "ps"), `(?s)^NAME +IMAGE +COMMAND +SERVICE +CREATED +STATUS +PORTS\nproj-db-1 +busybox +"sh -c 'echo db is u…" +db +\S.* ago +Up .*\nproj-web-1 .*127\.0\.0\.1:\d+->80/tcp$`)
	type row struct {
		Name, Service, State, Project, Image string
		Labels, Networks, LocalVolumes       string
		ExitCode                             int
		Publishers                           []struct {
			URL                       string
			TargetPort, PublishedPort int
			Protocol                  string
		}
	}
	var web row
	if err := json.Unmarshal([]byte(p.must(t, "ps", "--format", "json", "web")), &web); err != nil {
		t.Fatal(err)
	}
	if web.Name != "proj-web-1" || web.Service != "web" || web.State != "running" || web.Project != "proj" || web.Image != "busybox" || web.Networks != "proj_default" ||
		len(web.Publishers) != 1 || web.Publishers[0].URL != "127.0.0.1" || web.Publishers[0].TargetPort != 80 || web.Publishers[0].PublishedPort == 0 || web.Publishers[0].Protocol != "tcp" {
		t.Errorf("ps --format json: %+v", web)
	}
	for _, label := range []string{"colour=blue", "com.docker.compose.project=proj", "com.docker.compose.service=web", "com.docker.compose.oneoff=False", "com.docker.compose.container-number=1", `com.docker.compose.image=sha256:[0-9a-f]{64}`} {
		want(t, "labels", web.Labels, label)
	}
	want(t, "ps --services", p.must(t, "ps", "--services"), `^db\nweb$`)
	want(t, "ps --status", p.must(t, "ps", "--status", "exited", "-q"), `^$`)
	want(t, "ps --filter", p.must(t, "ps", "--filter", "status=running", "--format", "{{.Service}}"), `^db\nweb$`)
	want(t, "ls", p.must(t, "ls"), `(?m)^proj +running\(2\) +.*/proj/compose\.yaml$`)
}

func testLogs(t *testing.T, p *project) {
	eventually(t, "logs", `(?m)^web-1  \| web is up$`, func() string { return p.must(t, "logs") })
	want(t, "logs of one", p.must(t, "logs", "--no-log-prefix", "db"), `^db is up$`)
	want(t, "logs -t", p.must(t, "logs", "-t", "--tail", "1", "db"), `^db-1  \| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z db is up$`)
	want(t, "logs --index", p.must(t, "logs", "--index", "1", "web"), `web is up`)
	follow := p.begin(t, "logs", "-f")
	follow.until(t, `web is up`)
	p.must(t, "restart", "-t", "5", "web")
	follow.until(t, `(?s)web is up.*web-1  \| bye.*web is up`)
	if code := follow.end(t, syscall.SIGINT); code != 130 {
		t.Errorf("logs -f ended with %d", code)
	}
}

func testExec(t *testing.T, p *project) {
	want(t, "exec", p.must(t, "exec", "-T", "web", "id", "-u"), `^0$`)
	want(t, "exec -e -w -u", p.must(t, "exec", "-T", "-e", "A=b", "-w", "/tmp", "-u", "1000", "web", "sh", "-c", "echo $A; pwd; id -u"), `^b\n/tmp\n1000$`)
	if out, errs, code := p.compose(t, "exec", "-T", "web", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exec: %d %s%s", code, out, errs)
	}
	in := p.command(t, "exec", "-T", "web", "cat")
	in.Stdin = strings.NewReader("piped\n")
	if out, errs, code := testenv.Output(t, in); code != 0 || out != "piped\n" {
		t.Errorf("exec with input: %d %q %s", code, out, errs)
	}
	want(t, "exec with a terminal", p.terminal(t, "exec", "web", "tty"), `/dev/pts/`)
	p.must(t, "exec", "-d", "web", "touch", "/tmp/detached")
	eventually(t, "exec -d", `detached`, func() string { return p.must(t, "exec", "-T", "web", "ls", "/tmp") })
	if _, errs, code := p.compose(t, "exec", "-T", "web", "no-such-program"); code != 127 {
		t.Errorf("exec of nothing: %d %s", code, errs)
	}
}

// terminal runs compose on a terminal of its own.
func (p *project) terminal(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("script"); err != nil {
		t.Fatal(err)
	}
	line := p.client
	for _, a := range args {
		line += " '" + a + "'"
	}
	cmd := p.command(t)
	cmd.Path, cmd.Args = "/usr/bin/script", []string{"script", "-qec", line, "/dev/null"}
	out, errs, code := testenv.Output(t, cmd)
	if code != 0 {
		t.Fatalf("%s: exit %d\n%s%s", line, code, out, errs)
	}
	return out
}

func testRun(t *testing.T, p *project) {
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"web", "true"}}, {3, []string{"web", "sh", "-c", "exit 3"}}, {137, []string{"web", "sh", "-c", "kill -9 $$$$; sh -c 'kill -9 $$'; exit $?"}},
	} {
		if out, errs, code := p.compose(t, append([]string{"run", "--rm", "-T", "--no-deps"}, c.args...)...); code != c.code {
			t.Errorf("run %v: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
	}
	_, errs, code := p.compose(t, "run", "--rm", "-T", "web", "no-such-program")
	if code == 0 {
		t.Errorf("run of nothing: %d", code)
	}
	want(t, "run of nothing", errs, `no-such-program`)
	in := p.command(t, "run", "--rm", "-T", "-e", "A=b", "web", "sh", "-c", "cat; echo $A; wget -qO- db:1 2>&1")
	in.Stdin = strings.NewReader("piped\n")
	out, _, _ := testenv.Output(t, in)
	want(t, "run with input", out, `^piped\nb\nwget: can't connect to remote host \([0-9.]+\): Connection refused`)
	want(t, "run with a terminal", p.terminal(t, "run", "--rm", "web", "tty"), `/dev/pts/0`)
	p.must(t, "run", "-d", "--name", "odd", "web", "sleep", "1000")
	want(t, "one-off", p.docker(t, "inspect", "-f", `{{index .Config.Labels "com.docker.compose.oneoff"}} {{.State.Status}}`, "odd"), `^True running$`)
	want(t, "ps leaves out one-offs", p.must(t, "ps", "--format", "{{.Name}}"), `^proj-db-1\nproj-web-1$`)
	p.docker(t, "rm", "-f", "odd")
	want(t, "--rm removed them", p.docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.oneoff=True"), `^$`)
}

func testShow(t *testing.T, p *project) {
	want(t, "images", p.must(t, "images"), `(?m)^proj-web-1 +busybox +latest +(linux/\S+ +)?[0-9a-f]{12} `)
	want(t, "images -q", p.must(t, "images", "-q"), `^[0-9a-f]{64}$`)
	want(t, "top", p.must(t, "top"), `(?s)web +1 .*sh -c trap`)
	want(t, "port", p.must(t, "port", "web", "80"), `^127\.0\.0\.1:\d+$`)
	want(t, "config", p.must(t, "config", "--services"), `^(db\nweb|web\ndb)$`)
	want(t, "config --images", p.must(t, "config", "--images"), `^busybox\nbusybox$`)
	want(t, "config --hash", p.must(t, "config", "--hash", "web"), `^web [0-9a-f]{64}$`)
	want(t, "stats", p.must(t, "stats", "--no-stream", "--format", "{{.Name}}"), `proj-web-1`)
	want(t, "volumes", p.must(t, "volumes", "-q"), `^proj_store$`)
	want(t, "version", p.must(t, "version", "--short"), `^2\.`)
}

func testCopy(t *testing.T, p *project) {
	p.write(t, "note", "hello\n")
	p.must(t, "cp", "note", "web:/tmp/note")
	want(t, "cp in", p.must(t, "exec", "-T", "web", "cat", "/tmp/note"), `^hello$`)
	p.must(t, "cp", "web:/tmp/note", "back")
	if b, err := os.ReadFile(filepath.Join(p.dir, "back")); err != nil || string(b) != "hello\n" {
		t.Errorf("cp out: %q %v", b, err)
	}
	p.must(t, "export", "-o", "web.tar", "web")
	if out, err := exec.Command("tar", "-xOf", filepath.Join(p.dir, "web.tar"), "tmp/note").Output(); err != nil || string(out) != "hello\n" {
		t.Errorf("export: %q %v", out, err)
	}
	p.must(t, "commit", "web", "snapshot:1")
	want(t, "commit", p.docker(t, "run", "--rm", "snapshot:1", "cat", "/tmp/note"), `^hello$`)
	p.docker(t, "rmi", "snapshot:1")
}

func testStates(t *testing.T, p *project) {
	states := func() string { return p.must(t, "ps", "-a", "--format", "{{.Service}} {{.State}} {{.ExitCode}}") }
	for _, s := range []struct {
		args []string
		then string
	}{
		{[]string{"stop", "-t", "5"}, `^db exited 143\nweb exited 0$`},
		{[]string{"start"}, `^db running 0\nweb running 0$`},
		{[]string{"pause", "web"}, `^db running 0\nweb paused 0$`},
		{[]string{"unpause", "web"}, `^db running 0\nweb running 0$`},
		{[]string{"kill", "-s", "KILL", "db"}, `^db exited 137\nweb running 0$`},
		{[]string{"start", "db"}, `^db running 0\nweb running 0$`},
		{[]string{"restart", "-t", "1"}, `^db running 0\nweb running 0$`},
		{[]string{"kill"}, `^db exited 137\nweb exited 137$`},
		{[]string{"rm", "-f", "web"}, `^db exited 137$`},
		{[]string{"up", "-d"}, `^db running 0\nweb running 0$`},
		{[]string{"rm", "-fs", "web"}, `^db running 0$`},
		{[]string{"create"}, `^db running 0\nweb created 0$`},
		{[]string{"up", "-d", "--wait"}, `^db running 0\nweb running 0$`},
	} {
		p.must(t, s.args...)
		eventually(t, strings.Join(s.args, " "), s.then, states)
	}
	wait := p.begin(t, "wait", "db")
	time.Sleep(200 * time.Millisecond)
	p.must(t, "kill", "db")
	if code := wait.end(t, nil); code != 137 {
		t.Errorf("wait: %d %s", code, wait.said())
	}
	want(t, "wait", wait.said(), `137`)
	p.must(t, "up", "-d")
}

func testEvents(t *testing.T, p *project) {
	listen := p.begin(t, "events", "--json")
	eventually(t, "events", `"action":"pause"`, func() string {
		p.must(t, "pause", "web")
		p.must(t, "unpause", "web")
		return listen.said()
	})
	p.must(t, "restart", "-t", "5", "web")
	listen.until(t, `(?s)"action":"kill".*"action":"die".*"action":"stop".*"action":"start".*"action":"restart"`)
	want(t, "an event", listen.said(), `\{"action":"die","attributes":\{.*"execDuration":"\d+","exitCode":"0","image":"busybox","name":"proj-web-1"\},"id":"[0-9a-f]{64}","service":"web","time":"[^"]+","type":"container"\}`)
	listen.end(t, syscall.SIGINT)
}
