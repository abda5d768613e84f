package runtimes

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/link/linktest"
	"fief/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(linktest.Main(m)) }

// cell is one thing that is asked of every runtime.
type cell struct {
	name string
	args string // of fief run --rm; words are parted by blanks, + is a blank in one
	out  string // of the container
	code int
	errs string // a part of what is said on failure
	box  string // what is said when runsc is asked; empty: as the others
	not  string // what is said when another runtime than fief's own is asked; empty: as fief
}

// refused is what fief says of what runsc's sandbox has of its own, and none what
// is left to its own words: the tests' runsc is told to have no network, and not
// every line of /proc is there.
const (
	refused = "its sandbox does not have the "
	none    = "-"
)

// cells is the matrix; docs/runtimes.md tells of it. DONOR is a running container
// of fief's, SAME one of the runtime itself, DIR a directory of the host.
func cells() []cell {
	return []cell{
		{name: "network of another", args: "--network container:DONOR busybox readlink /proc/self/ns/net", out: "NS:net", box: refused + "network of container"},
		{name: "ipc of another", args: "--ipc container:DONOR busybox cat /dev/shm/file", out: "shared\n", box: refused + "IPC of"},
		{name: "queues of another", args: "--ipc container:DONOR busybox ls /dev/mqueue", out: "queue\n", box: refused + "IPC of"},
		{name: "pid of another", args: "--pid container:DONOR busybox sh -c ps+|+grep+-c+[s]leep.4321", out: "1\n", box: refused + "PID namespace of"},
		{name: "uts of another", args: "--uts container:DONOR busybox hostname", out: "donor-box\n", box: refused + "UTS namespace of"},
		{name: "cgroup of another", args: "--cgroupns container:DONOR busybox readlink /proc/self/ns/cgroup", out: "NS:cgroup", box: refused + "cgroup namespace of"},
		{name: "user namespace of another", args: "--userns container:DONOR busybox readlink /proc/self/ns/user", out: "NS:user", box: "its sandbox does not have a user namespace of others"},
		{name: "all of another", args: "--network container:DONOR --ipc container:DONOR --pid container:DONOR --uts container:DONOR busybox sh -c hostname;cat+/dev/shm/file;ls+/sys/class/net", out: "donor-box\nshared\nlo\n", box: refused + "network of"},
		{name: "network of another, own range", args: "--userns auto --network container:DONOR busybox sh -c readlink+/proc/self/ns/net;ls+/sys/class/net", out: "NS:netlo\n", box: refused + "network of"},
		{name: "pid of another, own range", args: "--userns auto --pid container:DONOR busybox sh -c ps+|+grep+-c+[s]leep.4321", out: "1\n", box: refused + "PID namespace of"},
		{name: "all of its own kind", args: "--network container:SAME --ipc container:SAME --pid container:SAME busybox sh -c cat+/dev/shm/file;ps+|+grep+-c+[s]leep.5432", out: "same\n1\n", box: "keeps the container's processes and files to itself"},
		{name: "host's ids", args: "--userns host --network none busybox cat /proc/self/uid_map", out: "         0          0 4294967295\n"},
		{name: "host's network", args: "--userns host --network host busybox readlink /proc/self/ns/net", out: "HOST:net", box: refused + "network of host"},
		{name: "host's pids", args: "--userns host --network none --pid host busybox readlink /proc/self/ns/pid", out: "HOST:pid", box: refused + "PID namespace of host"},
		{name: "host's ipc and uts", args: "--ipc host --uts host busybox sh -c readlink+/proc/self/ns/ipc;readlink+/proc/self/ns/uts", out: "HOST:ipcHOST:uts", box: refused + "IPC of host"},
		{name: "privileged, host's ids", args: "--privileged --userns host --network none busybox sh -c mount+-t+tmpfs+t+/home&&echo+mounted;test+-c+/dev/loop-control&&echo+devices", out: "mounted\ndevices\n", box: refused + "devices of the host"},
		{name: "device", args: "--device /dev/null:/dev/mine busybox sh -c stat+-c+%t:%T+/dev/mine;echo+x+>/dev/mine&&echo+written", out: "1:3\nwritten\n", box: refused + "device /dev/mine"},
		{name: "device, host's ids", args: "--userns host --network none --device /dev/zero:/dev/deep/mine busybox sh -c head+-c+3+/dev/deep/mine+|+wc+-c", out: "3\n", box: refused + "device /dev/deep/mine"},
		{name: "device to read", args: "--device DIR/loops:/dev/loops:r busybox sh -c (:</dev/loops)&&echo+read;(:>/dev/loops)&&echo+written;exit+0", out: "read\n", errs: "not permitted", box: refused + "device /dev/loops"},
		{name: "disk not given", args: "--userns host --network none busybox sh -c mknod+/dev/disk+b+7+0;(:</dev/disk)&&echo+opened;(:</dev/null)&&echo+null", out: "null\n"},
		{name: "named device", args: "--device vendor.test/thing=one busybox sh -c echo+$THING;cat+/opt/thing/file;head+-c+1+/dev/zero+|+wc+-c", out: "one\nof the vendor\n1\n", box: refused + "device /dev/zero"},
		{name: "named device with hooks", args: "--device vendor.test/thing=hooked busybox true", not: "its description has hooks, which are not run with runtime "},
		{name: "capabilities", args: "--cap-drop all --cap-add chown busybox grep CapEff /proc/self/status", out: "CapEff:\t0000000000000001\n"},
		{name: "no new privileges", args: "--security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status", out: "NoNewPrivs:\t1\n", box: none},
		{name: "no filter", args: "--security-opt seccomp=unconfined busybox grep ^Seccomp: /proc/self/status", out: "Seccomp:\t0\n"},
		{name: "sysctl", args: "--sysctl net.ipv4.ip_default_ttl=99 busybox cat /proc/sys/net/ipv4/ip_default_ttl", out: "99\n", box: refused + "sysctl net.ipv4.ip_default_ttl"},
		{name: "ulimit", args: "--ulimit nofile=99:100 busybox sh -c ulimit+-n", out: "99\n"},
		{name: "shm size", args: "--shm-size 1m busybox sh -c df+-k+/dev/shm+|+grep+-c+1024", out: "1\n"},
		{name: "read-only", args: "--read-only --tmpfs /t busybox sh -c touch+/t/x&&echo+t;touch+/x", out: "t\n", code: 1, errs: "Read-only"},
		{name: "groups", args: "--group-add staff busybox id -G", out: "0 50\n"},
		{name: "volume", args: "-v vol-NAME:/v busybox sh -c echo+x+>/v/x;stat+-c+%u+/v/x", out: "0\n"},
		{name: "bind", args: "-v DIR:/v:ro busybox sh -c cat+/v/file;touch+/v/x", out: "of the host\n", code: 1, errs: "Read-only"},
		{name: "no network", args: "--network none busybox ls /sys/class/net", out: "lo\n"},
		{name: "bridge", args: "busybox sh -c ip+-4+addr+show+eth0+|+grep+-c+inet", out: "1\n", box: none},
		{name: "fixed address", args: "--network fixed --ip 10.89.77.9 busybox sh -c ip+-4+addr+show+eth0+|+grep+-c+10.89.77.9/24", out: "1\n", box: none},
		{name: "network by name", args: "--network net --name NAME busybox sh -c nslookup+NAME+127.0.0.11+|+grep+-c+Name", out: "1\n", box: none},
	}
}

// TestMatrix asks everything of every runtime. What one of them cannot do is
// refused by name or fails with its own words, never otherwise done.
func TestMatrix(t *testing.T) {
	testenv.NeedRoot(t)
	linktest.Alone(t)
	dir := matrixDir(t)
	args := append(config(t, ""), "--cdi-spec-dir", dir)
	d := testenv.Start(t, args...)
	d.Busybox(t)
	d.Must(t, "network", "create", "net")
	d.Must(t, "network", "create", "--subnet", "10.89.77.0/24", "--internal", "fixed")
	t.Cleanup(func() { d.Must(t, "network", "rm", "net", "fixed") })
	const script = "mkdir -p /dev/mqueue; : >/dev/mqueue/queue; echo %s >/dev/shm/file; exec sleep %s"
	donor := d.Must(t, "run", "-d", "--network", "none", "-h", "donor-box", "--name", "donor", "busybox", "sh", "-c", strings.NewReplacer("%s >", "shared >", "sleep %s", "sleep 4321").Replace(script))
	until(t, "the donor is ready", func() bool { _, _, code := d.Fief(t, "exec", donor, "test", "-s", "/dev/shm/file"); return code == 0 })
	spaces := []string{}
	for _, kind := range []string{"net", "cgroup", "user", "pid", "ipc", "uts"} {
		host, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		spaces = append(spaces, "NS:"+kind, d.Must(t, "exec", donor, "readlink", "/proc/self/ns/"+kind)+"\n", "HOST:"+kind, host+"\n")
	}
	expand := strings.NewReplacer(spaces...)
	for _, runtime := range []string{"fief", "crun", "runc", "foci", "runsc"} {
		if runtime != "fief" && others(t)[runtime] == "" {
			continue
		}
		t.Run(runtime, func(t *testing.T) {
			same := "same-" + runtime
			if _, errs, code := d.Fief(t, "run", "-d", "--runtime", runtime, "--network", "none", "--name", same, "busybox", "sh", "-c", strings.NewReplacer("%s >", "same >", "sleep %s", "sleep 5432").Replace(script)); code != 0 {
				t.Errorf("the donor of its own kind: %s", errs)
			}
			until(t, "the donor is ready", func() bool { _, _, code := d.Fief(t, "exec", same, "test", "-s", "/dev/shm/file"); return code == 0 })
			words := strings.NewReplacer("DONOR", "donor", "SAME", same, "DIR", dir, "NAME", "m-"+runtime)
			for _, c := range cells() {
				ask(t, d, runtime, c, words, expand)
			}
			d.Must(t, "rm", "-f", same)
		})
	}
}

// ask runs one cell for one runtime.
func ask(t *testing.T, d *testenv.Daemon, runtime string, c cell, words, expand *strings.Replacer) {
	t.Helper()
	line := []string{"run", "--rm", "--runtime", runtime}
	for word := range strings.FieldsSeq(c.args) {
		line = append(line, words.Replace(strings.ReplaceAll(word, "+", " ")))
	}
	out, errs, code := d.Fief(t, line...)
	why := ""
	switch joins := strings.Contains(c.args, "container:DONOR") && !strings.Contains(c.args, "--userns auto"); {
	case runtime != "fief" && c.not != "":
		why = c.not
	case runtime == "runsc":
		why = c.box
	case runtime == "runc" && joins && !capable(t):
		// It sets limits of a process that is in the joined user namespace by then,
		// which is not this one's to limit without the capability (prlimit(2)).
		why = "error setting rlimit"
	}
	if why == "" && out == expand.Replace(c.out) && code == c.code && strings.Contains(errs, c.errs) {
		return
	}
	if why != "" && code != 0 && strings.Contains(errs, strings.TrimPrefix(why, none)) {
		return
	}
	t.Errorf("%s: exit %d, %q, %q; want %d, %q, %q%s", c.name, code, out, errs, c.code, expand.Replace(c.out), c.errs, why)
}

// capable reports whether this process may raise limits of others.
func capable(t *testing.T) bool {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	set, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// matrixDir is a directory of the host with a file, a node and a vendor's
// description of devices.
func matrixDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fief-matrix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	text := `{"cdiVersion": "0.6.0", "kind": "vendor.test/thing", "devices": [
{"name": "one", "containerEdits": {"env": ["THING=one"], "deviceNodes": [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}],
 "mounts": [{"hostPath": "` + dir + `/lib", "containerPath": "/opt/thing", "options": ["ro", "bind"]}]}},
{"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}]}`
	for name, content := range map[string]string{"lib/file": "of the vendor\n", "thing.json": text, "file": "of the host\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	node := filepath.Join(dir, "loops")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 237))); err != nil {
		t.Fatal(err)
	}
	os.Chmod(node, 0o666)
	return dir
}

// TestDockerClient: the unmodified docker client with containers of every runtime.
func TestDockerClient(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("tool: no docker client")
	}
	testenv.NeedRoot(t)
	linktest.Alone(t)
	d := testenv.Start(t, config(t, "")...)
	d.Busybox(t)
	docker := func(t *testing.T, args ...string) string {
		t.Helper()
		out, errs, code := testenv.Output(t, d.Command(t, "docker", args...))
		if code != 0 {
			t.Errorf("docker %s: exit %d, %s%s", strings.Join(args, " "), code, out, errs)
		}
		return strings.TrimSpace(out)
	}
	docker(t, "network", "create", "net")
	t.Cleanup(func() { d.Must(t, "network", "rm", "net") })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("copied\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, runtime := range []string{"fief", "crun", "runc", "foci", "runsc"} {
		if runtime != "fief" && others(t)[runtime] == "" {
			continue
		}
		t.Run(runtime, func(t *testing.T) {
			boxed := runtime == "runsc"
			name := "c-" + runtime
			docker(t, "run", "-d", "--runtime", runtime, "--name", name, "-p", "127.0.0.1::8080", "-m", "64m", "busybox", "httpd", "-f", "-p", "8080", "-h", "/var/www")
			want := func(what, got, part string) {
				t.Helper()
				if !strings.Contains(got, part) {
					t.Errorf("%s: %q, want %q", what, got, part)
				}
			}
			want("inspect", docker(t, "inspect", "-f", "{{.HostConfig.Runtime}} {{.State.Status}}", name), runtime+" running")
			if !boxed {
				want("published", fetch(t, docker(t, "port", name, "8080/tcp")), "hello")
				docker(t, "network", "connect", "net", name)
				want("connect", docker(t, "exec", name, "ip", "-4", "addr", "show", "eth1"), "inet ")
				docker(t, "network", "disconnect", "net", name)
				docker(t, "cp", file, name+":/tmp/in")
				want("cp in", docker(t, "exec", name, "cat", "/tmp/in"), "copied")
				docker(t, "cp", name+":/tmp/in", file+".out")
				back, _ := os.ReadFile(file + ".out")
				want("cp out", string(back), "copied")
			}
			want("exec", docker(t, "exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", name, "sh", "-c", "id -u; pwd; echo $A"), "1000\n/tmp\nb")
			want("stats", docker(t, "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", name), name+" ")
			if !boxed {
				want("top", docker(t, "top", name), "httpd")
			}
			docker(t, "pause", name)
			want("pause", docker(t, "inspect", "-f", "{{.State.Status}}", name), "paused")
			docker(t, "unpause", name)
			docker(t, "update", "-m", "96m", "--memory-swap", "-1", name)
			limited(t, pid(t, d, name), 96<<20)
			docker(t, "restart", "-t", "0", name)
			if !boxed {
				want("published again", fetch(t, docker(t, "port", name, "8080/tcp")), "hello")
			}
			docker(t, "rm", "-f", name)
			want("run", docker(t, "run", "--rm", "--runtime", runtime, "busybox", "echo", "said"), "said")
			if _, errs, code := testenv.Output(t, d.Command(t, "docker", "run", "--rm", "--runtime", runtime, "busybox", "nosuch")); code != 127 {
				t.Errorf("a program that is not there: exit %d, %s", code, errs)
			}
			if _, errs, code := testenv.Output(t, d.Command(t, "docker", "run", "--rm", "--runtime", runtime, "busybox", "/etc/passwd")); code != 126 && !boxed {
				t.Errorf("a file that is no program: exit %d, %s", code, errs)
			}
		})
	}
}

// fetch reads the first page of a server that is about to listen.
func fetch(t *testing.T, address string) string {
	t.Helper()
	var body []byte
	until(t, "the server at "+address+" answers", func() bool {
		r, err := http.Get("http://" + address + "/index.html")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, err = io.ReadAll(r.Body)
		return err == nil
	})
	return string(body)
}
