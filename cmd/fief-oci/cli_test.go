package main

import (
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
)

// TestParse: options stand anywhere, but for a program's, which begins with the
// first other word; "--" ends them, and letters may stand together.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		args    string
		program bool
		want    string
	}{
		{"id --all KILL", false, "true  | id KILL"},
		{"--name x id -a", false, "true x | id"},
		{"--name=x -- -a id", false, "false x | -a id"},
		{"id -- -a", false, "false  | id -a"},
		{"-at id sh -a", true, "true  | id sh -a"},
		{"-t id -c", true, "false  | id -c"},
		{"", false, "false  | "},
	} {
		set := flag.NewFlagSet("x", flag.ContinueOnError)
		set.SetOutput(io.Discard)
		all, name := set.Bool("a", false, ""), set.String("name", "", "")
		set.BoolVar(all, "all", false, "")
		set.Bool("t", false, "")
		rest, err := parse(set, strings.Fields(c.args), c.program)
		got := map[bool]string{true: "true", false: "false"}[*all] + " " + *name + " | " + strings.Join(rest, " ")
		if err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.args, got, err, c.want)
		}
	}
}

// logged calls the program with a log file and returns the file.
func (b *bench) logged(format string, args ...string) string {
	b.t.Helper()
	file := filepath.Join(b.dir, "log."+format)
	os.Remove(file)
	b.run(append([]string{"--log=" + file, "--log-format", format}, args...)...)
	text, _ := os.ReadFile(file)
	return string(text)
}

// TestWordsOfRunc: what engines look for in errors, logs and exit codes.
func TestWordsOfRunc(t *testing.T) {
	b := newBench(t)
	var line struct {
		Level, Msg string
		Time       time.Time
	}
	if err := json.Unmarshal([]byte(b.logged("json", "state", "none")), &line); err != nil || line.Level != "error" ||
		!strings.Contains(line.Msg, "container does not exist") || time.Since(line.Time) > time.Hour {
		t.Errorf("%+v, %v", line, err)
	}
	if text := b.logged("text", "state", "none"); !regexp.MustCompile(`^time="[^"]+" level=error msg="[^\n]*does not exist"\n$`).MatchString(text) {
		t.Error(text)
	}
	if text := b.logged("json", "create", "--nosuch", "x"); !strings.Contains(text, "nosuch") {
		t.Errorf("an unknown option is not in the log: %s", text)
	}
	b.expect(1, `{"level":"error"`, "--log-format", "json", "state", "none")
	b.expect(1, "log format", "--log-format", "xml", "list")
	b.expect(0, "usage", "--help")
	b.expect(0, "--console-socket", "exec", "--help")
	b.expect(0, "fief-oci version", "-v")
	b.expect(0, "", "--rootless", "auto", "--rootless=false", "--criu", "/x", "--debug", "--cgroup-manager=cgroupfs", "list", "-q")
	b.expect(1, "rootless", "--rootless=perhaps", "list")
	b.expect(1, "cgroup manager", "--cgroup-manager=systemd", "list")
	b.expect(1, "not supported", "checkpoint", "--help")
	b.expect(1, "not supported", "checkpoint", "--image-path", "/x", "none")
	b.expect(1, "not supported", "restore", "--bundle", "/x", "none")
	b.expect(1, "does not exist", "kill", "none", "9")
	b.expect(1, "does not exist", "delete", "none")
	b.expect(0, "", "delete", "none", "--force")
	b.expect(1, "invalid format option", "list", "--format", "yaml")

	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Annotations = map[string]string{"a": "b"}
	})
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.ok("create", "-b", b.bundle, "--no-new-keyring", "--no-subreaper", "one")
	b.expect(1, "already exists", "create", "one")
	var s report
	if err := json.Unmarshal([]byte(b.ok("state", "one")), &s); err != nil || s.Rootfs != filepath.Join(b.bundle, "rootfs") || s.Status != "created" ||
		s.Annotations["a"] != "b" || time.Since(s.Created) > time.Hour || s.Version == "" || s.PID == 0 || s.Bundle != b.bundle {
		t.Errorf("%+v, %v", s, err)
	}
	var list []report
	if err := json.Unmarshal([]byte(b.ok("list", "-f", "json")), &list); err != nil || len(list) != 1 || list[0].Owner != "root" {
		t.Errorf("%+v, %v", list, err)
	}
	if out := b.ok("list"); !regexp.MustCompile(`(?s)^ID +PID +STATUS +BUNDLE +CREATED +OWNER\none +\d+ +created +/.* +root\n$`).MatchString(out) {
		t.Error(out)
	}
	b.ok("start", "one")
	var pids []int
	if err := json.Unmarshal([]byte(b.ok("ps", "--format", "json", "one")), &pids); err != nil || !slices.Equal(pids, []int{s.PID}) {
		t.Errorf("%v, %v", pids, err)
	}
	if _, err := exec.LookPath("ps"); err == nil {
		b.expect(0, "sleep 1000", "ps", "one")
		b.expect(0, "sleep", "ps", "one", "-eo", "pid,comm")
		b.expect(1, "no column PID", "ps", "one", "-o", "comm")
	}
	b.ok("kill", "one", "SIGKILL", "--all")
	for end := time.Now().Add(time.Minute); b.status("one") != specs.StateStopped && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	b.expect(1, "container not running", "kill", "one", "9")
	b.ok("kill", "--all", "one", "9")
}

// group is the name of a container's group that has named none.
func (b *bench) group(id string) string {
	return (&container{ID: id, dir: filepath.Join(b.dir, "state", id)}).ownGroup()
}

// TestPassedDescriptors: so many as the caller says, and the sockets that systemd
// has given, are the program's, and no other.
func TestPassedDescriptors(t *testing.T) {
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	const look = `for f in 3 4 5 6 7; do (: <&$f) 2>/dev/null && read -r a <&$f && echo $f $a; done; echo $LISTEN_FDS $LISTEN_PID`
	call := func(before string, args ...string) string {
		t.Helper()
		for _, name := range []string{"three", "four", "five"} {
			if err := os.WriteFile(filepath.Join(b.dir, name), []byte(name+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		line := before + ` exec "$@" 3<` + b.dir + "/three 4<" + b.dir + "/four 5<" + b.dir + "/five"
		cmd := exec.Command("bash", append([]string{"-c", line, "sh", b.program, "--root", filepath.Join(b.dir, "state")}, args...)...)
		cmd.Dir = b.bundle
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", look} })
	for _, c := range [][3]string{{"", "0", ""}, {"", "2", "3 three 4 four"}, {"export LISTEN_FDS=1 LISTEN_PID=$$;", "2", "3 three 4 four 5 five 1 1"}, {"export LISTEN_FDS=1 LISTEN_PID=1;", "1", "3 three"}} {
		if got := call(c[0], "run", "--preserve-fds", c[1], "one"); got != c[2] {
			t.Errorf("%s --preserve-fds %s: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	b.ok("run", "-d", "one")
	if got := call("", "exec", "--preserve-fds=1", "one", "sh", "-c", look); got != "3 three" {
		t.Error(got)
	}
	b.expect(1, "preserve descriptor 3", "exec", "--preserve-fds", "1", "one", "true")
	b.expect(1, "not between", "exec", "--preserve-fds", "100000", "one", "true")
	hook := func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", look}
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "! (: <&3) 2>/dev/null"}}}}
	}
	b.config(hook)
	if got := call("", "run", "--preserve-fds", "1", "two"); got != "3 three" {
		t.Errorf("with a hook of the start, which must not have it: %q", got)
	}
	unmap := b.hostUser(false)
	b.config(func(s *specs.Spec) { // for which fief-oci runs itself anew
		unmap(s)
		s.Process.Args = []string{"sh", "-c", look}
	})
	if got := call("export LISTEN_FDS=1 LISTEN_PID=$$;", "run", "--preserve-fds", "1", "three"); got != "3 three 4 four 1 1" {
		t.Errorf("without a user namespace: %q", got)
	}
}

// TestPidfdSocket: the pidfd of what was started arrives at the socket.
func TestPidfdSocket(t *testing.T) {
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	socket := filepath.Join(b.dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	receive := func() int {
		t.Helper()
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
			t.Fatal(messages, err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			t.Fatal(fds, err)
		}
		return fds[0]
	}
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	b.ok("create", "--pidfd-socket", socket, "one")
	first := receive()
	defer unix.Close(first)
	b.ok("start", "one")
	b.ok("exec", "-d", "--pidfd-socket", socket, "one", "sleep", "1000")
	second := receive()
	defer unix.Close(second)
	for _, fd := range []int{second, first} {
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 || err != nil {
			t.Error("it goes on", err)
		}
	}
}

// TestExecOptions: groups, working directory, environment and a cgroup below the
// container's.
func TestExecOptions(t *testing.T) {
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	b.ok("run", "--detach", "one")
	b.expect(0, "groups=7,8\n", "exec", "-u", "5:6", "-g", "7", "--additional-gids", "8", "one", "id")
	b.expect(0, "/bin b\n", "exec", "--cwd=/bin", "-e", "A=b", "one", "sh", "-c", "echo $PWD $A")
	b.expect(0, "0000000000000200", "exec", "--no-new-privs", "-c", "CAP_SYS_PTRACE", "one", "sh", "-c", "grep CapBnd /proc/self/status | (read a b; printf %x-%s $((0x$b>>19&1)) 0000000000000200)")
	b.expect(1, "leaves the container's", "exec", "--cgroup", "../x", "one", "true")
	b.expect(1, "single controllers", "exec", "--cgroup", "memory:x", "one", "true")
	tr, err := cgroup.Open(ownGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if tr.Mode() == cgroup.None {
		return
	}
	b.expect(1, "no such file", "exec", "--cgroup", "sub", "one", "true")
	sub := "/" + ownGroups + "/" + b.group("one") + "/sub"
	if tr.Mode() == cgroup.Unified { // Create would give controllers to a group with processes: cgroups(7), "domain invalid"
		err = os.Mkdir("/sys/fs/cgroup"+sub, 0o755)
	} else if dir, e := tr.Create(sub); e != nil {
		err = e
	} else {
		dir.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	b.expect(0, "/sub\n", "exec", "--cgroup", "/sub", "one", "sh", "-c", "grep ^0:: /proc/self/cgroup")
	b.ok("pause", "one")
	b.expect(1, "cannot exec in a paused container", "exec", "one", "true")
	waiting := exec.Command(b.program, "--root", filepath.Join(b.dir, "state"), "exec", "--ignore-paused", "one", "test", "-d", "/")
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	b.ok("resume", "one") // before or after it has stood still
	if err := waiting.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSharedPIDs: in a pid namespace that it has not made, a container is its
// group: nobody else is listed or killed, and nothing of it is left.
func TestSharedPIDs(t *testing.T) {
	tr, err := cgroup.Open(ownGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if tr.Mode() == cgroup.None {
		t.Skip("kernel: no cgroup v2 hierarchy")
	}
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one"); b.run("delete", "--force", "two") })
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	b.ok("run", "-d", "one")
	var first report
	if err := json.Unmarshal([]byte(b.ok("state", "one")), &first); err != nil {
		t.Fatal(err)
	}
	share := func(script string) {
		b.config(func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", script}
			for i := range s.Linux.Namespaces {
				for kind, file := range map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.UserNamespace: "user"} {
					if s.Linux.Namespaces[i].Type == kind {
						s.Linux.Namespaces[i].Path = "/proc/" + itoa(first.PID) + "/ns/" + file
					}
				}
			}
		})
	}
	for _, c := range []struct {
		script string
		kill   []string
	}{{"sleep 1000 & wait", []string{"kill", "--all", "two", "KILL"}}, {"sleep 1000 & wait", []string{"kill", "two", "KILL"}}, {"sleep 1000 & exit", nil}} {
		share(c.script)
		b.ok("run", "-d", "two")
		for end := time.Now().Add(time.Minute); c.kill == nil && b.status("two") != specs.StateStopped && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		var pids []int
		if err := json.Unmarshal([]byte(b.ok("ps", "--format=json", "two")), &pids); err != nil || slices.Contains(pids, first.PID) {
			t.Errorf("%v, %v", pids, err)
		}
		if c.kill != nil {
			b.ok(c.kill...)
		}
		b.ok("delete", "--force", "two")
		for _, pid := range pids {
			if _, zombie, there := processTime(pid); there && !zombie {
				t.Errorf("%s: process %d is left", c.script, pid)
			}
		}
		if s := b.status("one"); s != specs.StateRunning {
			t.Fatalf("the other one is %s", s)
		}
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// TestForeignGroup: a group with processes is not taken, and they live on.
func TestForeignGroup(t *testing.T) {
	tr, err := cgroup.Open(ownGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if tr.Mode() == cgroup.None {
		t.Skip("kernel: no cgroup v2 hierarchy")
	}
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	ice := "/" + ownGroups + "/" + b.group("ice")
	if dir, err := tr.Create(ice); err != nil || dir.Close() != nil || tr.Freeze(t.Context(), ice) != nil {
		t.Fatal("cannot freeze a group: ", err)
	}
	defer func() { tr.Thaw(ice); tr.Remove(ice) }()
	b.config(func(s *specs.Spec) { s.Linux.CgroupsPath = ice })
	b.expect(1, "cgroup unexpectedly frozen", "run", "two")
	named := func(s *specs.Spec) {
		s.Process.Args, s.Linux.CgroupsPath = []string{"sleep", "1000"}, "/"+ownGroups+"/"+b.group("named")
	}
	b.config(named)
	b.ok("run", "-d", "one")
	b.expect(1, "cgroup is not empty", "run", "two")
	if s := b.status("one"); s != specs.StateRunning {
		t.Error(s)
	}
	var state report
	if err := json.Unmarshal([]byte(b.ok("state", "one")), &state); err != nil {
		t.Fatal(err)
	}
	groups, err := os.ReadFile("/proc/" + itoa(state.PID) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(groups)) {
		if !strings.Contains(l, ":name=") && !strings.HasSuffix(l, b.group("named")+"\n") {
			t.Errorf("a named group is not in every hierarchy: %s", l)
		}
	}
	b.ok("delete", "-f", "one")
}

// TestGroupless: a container may stay in its caller's group, without limits.
func TestGroupless(t *testing.T) {
	b := newBench(t)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"cat", "/proc/self/cgroup"}
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	})
	if out := b.ok("--cgroup-manager", "disabled", "run", "one"); out != string(own) {
		t.Errorf("%s\nwant %s", out, own)
	}
	limit := int64(5)
	b.config(func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}} })
	b.expect(1, "no cgroup", "--cgroup-manager=disabled", "run", "one")
}

// TestEvents: statistics in runc's form, and an event for a process killed for
// lack of memory; limits are set by runc's single options.
func TestEvents(t *testing.T) {
	tr, err := cgroup.Open(ownGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if a := tr.Abilities(); !a.Memory || !a.Pids {
		t.Skip("kernel: no memory or pids controller")
	}
	b := newBench(t)
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	b.ok("run", "-d", "one")
	b.expect(1, "no resources", "update", "one")
	b.expect(1, "l3-cache-schema", "update", "--l3-cache-schema", "x", "one")
	b.expect(1, "memory", "update", "--memory", "much", "one")
	b.ok("update", "--memory", "32m", "--memory-swap=32m", "--pids-limit=33", "--cpu-share", "512", "--kernel-memory", "0", "one")
	var e struct {
		Type, ID string
		Data     struct {
			CPU    struct{ Usage struct{ Total uint64 } }
			Memory struct{ Usage struct{ Usage, Limit uint64 } }
			Pids   struct{ Current, Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(b.ok("events", "--stats", "one")), &e); err != nil || e.Type != "stats" || e.ID != "one" ||
		e.Data.Memory.Usage.Limit != 32<<20 || e.Data.Pids.Limit != 33 || e.Data.Pids.Current != 1 || e.Data.CPU.Usage.Total == 0 {
		t.Errorf("%+v, %v", e, err)
	}
	cmd := exec.Command(b.program, "--root", filepath.Join(b.dir, "state"), "events", "--interval=1s", "one")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	lines := json.NewDecoder(pipe)
	if err := lines.Decode(&e); err != nil || e.Type != "stats" { // it listens
		t.Fatalf("%+v, %v", e, err)
	}
	b.expect(137, "", "exec", "one", "sh", "-c", "exec /bin/busybox tail /dev/zero")
	for e.Type != "oom" {
		if err := lines.Decode(&e); err != nil {
			t.Fatalf("no event of a kill: %v", err)
		}
	}
	b.ok("kill", "one", "9")
	for err == nil { // it ends with the container
		err = lines.Decode(&e)
	}
	if err != io.EOF {
		t.Error(err)
	}
	b.expect(1, "it is stopped", "events", "--stats", "one")
}
