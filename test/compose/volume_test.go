package compose

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVolumes: every way of a compose file to say what is mounted.
func TestVolumes(t *testing.T) {
	p := start(t, `
services:
  web:
    image: busybox
    init: true
    command: sleep 1000
    tmpfs: [/short, "/sized:size=1m,mode=1777,uid=1000"]
    volumes:
      - named:/named
      - named:/again:ro
      - /anonymous
      - ./data:/data
      - ./made/by/it:/made
      - {type: bind, source: ./data, target: /reading, read_only: true}
      - {type: volume, source: labelled, target: /long, volume: {nocopy: true}}
      - {type: volume, target: /nameless}
      - {type: tmpfs, target: /scratch, tmpfs: {size: 2m, mode: 0700}}
      - {type: image, source: busybox, target: /image}
      - {type: image, source: busybox, target: /etc-of-it, image: {subpath: etc}}
      - outside:/outside
      - sized:/ram
  other:
    image: busybox
    init: true
    command: sleep 1000
    depends_on: [web]
    volumes_from: [web]
  part:
    image: busybox
    command: cat /part/inner
    profiles: [part]
    volumes: [{type: volume, source: named, target: /part, volume: {subpath: below}}]
volumes:
  named:
  labelled: {labels: {kept: "yes"}, name: its-own-name}
  outside: {external: true}
  sized: {driver: local, driver_opts: {type: tmpfs, device: tmpfs, o: "size=1m,mode=0750"}}
`)
	p.write(t, "data/file", "of the host\n")
	_, errs, code := p.compose(t, "up", "-d")
	if code != 1 {
		t.Errorf("up without the external volume: %d", code)
	}
	want(t, "up without the external volume", errs, `external volume "outside" not found`)
	p.docker(t, "volume", "create", "outside")
	p.must(t, "up", "-d")
	sh := func(service, script string) string {
		t.Helper()
		out, errs, _ := p.compose(t, "exec", "-T", service, "sh", "-c", script)
		return out + errs
	}
	want(t, "named", sh("web", "echo written >/named/file; cat /again/file; touch /again/x"), `(?s)^written\n.*Read-only file system`)
	want(t, "bind", sh("web", "cat /data/file; touch /reading/x"), `(?s)^of the host\n.*Read-only file system`)
	if _, err := os.Stat(filepath.Join(p.dir, "made/by/it")); err != nil {
		t.Errorf("the source of a bind was not made: %v", err)
	}
	want(t, "tmpfs", sh("web", "stat -c '%a %u' /sized /short /scratch; df -k /scratch | tail -1"), `(?s)^1777 1000\n1777 0\n700 0\ntmpfs +2048`)
	want(t, "image", sh("web", "stat -c %u /image/bin/busybox; grep -c app /etc-of-it/passwd; touch /image/x"), `(?s)^0\n1\n.*Read-only file system`)
	want(t, "volume of options", sh("web", "stat -c '%a %u' /ram; df -k /ram | tail -1"), `(?s)^750 0\ntmpfs +1024`)
	want(t, "volumes_from", sh("other", "cat /named/file /data/file; touch /reading/x"), `(?s)^written\nof the host\n.*Read-only file system`)
	want(t, "labels", p.docker(t, "volume", "inspect", "-f", `{{.Labels.kept}} {{index .Labels "com.docker.compose.volume"}} {{index .Labels "com.docker.compose.project"}}`, "its-own-name"), `^yes labelled proj$`)
	want(t, "the project's volumes", p.docker(t, "volume", "ls", "--filter", "label=com.docker.compose.project=proj", "--format", "{{.Name}}"), `^its-own-name\nproj_named\nproj_sized$`)
	want(t, "subpath", sh("web", "mkdir /named/below; echo inner >/named/below/inner"), `^$`)
	want(t, "subpath", p.must(t, "run", "--rm", "part"), `^inner$`)

	mark := "echo mark >/anonymous/mark; echo mark >/nameless/mark"
	want(t, "mark", sh("web", mark), `^$`)
	names := func() string {
		return p.docker(t, "inspect", "-f", `{{range .Mounts}}{{if eq .Destination "/anonymous"}}{{.Name}} {{end}}{{end}}{{range .Mounts}}{{if eq .Destination "/nameless"}}{{.Name}} {{end}}{{end}}`, "proj-web-1")
	}
	before := names()
	want(t, "anonymous", before, `^[0-9a-f]{64} [0-9a-f]{64} $`)
	p.must(t, "up", "-d", "--force-recreate")
	want(t, "after recreating", sh("web", "cat /anonymous/mark /nameless/mark /named/file"), `^mark\nmark\nwritten\n$`)
	if after := names(); after != before {
		t.Errorf("recreated with %s, was %s", after, before)
	}
	p.must(t, "up", "-d", "--force-recreate", "-V", "web")
	want(t, "after -V", sh("web", "cat /anonymous/mark; cat /named/file"), `(?s)No such file.*written|written.*No such file`)
	p.must(t, "down", "-t", "0")
	want(t, "down keeps volumes", p.docker(t, "volume", "ls", "-q", "--filter", "dangling=true"), `(?s)its-own-name.*outside.*proj_named`)
	p.must(t, "up", "-d")
	want(t, "after down", sh("web", "cat /named/file"), `^written\n$`)
	p.must(t, "down", "-v", "-t", "0")
	p.docker(t, "volume", "prune", "-f")
	want(t, "down -v", p.docker(t, "volume", "ls", "-q"), `^outside$`)
}

// TestVolumeChanged: a volume whose options changed is made anew when the user
// says so.
func TestVolumeChanged(t *testing.T) {
	file := func(label string) string {
		return `
services:
  web: {image: busybox, init: true, command: sleep 1000, volumes: ["store:/store"]}
volumes:
  store: {labels: {is: ` + label + `}}
`
	}
	p := start(t, file("old"))
	p.must(t, "up", "-d")
	p.must(t, "exec", "-T", "web", "touch", "/store/file")
	p.file(t, file("new"))
	p.must(t, "up", "-d", "-y")
	want(t, "label", p.docker(t, "volume", "inspect", "-f", "{{.Labels.is}}", "proj_store"), `^new$`)
	want(t, "files", p.must(t, "exec", "-T", "web", "ls", "/store"), `^$`)
}
