package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bench is a place to try the built program: a bundle and a state directory.
type bench struct {
	t                    *testing.T
	program, dir, bundle string
}

func newBench(t *testing.T) *bench {
	if os.Geteuid() != 0 {
		t.Skip("root: containers are started")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("tool: busybox-static")
	}
	b := &bench{t: t, dir: t.TempDir()}
	b.program, b.bundle = filepath.Join(b.dir, "fief-oci"), filepath.Join(b.dir, "bundle")
	b.build()
	root := filepath.Join(b.bundle, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/bin/busybox", busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "sleep", "tty", "cat", "ls", "readlink", "test", "ip", "uname", "id", "mount", "stat", "head", "hostname", "nproc", "ionice", "touch", "mkdir", "grep", "rm", "echo"} {
		os.Symlink("busybox", root+"/bin/"+n)
	}
	b.own(root)
	for p := b.dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755) // the container's ids pass through
	}
	b.ok("spec", "--bundle", b.bundle)
	return b
}

// build makes the program, or takes the one that FIEF_OCI names, where there is
// no Go.
func (b *bench) build() {
	if ready := os.Getenv("FIEF_OCI"); ready != "" {
		if err := os.Symlink(ready, b.program); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		b.t.Skip("tool: go")
	}
	build := exec.Command(tool, "build", "-o", b.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// own gives a tree to the containers' root.
func (b *bench) own(tree string) {
	b.t.Helper()
	err := filepath.WalkDir(tree, func(name string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, 524288, 524288))
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// config changes the bundle's config.json.
func (b *bench) config(change func(*specs.Spec)) {
	b.t.Helper()
	s := template()
	s.Process.Terminal = false
	change(s)
	data, err := json.Marshal(s)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.bundle, "config.json"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// run calls the program. Output goes to a file: a container that stays would
// keep a pipe open.
func (b *bench) run(args ...string) (string, int) {
	b.t.Helper()
	out, err := os.CreateTemp(b.dir, "out")
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(b.program, append([]string{"--root", filepath.Join(b.dir, "state")}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.bundle, out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func (b *bench) ok(args ...string) string {
	b.t.Helper()
	out, code := b.run(args...)
	if code != 0 {
		b.t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

func (b *bench) status(id string) specs.ContainerState {
	b.t.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(b.ok("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s.Status
}

func (b *bench) expect(code int, text string, args ...string) {
	b.t.Helper()
	if out, got := b.run(args...); got != code || !strings.Contains(out, text) {
		b.t.Errorf("%s: exit code %d, want %d with %q: %s", strings.Join(args, " "), got, code, text, out)
	}
}

// TestRun: run gives the container's output and exit code and leaves nothing.
func TestRun(t *testing.T) {
	b := newBench(t)
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", "cat /proc/self/uid_map; exit 7"} })
	b.expect(7, "524288", "run", "one")
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} })
	b.expect(127, `exec: "nosuch": executable file not found in $PATH`, "run", "one")
	if left, _ := os.ReadDir(filepath.Join(b.dir, "state")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestLife goes through the states of the OCI runtime spec.
func TestLife(t *testing.T) {
	b := newBench(t)
	log := filepath.Join(b.dir, "hooks")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >/dev/null; echo " + name + " >> " + log}}}
	}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop")}
	})
	t.Cleanup(func() { b.run("delete", "--force", "life") })
	b.ok("create", "--pid-file", filepath.Join(b.dir, "pid"), "life")
	if pid, _ := os.ReadFile(filepath.Join(b.dir, "pid")); len(pid) == 0 || b.status("life") != specs.StateCreated {
		t.Errorf("pid file %q, state %s", pid, b.status("life"))
	}
	b.expect(1, "already exists", "create", "life")
	b.ok("start", "life")
	if s := b.status("life"); s != specs.StateRunning {
		t.Error(s)
	}
	b.expect(1, "running state", "start", "life")
	b.expect(5, "2\n", "exec", "life", "sh", "-c", "echo $$; exit 5")
	b.expect(127, "not found in $PATH", "exec", "life", "nosuch")
	b.expect(1, "running", "delete", "life")
	b.expect(0, "life", "list", "-q")
	b.ok("kill", "life", "KILL")
	for end := time.Now().Add(time.Minute); b.status("life") != specs.StateStopped && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	b.expect(1, "not running", "kill", "life", "TERM")
	b.expect(1, "stopped", "exec", "life", "true")
	b.ok("delete", "life")
	b.expect(1, "does not exist", "state", "life")
	b.ok("delete", "--force", "life")
	if hooks, _ := os.ReadFile(log); string(hooks) != "createRuntime\npoststart\npoststop\n" {
		t.Errorf("hooks: %q", hooks)
	}
}

// TestNoProcess: a bundle without a process can be created, entered and deleted,
// and not started (config.md, process).
func TestNoProcess(t *testing.T) {
	b := newBench(t)
	var process *specs.Process
	b.config(func(s *specs.Spec) { process, s.Process = s.Process, nil })
	t.Cleanup(func() { b.run("delete", "--force", "none") })
	b.ok("create", "none")
	b.expect(1, "has no process", "start", "none")
	if s := b.status("none"); s != specs.StateCreated {
		t.Error(s)
	}
	b.expect(1, "no process to take after", "exec", "none", "ls")
	process.Args, process.Terminal = []string{"grep", "Cap", "/proc/1/status"}, false
	file := filepath.Join(b.dir, "process.json")
	text, err := json.Marshal(process)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := b.ok("exec", "--process", file, "none"); !strings.Contains(out, "CapPrm") {
		t.Error(out)
	}
	b.ok("delete", "--force", "none")
	b.expect(1, "has no process", "run", "none")
	if left, _ := os.ReadDir(filepath.Join(b.dir, "state")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestPoststartState: a poststart hook is told that the container runs, also when
// its program has ended by then.
func TestPoststartState(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.dir, "state.json")
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", ":"}
		wait := "while read a b c rest; do test $c = Z && break; done < /proc/$(grep -o '\"pid\":[0-9]*' " + file + " | cut -d: -f2)/stat"
		s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + file + "; i=0; until " + wait + " || test $i -gt 600; do i=$((i+1)); sleep 0.1; done"}},
			{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > " + file}}}}
	})
	b.ok("run", "one")
	text, err := os.ReadFile(file)
	var s specs.State
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil || s.Status != specs.StateRunning || s.Pid == 0 {
		t.Errorf("%s, %v", text, err)
	}
}

// TestRefusedHook: a hook that fails ends the create, and nothing is left.
func TestRefusedHook(t *testing.T) {
	b := newBench(t)
	b.config(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	})
	b.expect(1, "createRuntime hook", "create", "x")
	b.expect(1, "does not exist", "state", "x")
}

// TestJoin: a container joins all namespaces of another; the maps of the user
// namespace are found out, for exec too, and wrong ones are refused.
func TestJoin(t *testing.T) {
	b := newBench(t)
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	pidFile := filepath.Join(b.dir, "pid")
	t.Cleanup(func() { b.run("delete", "--force", "one"); b.run("delete", "--force", "two") })
	b.ok("create", "--pid-file", pidFile, "one")
	b.ok("start", "one")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	files := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.PIDNamespace: "pid", specs.NetworkNamespace: "net",
		specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup"}
	joinOne := func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if n := &s.Linux.Namespaces[i]; files[n.Type] != "" {
				n.Path = "/proc/" + string(pid) + "/ns/" + files[n.Type]
			}
		}
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	}
	look := "for n in user pid net ipc uts cgroup; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo other $n; done; cat /proc/1/comm /proc/self/uid_map; ls /sys/class/net"
	b.config(func(s *specs.Spec) { joinOne(s); s.Process.Args = []string{"sh", "-c", look} })
	if out := b.ok("run", "two"); strings.Join(strings.Fields(out), " ") != "sleep 0 524288 65536 lo" {
		t.Error(out)
	}
	b.config(func(s *specs.Spec) { joinOne(s); s.Process.Args = []string{"sleep", "1000"} })
	b.ok("create", "two")
	b.ok("start", "two")
	if out := b.ok("exec", "two", "sh", "-c", look); strings.Join(strings.Fields(out), " ") != "sleep 0 524288 65536 lo" {
		t.Error(out)
	}
	b.ok("delete", "--force", "two")
	b.config(func(s *specs.Spec) { joinOne(s); s.Hostname, s.Process.Args = "renamed", []string{"hostname"} })
	b.expect(0, "renamed", "run", "two")
	b.expect(0, "renamed", "exec", "one", "hostname")
	b.config(func(s *specs.Spec) {
		maps := s.Linux.UIDMappings
		joinOne(s)
		maps[0].HostID++
		s.Linux.UIDMappings = maps
	})
	b.expect(1, "are not its maps", "run", "two")
	for path, text := range map[string]string{"/proc/self/ns/user": "it is the host's", "/proc/self/ns/net": "not a user namespace", "/nosuch": "no such file"} {
		b.config(func(s *specs.Spec) { joinOne(s); s.Linux.Namespaces[0].Path = path })
		b.expect(1, text, "run", "two")
	}
}

// TestSysctlBoundProc: settings are made through the proc that is bound on /proc,
// where the container could make none: of a joined pid namespace that is another
// user namespace's. What is bound there and is no proc is not written to: a
// new one is asked of the kernel, which refuses where none is in sight.
func TestSysctlBoundProc(t *testing.T) {
	b := newBench(t)
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	pidFile := filepath.Join(b.dir, "pid")
	t.Cleanup(func() { b.run("delete", "--force", "donor") })
	b.ok("create", "--pid-file", pidFile, "donor")
	b.ok("start", "donor")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(b.dir, "false")
	if err := os.MkdirAll(dir+"/sys/net/ipv4", 0o755); err != nil {
		t.Fatal(err)
	}
	const file = "/sys/net/ipv4/ip_default_ttl"
	if err := os.WriteFile(dir+file, []byte("untouched"), 0o666); err != nil {
		t.Fatal(err)
	}
	setting := func(proc string, change func(*specs.Spec)) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "99"}
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
			for i := range s.Mounts {
				if s.Mounts[i].Destination == "/proc" {
					s.Mounts[i] = specs.Mount{Destination: "/proc", Type: "bind", Source: proc, Options: []string{"rbind"}}
				}
			}
			change(s)
		}
	}
	b.sees("99", "cat /proc"+file, setting("/proc", func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if n := &s.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
				n.Path = "/proc/" + string(pid) + "/ns/pid"
			}
		}
		s.Linux.UIDMappings[0].HostID, s.Linux.GIDMappings[0].HostID = 624288, 624288
		s.Root.Readonly = true
	}))
	b.refuses("cannot sysctl net.ipv4.ip_default_ttl=99", setting(dir, func(*specs.Spec) {}))
	if text, err := os.ReadFile(dir + file); err != nil || string(text) != "untouched" {
		t.Errorf("what is no proc was written to: %q, %v", text, err)
	}
}

// TestConsoleSocket: the terminal's master arrives at the socket.
func TestConsoleSocket(t *testing.T) {
	b := newBench(t)
	b.config(func(s *specs.Spec) {
		s.Process.Terminal, s.Process.Args, s.Process.ConsoleSize = true, []string{"tty"}, &specs.Box{Height: 33, Width: 77}
	})
	b.expect(1, "console-socket", "create", "x")
	socket := filepath.Join(b.dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Cleanup(func() { b.run("delete", "--force", "x") })
	b.ok("create", "--console-socket", socket, "x")
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	oob := make([]byte, 64)
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(err, messages)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	if size, err := unix.IoctlGetWinsize(fds[0], unix.TIOCGWINSZ); err != nil || size.Row != 33 || size.Col != 77 {
		t.Errorf("%+v, %v", size, err)
	}
	b.ok("start", "x")
	text := make([]byte, 64)
	count, _ := master.Read(text)
	if !bytes.HasPrefix(text[:count], []byte("/dev/pts/0")) {
		t.Errorf("%q", text[:count])
	}
}

// TestRefusals: what cannot be isolated as asked is refused.
func TestRefusals(t *testing.T) {
	b := newBench(t)
	b.expect(1, "not valid", "state", "../x")
	b.expect(1, "no-pivot", "run", "--no-pivot", "x")
	b.config(func(s *specs.Spec) {
		shares := int64(1 << 30)
		s.Linux.CgroupsPath = "system.slice:fief:x"
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &shares}}
	})
	b.expect(1, "systemd slices", "run", "x")
}

func TestValidID(t *testing.T) {
	for id, good := range map[string]bool{"a": true, "a.b-c_d+e": true, "": false, ".": false, "..": false, ".a": false, "a/b": false, "a b": false, "é": false} {
		if (validID(id) == nil) != good {
			t.Errorf("%q: %v", id, validID(id))
		}
	}
}
