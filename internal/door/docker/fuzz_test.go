package docker

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// careful checks that a parser's error is the client's mistake or an honest
// refusal: anything else would be a defect of the door.
func careful(t *testing.T, err error) {
	t.Helper()
	switch fault.ClassOf(err) {
	case fault.Invalid, fault.Unsupported, fault.NotFound, fault.Denied:
	default:
		if err != nil {
			t.Errorf("class %v: %v", fault.ClassOf(err), err)
		}
	}
}

func FuzzFilters(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"label":{"a=b":true}}`, `{"label":["a=b"]}`, `{"name":["("],"exited":["0"]}`, `{"until":["1h"]}`, `{"label":null}`, `[]`} {
		f.Add(s)
	}
	c := record.Container{ID: "abc", Name: "n", Labels: map[string]string{"a": "b"}}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseFilters(s, listFilters)
		careful(t, err)
		if err != nil {
			return
		}
		careful(t, got.checkList())
		got.container(c)
		any, err := parseFilters(s, nil)
		careful(t, err)
		any.event(record.Event{Type: "container", Action: "die", ID: "abc"})
		any.moment("until")
	})
}

func FuzzCreateBody(f *testing.F) {
	for _, s := range []string{
		`{"Image":"busybox","Cmd":"a","Entrypoint":["b"],"HostConfig":{"Binds":["/a:/b:ro"],"Mounts":[{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5,"Mode":511}}],"UsernsMode":"auto"}}`,
		`{"Image":"b","HostConfig":{"SecurityOpt":["uidmap=0:1:1"],"Ulimits":[null,{"Name":"nofile","Soft":1,"Hard":2}],"LogConfig":{"Config":{"max-size":"1k"}}}}`,
		`{"Image":"b","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"80"}]},"ConsoleSize":[1,99999]},"NetworkingConfig":{"EndpointsConfig":{"none":null}}}`,
		`{"Image":"b","HostConfig":{"PidMode":"container:a","IpcMode":"none","UTSMode":"host","CgroupnsMode":"private","NetworkMode":"container:a","Privileged":true}}`,
		`{"Image":"b","ExposedPorts":{"1/tcp":{}},"HostConfig":{"NetworkMode":"container:","UsernsMode":"keep-id:uid=1","Annotations":{"io.podman.annotations.userns":"keep-id","io.fief.uidmap":"0:1:2"}}}`,
		`{"Image":"b","Volumes":{"/v":{}},"HostConfig":{"Tmpfs":{"/v":"size=1g"}}}`, `null`, `{"HostConfig":null}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var body createBody
		if json.Unmarshal([]byte(s), &body) != nil {
			return
		}
		a, _, err := body.ask("", "")
		careful(t, err)
		if err == nil && (a.Userns == nil || a.Network == "" || a.Image == "") {
			t.Errorf("incomplete: %+v", a)
		}
		if err == nil && a.WorkDir != "" && !path.IsAbs(a.WorkDir) {
			t.Errorf("working directory %q", a.WorkDir)
		}
	})
}

func FuzzRegistryAuth(f *testing.F) {
	for _, s := range []string{"", "e30=", "eyJ1c2VybmFtZSI6InUifQ==", "eyJhdXRoIjoiZFRwdyJ9", "null", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { registryAuth(s) })
}

func FuzzMounts(f *testing.F) {
	for _, s := range []string{"/a:/b", "/a:/b:ro,z,rslave", "vol:/b:nocopy", "/b", ":", "::", "/a:/b:ro,ro", "/a/..:/../b", "v:/\x00"} {
		f.Add(s, "rw,size=1m,mode=755")
	}
	f.Fuzz(func(t *testing.T, bind, tmpfs string) {
		m, err := parseBind(bind)
		careful(t, err)
		if err == nil {
			checkMount(t, m)
		}
		m, err = parseTmpfs(bind, tmpfs)
		careful(t, err)
		if err == nil {
			checkMount(t, m)
		}
	})
}

func checkMount(t *testing.T, m ask.Mount) {
	t.Helper()
	if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" || strings.ContainsRune(m.Target, 0) {
		t.Errorf("target %q", m.Target)
	}
	if strings.ContainsRune(m.Source, 0) {
		t.Errorf("source %q", m.Source)
	}
	if m.Kind == ask.Bind && (!path.IsAbs(m.Source) || path.Clean(m.Source) != m.Source) {
		t.Errorf("source %q", m.Source)
	}
	if m.Kind == ask.Volume && m.Source != "" && !ask.IsVolumeName(m.Source) {
		t.Errorf("volume %q", m.Source)
	}
	if m.TmpfsSize < 0 || m.TmpfsMode > 0o7777 {
		t.Errorf("tmpfs %d %o", m.TmpfsSize, m.TmpfsMode)
	}
}

func FuzzSecurityOptions(f *testing.F) {
	for _, s := range []string{"userns=auto:size=5", "uidmap=0:1:1,1:2:3", "seccomp={}", "no-new-privileges:true", "label=disable", "=", ":"} {
		f.Add(s, "host")
	}
	for _, s := range []string{"userns=keep-id:uid=1,gid=2,size=9", "subuidname=a", "gidmap=+g0:@1", "userns=auto:uidmapping=0:1:1", "userns=container:\x00", "userns=ns:/"} {
		f.Add(s, "private")
	}
	f.Fuzz(func(t *testing.T, opt, mode string) {
		s, err := parseSecurity([]string{opt})
		careful(t, err)
		if err != nil {
			return
		}
		_, err = usernsAsked("", s, map[string]string{annotationUserns: mode, annotationUIDMap: mode, annotationSubUID: mode})
		careful(t, err)
		u, err := usernsAsked(mode, s, nil)
		careful(t, err)
		if err == nil && u == nil {
			t.Error("no user namespace and no error")
		}
	})
}

func FuzzNamesAndTimes(f *testing.F) {
	f.Add("busybox:1", "sha256:abc", "1.5", "ctrl-p,ctrl-q")
	f.Add("localhost:5000/a@b", "", "2006-01-02", ",")
	f.Fuzz(func(t *testing.T, name, tag, when, keys string) {
		_, err := normalName(name, tag)
		careful(t, err)
		_, err = parseTime("since", when)
		careful(t, err)
		_, err = parseDetachKeys(keys)
		careful(t, err)
		familiarMatch(name, tag)
		splitVersion(name)
	})
}
