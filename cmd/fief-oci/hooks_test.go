package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func script(text string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", text, "hook"}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// openLog makes a file that every user may append to, and returns what reads it.
func (b *bench) openLog() (name string, read func() string) {
	b.t.Helper()
	name = filepath.Join(b.dir, "log")
	if err := os.WriteFile(name, nil, 0o666); err != nil {
		b.t.Fatal(err)
	}
	os.Chmod(name, 0o666)
	return name, func() string {
		text, err := os.ReadFile(name)
		if err != nil {
			b.t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
}

// TestHooks: all six run once, in order, in their namespaces, with the state of
// the moment, their arguments and environment and nothing else.
func TestHooks(t *testing.T) {
	b := newBench(t)
	log, read := b.openLog()
	states := filepath.Join(b.dir, "states")
	os.WriteFile(states, nil, 0o666)
	os.Chmod(states, 0o666)
	note := func(name string) []specs.Hook {
		h := script("cat >> " + states + "; echo >> " + states + "; echo " + name + " $0 $A $(readlink /proc/self/ns/net) $(ls /proc/self/fd | wc -l) >> " + log)
		h.Env = append(h.Env, "A="+name)
		return []specs.Hook{h}
	}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Hooks = &specs.Hooks{CreateRuntime: note("createRuntime"), CreateContainer: note("createContainer"), Poststart: note("poststart"), Poststop: note("poststop")}
		//lint:ignore SA1019 it still has to run
		s.Hooks.Prestart = note("prestart")
		in := script("cat > /dev/shm/state; echo $0 $A $PATH $(id -u) $(readlink /proc/self/ns/net) $(echo /proc/self/fd/*) > /dev/shm/hook")
		in.Env = []string{"PATH=/bin", "A=b c"}
		s.Hooks.StartContainer = []specs.Hook{in, script("test -s /dev/shm/hook && echo second >> /dev/shm/hook")}
		s.Process.User.UID = 7
		s.Annotations = map[string]string{"an": "annotation"}
	})
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	pidFile := filepath.Join(b.dir, "pid")
	b.ok("create", "--pid-file", pidFile, "one")
	pid, _ := os.ReadFile(pidFile)
	host, _ := os.Readlink("/proc/self/ns/net")
	own, err := os.Readlink("/proc/" + string(pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	want := "prestart hook prestart " + host + " 4 createRuntime hook createRuntime " + host + " 4 createContainer hook createContainer " + own + " 4"
	if got := read(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	b.ok("start", "one")
	if got := read(); got != want+" poststart hook poststart "+host+" 4" {
		t.Errorf("%s", got)
	}
	out := strings.Fields(b.ok("exec", "one", "cat", "/dev/shm/hook"))
	if strings.Join(out, " ") != "hook b c /bin 7 "+own+" /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3 second" {
		t.Errorf("%v", out)
	}
	inside := b.ok("exec", "one", "cat", "/dev/shm/state")
	b.ok("delete", "--force", "one")
	text, _ := os.ReadFile(states)
	statuses := []specs.ContainerState{"created", "created", "created", "running", "stopped"}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != len(statuses) {
		t.Fatalf("%q", lines)
	}
	for i, line := range append(lines, inside) {
		var s specs.State
		status, process := specs.ContainerState("created"), string(pid)
		if i < len(statuses) {
			status = statuses[i]
		}
		if status == "stopped" {
			process = "0"
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.ID != "one" || s.Bundle != b.bundle || s.Status != status ||
			strconv.Itoa(s.Pid) != process || s.Annotations["an"] != "annotation" || s.Version != specVersion {
			t.Errorf("%s hook: %s, %v", status, line, err)
		}
	}
}

// TestCreateContainerMounts: what a createContainer hook mounts in the root file
// system is in the container, nothing of it is on the host, and the mounts of the
// container survive that the host's tree goes.
func TestCreateContainerMounts(t *testing.T) {
	b := newBench(t)

	root := filepath.Join(b.bundle, "rootfs")
	if err := errors.Join(unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_SHARED, "")); err != nil { // as systemd makes all
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	for _, propagation := range []string{"", "rslave", "rshared"} {
		b.sees("hooked proc devpts 3 rw", "cat /mnt/file; for i in /proc /dev/pts; do while read a dir kind rest; do test $dir = $i && echo $kind; done < /proc/mounts; done; ls /dev/pts /dev/shm /dev/mqueue | grep -c :; touch /mnt/more && echo rw", func(s *specs.Spec) {
			s.Linux.RootfsPropagation = propagation
			s.Root.Readonly = false
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{script("set -e; test -e " + root + "/dev/null; test -d " + root + "/proc/1; mkdir -p " + root + "/mnt; mount -t tmpfs hook " + root + "/mnt; echo hooked > " + root + "/mnt/file")}}
		})
		if _, err := os.Stat(root + "/mnt/file"); err == nil {
			t.Error("the hook's mount is on the host")
		}
	}
}

// TestFailingHooks: a hook that fails, cannot be run or takes too long ends the
// container, with the reason, and poststop hooks follow.
func TestFailingHooks(t *testing.T) {
	b := newBench(t)
	log, read := b.openLog()
	one := 1
	slow := script("sleep 100")
	slow.Timeout = &one
	bad := map[string]specs.Hook{"not end with exit code 0": script("echo this is why >&2; exit 3"), "longer than its timeout": slow, "cannot be run": {Path: "/nosuch"}}
	stop := []specs.Hook{script("exit 9"), script("echo stopped >> " + log)}
	for why, hook := range bad {
		b.config(func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook, script("echo wrong >> " + log)}, Poststop: stop}
		})
		begun := time.Now()
		b.expect(1, why, "create", "one")
		if time.Since(begun) > 20*time.Second {
			t.Errorf("it took %s", time.Since(begun))
		}
		b.expect(1, "does not exist", "state", "one")
	}
	b.config(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{bad["not end with exit code 0"]}, Poststop: stop}
	})
	b.expect(1, "this is why", "create", "one")
	if got := read(); got != "stopped stopped stopped stopped" {
		t.Error(got)
	}
	for _, hook := range bad {
		b.config(func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "echo wrong"}
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{script("exit 0"), hook}, Poststop: stop}
		})
		b.ok("create", "one")
		if out, code := b.run("start", "one"); code != 1 || !strings.Contains(out, "a startContainer hook failed") || strings.Contains(out, "wrong") {
			t.Errorf("exit code %d: %s", code, out)
		}
		b.expect(1, "does not exist", "state", "one")
	}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}}, Poststop: stop}
	})
	b.ok("create", "one")
	b.expect(1, "poststart hook", "start", "one")
	b.expect(1, "does not exist", "state", "one")
	if got := strings.Count(read(), "stopped"); got != 8 || strings.Contains(read(), "wrong") {
		t.Error(read())
	}
}

// TestHooksUnderFilter: a profile that is loaded before the container's user is
// taken on, without no_new_privs, and refuses clone3 lets hooks run.
func TestHooksUnderFilter(t *testing.T) {
	b := newBench(t)
	errno := uint(38)
	b.sees("hooked", "cat /dev/shm/hook", func(s *specs.Spec) {
		s.Process.NoNewPrivileges = false
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{script("echo hooked > /dev/shm/hook")}}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
	})
}

// TestHooksEverywhere: hooks run in containers that join namespaces, that have no
// user namespace, and that have a terminal.
func TestHooksEverywhere(t *testing.T) {
	b := newBench(t)
	log, read := b.openLog()
	for name, change := range map[string]func(*specs.Spec){
		"joined": func(s *specs.Spec) {
			s.Linux.Namespaces[3].Path = "/proc/self/ns/net"
			s.Linux.Namespaces[5].Path = "/proc/self/ns/uts"
			s.Hostname = ""
		},
		"host ids": func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[1:], nil, nil
		},
		"privileges": func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
	} {
		os.Truncate(log, 0)
		one := 100
		b.sees("start", "cat /dev/shm/hook", func(s *specs.Spec) {
			change(s)
			create, start := script("echo create >> "+log), script("echo start > /dev/shm/hook")
			create.Timeout, start.Timeout = &one, &one
			s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{create, create}, StartContainer: []specs.Hook{start}}
		})
		if got := read(); got != "create create" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
