package docker

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

var other = ask.Space{Mode: ask.SpaceContainer, Container: "other"}

// TestSpacesAsked: what the API says of namespaces, and that a container made
// of what inspect shows of it has the same.
func TestSpacesAsked(t *testing.T) {
	f, socket := serve(t)
	c := raw(socket)
	host := ask.Space{Mode: ask.SpaceHost}
	for config, want := range map[string]ask.Container{
		`{}`: {},
		`{"PidMode":"","IpcMode":"","UTSMode":"","CgroupnsMode":"","Privileged":false}`:                {},
		`{"PidMode":"host","IpcMode":"host","UTSMode":"host","CgroupnsMode":"host","Privileged":true}`: {PID: host, IPC: host, UTS: host, Cgroupns: host, Privileged: true},
		`{"PidMode":"container:other","IpcMode":"container:other"}`:                                    {PID: other, IPC: other},
		`{"UTSMode":"container:other","CgroupnsMode":"container:other"}`:                               {UTS: other, Cgroupns: other},
		`{"IpcMode":"private","CgroupnsMode":"private"}`:                                               {IPC: ask.Space{Mode: ask.SpacePrivate}},
		`{"IpcMode":"shareable"}`: {},
		`{"IpcMode":"none"}`:      {IPC: ask.Space{Mode: ask.SpaceNone}},
	} {
		res, body := get(t, c, "POST", "/v1.44/containers/create", `{"Image":"busybox","HostConfig":`+config+`}`)
		if res.StatusCode != 201 {
			t.Errorf("%s: %s", config, body)
			continue
		}
		a := f.last()
		if a.PID != want.PID || a.IPC != want.IPC || a.UTS != want.UTS || a.Cgroupns != want.Cgroupns || a.Privileged != want.Privileged {
			t.Errorf("%s: %+v", config, a)
		}
		b := again(t, record.Container{PIDMode: a.PID.String(), IPCMode: a.IPC.String(), UTSMode: a.UTS.String(), CgroupnsMode: a.Cgroupns.String(), Privileged: a.Privileged})
		if a.PID != b.PID || a.IPC != b.IPC || a.UTS != b.UTS || a.Cgroupns != b.Cgroupns || a.Privileged != b.Privileged {
			t.Errorf("%s: again %+v", config, b)
		}
	}
	h := inspectOf(record.Container{}).HostConfig
	if h.PidMode != "" || h.IpcMode != "shareable" || h.UTSMode != "" || h.CgroupnsMode != "private" {
		t.Errorf("defaults: %+v", h)
	}
}

// Docker's own words are moby's integration/container/create_test.go,
// TestCreateInvalidHostConfig, and cgroup namespace mode from daemon_unix.go.
func TestSpaceRefusals(t *testing.T) {
	_, socket := serve(t)
	c := raw(socket)
	long := strings.Repeat("x", 300_000)
	for body, want := range map[string]string{
		`"HostConfig":{"IpcMode":"invalid"}`:                                                                   `invalid IPC mode: invalid`,
		`"HostConfig":{"PidMode":"invalid"}`:                                                                   `invalid PID mode: invalid`,
		`"HostConfig":{"PidMode":"container"}`:                                                                 `invalid PID mode: container`,
		`"HostConfig":{"PidMode":"container:"}`:                                                                `invalid PID mode: container:`,
		`"HostConfig":{"PidMode":"shareable"}`:                                                                 `invalid PID mode: shareable`,
		`"HostConfig":{"UTSMode":"invalid"}`:                                                                   `invalid UTS mode: invalid`,
		`"HostConfig":{"CgroupnsMode":"invalid"}`:                                                              `invalid cgroup namespace mode: invalid`,
		`"HostConfig":{"PidMode":"` + long + `"}`:                                                              `invalid PID mode: xxx`,
		`"HostConfig":{"IpcMode":"höst\u0000"}`:                                                                `invalid IPC mode: höst`,
		`"HostConfig":{"UTSMode":"-1"}`:                                                                        `invalid UTS mode: -1`,
		`"HostConfig":{"NetworkMode":"container:"}`:                                                            `invalid network mode: invalid container format container:<name|id>`,
		`"HostConfig":{"NetworkMode":"container"}`:                                                             `invalid network mode: invalid container format container:<name|id>`,
		`"HostConfig":{"NetworkMode":"` + long + `"}`:                                                          `network xxx`,
		`"Hostname":"a","HostConfig":{"UTSMode":"host"}`:                                                       `conflicting options: hostname and the UTS mode`,
		`"Domainname":"a","HostConfig":{"UTSMode":"host"}`:                                                     `conflicting options: domainname and the UTS mode`,
		`"Hostname":"a","HostConfig":{"NetworkMode":"container:b"}`:                                            `conflicting options: hostname and the network mode`,
		`"MacAddress":"a","HostConfig":{"NetworkMode":"container:b"}`:                                          `conflicting options: mac-address and the network mode`,
		`"ExposedPorts":{"1/tcp":{}},"HostConfig":{"NetworkMode":"container:b"}`:                               `conflicting options: port exposing and the container type network mode`,
		`"HostConfig":{"NetworkMode":"container:b","Links":["c"]}`:                                             `conflicting options: container type network can't be used with links. This would result in undefined behavior`,
		`"HostConfig":{"NetworkMode":"container:b","Dns":["1.1.1.1"]}`:                                         `conflicting options: dns and the network mode`,
		`"HostConfig":{"NetworkMode":"container:b","ExtraHosts":["a:1"]}`:                                      `conflicting options: custom host-to-IP mapping and the network mode`,
		`"HostConfig":{"NetworkMode":"container:b","PublishAllPorts":true}`:                                    `conflicting options: port publishing and the container type network mode`,
		`"HostConfig":{"NetworkMode":"container:b"},"NetworkingConfig":{"EndpointsConfig":{"container:c":{}}}`: `network container:c not found`,
	} {
		res, got := get(t, c, "POST", "/v1.44/containers/create", `{"Image":"busybox",`+body+`}`)
		if res.StatusCode != 400 || !strings.Contains(got, want) || len(got) > 1000 {
			t.Errorf("%.100s: %d %.300s", body, res.StatusCode, got)
		}
	}
}

// TestCLISpaces asks with the docker command line, which sends an endpoint for
// a network of another container as well.
func TestCLISpaces(t *testing.T) {
	f, socket := serve(t)
	c := needCLI(t, socket)
	c.must("create", "--name", "web", "busybox", "true")
	c.must("create", "--name", "joined", "--network", "container:web", "--pid", "container:web", "--ipc", "container:web", "--cgroupns", "host", "busybox", "true")
	web := ask.Space{Mode: ask.SpaceContainer, Container: "web"}
	if a := f.last(); a.Network != "container:web" || a.NetworkDefault || a.PID != web || a.IPC != web || a.Cgroupns.Mode != ask.SpaceHost {
		t.Errorf("%+v", a)
	}
	if got := c.must("inspect", "-f", "{{.HostConfig.NetworkMode}} {{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}} {{len .NetworkSettings.Networks}}", "joined"); got != "container:web container:web container:web host 0" {
		t.Error(got)
	}
	if got := c.must("ps", "-a", "--filter", "name=joined", "--format", "{{.Networks}}|"); got != "|" {
		t.Error(got)
	}
	c.must("create", "--name", "priv", "--privileged", "--userns", "host", "--pid", "host", "--uts", "host", "--network", "host", "busybox", "true")
	if a := f.last(); !a.Privileged || a.Userns != (ask.UsernsHost{}) || a.PID.Mode != ask.SpaceHost || a.UTS.Mode != ask.SpaceHost || a.Network != ask.NetHost {
		t.Errorf("%+v", a)
	}
	if got := c.must("inspect", "-f", "{{.HostConfig.Privileged}} {{.HostConfig.UTSMode}} {{.HostConfig.UsernsMode}}", "priv"); got != "true host host" {
		t.Error(got)
	}
	c.must("create", "--ipc", "none", "--security-opt", "userns=keep-id", "busybox", "true")
	if _, ok := f.last().Userns.(ask.UsernsKeepID); !ok || f.last().IPC.Mode != ask.SpaceNone {
		t.Errorf("%+v", f.last())
	}
	c.must("create", "--annotation", "io.podman.annotations.userns=nomap", "busybox", "true")
	if f.last().Userns != (ask.UsernsNomap{}) {
		t.Errorf("%+v", f.last().Userns)
	}
	if f.last().Caller != nil && os.Geteuid() == 0 {
		t.Errorf("root is the caller: %+v", f.last().Caller)
	}
}

// TestCallerIsThePeer: the kernel says who asks, and the client cannot.
func TestCallerIsThePeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: needs another user")
	}
	f, socket := serve(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("tool: no curl")
	}
	for _, p := range []string{socket, filepath.Dir(socket)} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("curl", "-sS", "--unix-socket", socket, "-H", "Content-Type: application/json", "-d", `{"Image":"busybox","Caller":{"UID":1,"GID":1}}`, "http://x/containers/create")
	cmd.Env = append(os.Environ(), "SUDO_UID=1", "SUDO_GID=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 5678}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"Id"`) {
		t.Fatalf("%s, %v", out, err)
	}
	if got := f.last().Caller; got == nil || *got != (ask.Caller{UID: 1234, GID: 5678}) {
		t.Errorf("caller %+v", got)
	}
	if _, body := get(t, raw(socket), "POST", "/containers/create", `{"Image":"busybox"}`); f.last().Caller != nil {
		t.Errorf("root is the caller: %+v %s", f.last().Caller, body)
	}
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	if got := callerOf(withCaller(context.Background(), here)); got != nil {
		t.Errorf("a connection that is no unix socket: %+v", got)
	}
}
