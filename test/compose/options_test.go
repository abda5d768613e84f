package compose

import (
	"testing"

	"fief/internal/testenv"
)

// TestOptions: what a service may say of its processes.
func TestOptions(t *testing.T) {
	p := start(t, `
x-common: &common {image: busybox, init: true, command: sleep 1000}
services:
  env:
    <<: *common
    env_file: [one.env, {path: none.env, required: false}]
    environment: {GREETING: "hello ${WHO:-world}", FROM_SHELL: , NUMBER: 7}
    hostname: itself
    domainname: example.test
    working_dir: /var
    user: "1000:50"
    group_add: [staff, "33"]
    labels: {a.b: c}
    annotations: {x: y}
    read_only: true
    shm_size: 8m
    ulimits: {nofile: {soft: 100, hard: 200}, nproc: 300}
    cap_add: [NET_ADMIN]
    cap_drop: [CHOWN, net_raw]
    security_opt: ["no-new-privileges:true"]
    sysctls: [net.core.somaxconn=77]
    logging: {driver: json-file, options: {max-size: 1m, max-file: "3"}}
    restart: "on-failure:3"
    stop_signal: SIGUSR1
    stop_grace_period: 7s
    oom_score_adj: 400
    pids_limit: 90
    mem_limit: 64m
    cpus: 0.5
    secrets: [token, {source: token, target: elsewhere}]
    configs: [{source: conf, target: /etc/app.conf}]
    expose: ["81"]
    runtime: ""
  limits:
    <<: *common
    deploy:
      replicas: 2
      resources: {limits: {cpus: "0.25", memory: 32M, pids: 50}, reservations: {memory: 16M}}
      restart_policy: {condition: any}
  quiet:
    <<: *common
    logging: {driver: none}
    configs: [inline, {source: inline, target: /etc/deep/conf, mode: 0440}]
    secrets: [spoken]
  ended:
    image: busybox
    entrypoint: ["sh", "-c"]
    command: ["echo $$0 $$1; exit 4", one, two]
  debug: {<<: *common, profiles: [debug]}
secrets:
  token: {file: ./token.txt}
  spoken: {environment: SPOKEN}
configs:
  conf: {file: ./app.conf}
  inline: {content: "in ${WHO:-line}\n"}
`)
	p.write(t, "one.env", "ONE=1\n# comment\nTWO='two words'\n")
	p.write(t, "token.txt", "s3cret\n")
	p.write(t, "app.conf", "key=value\n")
	t.Setenv("SPOKEN", "aloud")
	p.must(t, "up", "-d")
	sh := func(service, script string) string {
		t.Helper()
		out, errs, _ := p.compose(t, "exec", "-T", service, "sh", "-c", script)
		return out + errs
	}
	want(t, "environment", sh("env", "echo $ONE,$TWO,$GREETING,$NUMBER; pwd; hostname; id"), `^1,two words,hello world,7\n/var\nitself\nuid=1000\(app\) gid=50\(staff\) groups=33\(www-data\),50\(staff\)\n$`)
	want(t, "files", sh("env", "cat /run/secrets/token /run/secrets/elsewhere /etc/app.conf; touch /x"), `(?s)^s3cret\ns3cret\nkey=value\n.*Read-only file system`)
	want(t, "files that compose writes", sh("quiet", "cat /inline /etc/deep/conf /run/secrets/spoken; stat -c '%a %u' /etc/deep/conf"), `^in line\nin line\naloud440 0\n$`)
	want(t, "limits", sh("env", "ulimit -n; ulimit -Hn; grep -o 'Max processes  *[0-9]*' /proc/self/limits; cat /proc/sys/net/core/somaxconn /proc/1/oom_score_adj; df -k /dev/shm | tail -1"), `^100\n200\nMax processes +300\n77\n400\nshm +8192`)
	want(t, "capabilities", sh("env", "grep -E 'CapBnd|NoNewPrivs' /proc/1/status"), `(?s)CapBnd:\s+00000000a80415fa.*NoNewPrivs:\s+1|NoNewPrivs:\s+1.*CapBnd:\s+00000000a80415fa`)
	const f = `{{.HostConfig.RestartPolicy}} {{.Config.StopSignal}} {{.Config.StopTimeout}} {{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config "max-size"}} {{.HostConfig.PidsLimit}} {{.HostConfig.Memory}} {{.HostConfig.NanoCPUs}} {{index .Config.Labels "a.b"}} {{.HostConfig.Annotations.x}} {{.Config.Domainname}} {{.HostConfig.GroupAdd}}`
	want(t, "inspect", p.docker(t, "inspect", "-f", f, "proj-env-1"), `^\{on-failure 3\} SIGUSR1 7 json-file 1m 90 67108864 500000000 c y example\.test \[staff 33\]$`)
	want(t, "deploy", p.docker(t, "inspect", "-f", `{{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCPUs}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}`, "proj-limits-1", "proj-limits-2"), `^33554432 16777216 250000000 50 always\n33554432 16777216 250000000 50 always$`)
	want(t, "no logs", p.must(t, "logs", "env"), `^$`)
	_, errs, code := p.compose(t, "logs", "quiet")
	if code != 0 {
		t.Errorf("logs of none: %d %s", code, errs)
	}
	want(t, "logs of none", errs, `Can't retrieve logs for .*quiet-1.*: .*configured logging driver does not support reading`)
	want(t, "entrypoint", p.must(t, "logs", "--no-log-prefix", "ended"), `^one two$`)
	want(t, "profiles", p.must(t, "ps", "-a", "--format", "{{.Name}}"), `^proj-ended-1\nproj-env-1\nproj-limits-1\nproj-limits-2\nproj-quiet-1$`)
	p.must(t, "--profile", "debug", "up", "-d", "debug")
	want(t, "profiles", p.must(t, "ps", "-a", "debug", "--format", "{{.Name}}"), `^proj-debug-1$`)
	p.must(t, "--profile", "*", "down", "-t", "0")
}

// TestRecreate: what changed is made anew, and nothing else; what the file no
// longer has is an orphan.
func TestRecreate(t *testing.T) {
	file := func(value, more string) string {
		return `
services:
  a: {image: busybox, init: true, command: sleep 1000, environment: {V: "` + value + `"}}
  b: {image: busybox, init: true, command: sleep 1000, scale: 2}
` + more
	}
	p := start(t, file("1", "  gone: {image: busybox, init: true, command: sleep 1000}\n"))
	p.must(t, "up", "-d")
	ids := func(service string) string { return p.must(t, "ps", "-q", service) }
	a, b := ids("a"), ids("b")
	p.file(t, file("2", ""))
	_, errs, _ := p.compose(t, "up", "-d")
	want(t, "orphans", errs, `Found orphan containers \(\[proj-gone-1\]\) for this project`)
	want(t, "recreated", errs, `Container proj-a-1  Recreated`)
	if ids("a") == a || ids("b") != b {
		t.Errorf("a was %s is %s, b was %s is %s", a, ids("a"), b, ids("b"))
	}
	want(t, "name", p.docker(t, "ps", "-a", "--filter", "label=com.docker.compose.service=a", "--format", "{{.Names}}"), `^proj-a-1$`)
	want(t, "changed", p.must(t, "exec", "-T", "a", "sh", "-c", "echo $V"), `^2$`)
	p.must(t, "scale", "b=4")
	want(t, "scale up", p.must(t, "ps", "b", "--format", "{{.Name}}"), `^proj-b-1\nproj-b-2\nproj-b-3\nproj-b-4$`)
	p.must(t, "up", "-d", "--scale", "b=1", "--remove-orphans", "-t", "0")
	want(t, "scale down", p.must(t, "ps", "-a", "--format", "{{.Name}}"), `^proj-a-1\nproj-b-1$`)
	// Another image of the same name.
	a, b = ids("a"), ids("b")
	out, errs, code := testenv.Output(t, p.Command(t, "sh", "-c", "docker commit -m other proj-a-1 busybox >/dev/null && docker images -q busybox"))
	if code != 0 {
		t.Fatal(out, errs)
	}
	p.must(t, "up", "-d", "-t", "0")
	if ids("a") == a || ids("b") == b {
		t.Error("containers of an image that was replaced were not made anew")
	}
	p.must(t, "up", "-d", "--force-recreate", "--no-deps", "-t", "0", "a")
	p.must(t, "up", "-d", "--always-recreate-deps", "-t", "0")
}
