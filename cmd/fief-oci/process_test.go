package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sees runs a script in a container of a changed config and compares its output,
// blanks made one, with want.
func (b *bench) sees(want, script string, change func(*specs.Spec)) {
	b.t.Helper()
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", script}
		change(s)
	})
	out, code := b.run("run", "one")
	if got := strings.Join(strings.Fields(out), " "); got != want || code != 0 {
		b.t.Errorf("%s: exit code %d: %s, want %s", script, code, got, want)
	}
}

// refuses runs a container of a changed config, which is refused for a reason.
func (b *bench) refuses(why string, change func(*specs.Spec)) {
	b.t.Helper()
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		change(s)
	})
	b.expect(1, why, "run", "one")
}

// TestProcess: what config.json says of the process is what it sees.
func TestProcess(t *testing.T) {
	b := newBench(t)
	const policy = "set -- $(cat /proc/self/stat); echo ${19} ${40} ${41}"
	b.sees("7 0 3", policy, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
	})
	b.sees("-5 0 0", policy, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: -5} })
	b.sees("0 0 5", policy, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle} })
	b.sees("0 5 1", policy, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 5}
	})
	b.sees("0 9 2", policy, func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedRR, Priority: 9} })
	b.sees("6", "while read a; do set -- $a; done < /proc/self/stat; echo ${41}", func(s *specs.Spec) { // a deadline process may not fork
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 5e6, Deadline: 1e7, Period: 2e7}
	})
	b.sees("realtime: prio 3", "ionice -p $$; :", func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 3}
	})
	b.sees("idle", "ionice -p $$; :", func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	})
	b.sees("0077 i686 500", "umask; uname -m; cat /proc/self/oom_score_adj", func(s *specs.Spec) {
		umask, oom := uint32(0o077), 500
		s.Process.User.Umask, s.Process.OOMScoreAdj = &umask, &oom
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})
	b.sees("uid=1000 gid=1000 groups=7,8", "id", func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7, 8}}
	})
	b.sees("prefer", "while read a p rest; do case $p in prefer*|bind*) echo $p; break;; esac; done < /proc/self/numa_maps | head -c 6", func(s *specs.Spec) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolPreferred, Nodes: "0"}
	})
	b.sees("bind", "while read a p rest; do case $p in prefer*|bind*) echo $p; break;; esac; done < /proc/self/numa_maps | head -c 4", func(s *specs.Spec) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	})
	b.sees("CapInh: 0000000000002000 CapPrm: 0000000000002000 CapEff: 0000000000002000 CapBnd: 0000000000002420 CapAmb: 0000000000002000 NoNewPrivs: 1",
		"grep -E '^(Cap|NoNew)' /proc/self/status", func(s *specs.Spec) {
			s.Process.User.UID = 5
			s.Process.Capabilities = &specs.LinuxCapabilities{
				Bounding: []string{"CAP_NET_RAW", "CAP_KILL", "CAP_NET_BIND_SERVICE"}, Permitted: []string{"CAP_NET_RAW", "CAP_NET_BIND_SERVICE"},
				Effective: []string{"CAP_NET_RAW"}, Inheritable: []string{"CAP_NET_RAW"}, Ambient: []string{"CAP_NET_RAW"}}
		})
	b.refuses("CAP_NOSUCH", func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_NOSUCH"} })
	b.refuses("RLIMIT_NOSUCH", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOSUCH"}} })
	b.refuses("SCHED_ISO", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedISO} })
	b.refuses("intelRdt", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{EnableMonitoring: true} })
}

// TestUngrantable: capabilities that the caller lacks are left out with a
// warning; names that no kernel has are refused.
func TestUngrantable(t *testing.T) {
	b := newBench(t)
	change := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.UIDMappings, s.Linux.GIDMappings = s.Linux.Namespaces[1:], nil, nil
			caps := []string{"CAP_KILL", name}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
			s.Process.Args = []string{"grep", "-E", "^Cap(Bnd|Prm|Eff)", "/proc/self/status"}
		}
	}
	program := b.program
	b.program = filepath.Join(b.dir, "lesser")
	script := "#!/bin/sh\nexec setpriv --bounding-set -sys_boot --inh-caps -sys_boot " + program + " \"$@\"\n"
	if err := os.WriteFile(b.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	b.config(change("CAP_SYS_BOOT"))
	out := strings.Join(strings.Fields(b.ok("run", "one")), " ")
	if !strings.Contains(out, "warning: the process goes without CAP_SYS_BOOT, which") ||
		!strings.HasSuffix(out, "CapPrm: 0000000000000020 CapEff: 0000000000000020 CapBnd: 0000000000000020") {
		t.Error(out)
	}
	b.config(change("CAP_NOSUCH"))
	b.expect(1, "CAP_NOSUCH", "run", "one")
}

// TestRlimits: every resource limit there is arrives.
func TestRlimits(t *testing.T) {
	b := newBench(t)
	names := map[string]string{"CPU": "cpu time", "FSIZE": "file size", "DATA": "data size", "STACK": "stack size", "CORE": "core file size", "RSS": "resident set", "NPROC": "processes",
		"NOFILE": "open files", "MEMLOCK": "locked memory", "AS": "address space", "LOCKS": "file locks", "SIGPENDING": "pending signals", "MSGQUEUE": "msgqueue size", "NICE": "nice priority",
		"RTPRIO": "realtime priority", "RTTIME": "realtime timeout"}
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"cat", "/proc/self/limits"}
		s.Process.Rlimits = nil
		for name := range names {
			r := specs.POSIXRlimit{Type: "RLIMIT_" + name, Soft: 1 << 33, Hard: 1 << 34}
			switch name { // within what the caller has
			case "NOFILE": // fewer than making a container takes
				r.Soft, r.Hard = 5, 6
			case "NPROC", "SIGPENDING", "MSGQUEUE", "MEMLOCK", "CORE":
				r.Soft, r.Hard = 11, 1000
			case "NICE", "RTPRIO":
				r.Soft, r.Hard = 0, 0
			}
			s.Process.Rlimits = append(s.Process.Rlimits, r)
		}
	})
	lines := map[string][]string{}
	for _, line := range strings.Split(b.ok("run", "one"), "\n") {
		if i := strings.IndexAny(line, "0123456789"); i > 0 && strings.HasPrefix(line, "Max ") {
			lines[strings.TrimSpace(line[4:i])] = strings.Fields(line[i:])
		}
	}
	for name, words := range names {
		want := []string{"8589934592", "17179869184"}
		switch name {
		case "NOFILE":
			want = []string{"5", "6"}
		case "NPROC", "SIGPENDING", "MSGQUEUE", "MEMLOCK", "CORE":
			want = []string{"11", "1000"}
		case "NICE", "RTPRIO":
			want = []string{"0", "0"}
		}
		if got := lines[words]; len(got) < 2 || !slices.Equal(got[:2], want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestExecAffinity: the CPUs of exec's process are not the first process's.
func TestExecAffinity(t *testing.T) {
	b := newBench(t)
	const look = "while read k v; do case $k in Cpus_allowed_list:) echo $v;; esac; done < /proc/self/status"
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", look + " > /dev/shm/cpus; exec sleep 1000"}
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0"}
	})
	b.ok("create", "one")
	b.ok("start", "one")
	if out := b.ok("exec", "one", "sh", "-c", look+"; until test -s /dev/shm/cpus; do :; done; cat /dev/shm/cpus"); !strings.HasPrefix(out, "0\n") || out == "0\n0\n" {
		t.Errorf("initial: %q", out)
	}
	process := filepath.Join(b.dir, "process.json")
	text, _ := json.Marshal(specs.Process{Args: []string{"/bin/sh", "-c", look}, Cwd: "/", ExecCPUAffinity: &specs.CPUAffinity{Initial: "0", Final: "1"}})
	if err := os.WriteFile(process, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := b.ok("exec", "--process", process, "one"); out != "1\n" {
		t.Errorf("final: %q", out)
	}
}

// TestClocks: a time namespace of the container's own, with other clocks, which
// exec enters and another container can join.
func TestClocks(t *testing.T) {
	b := newBench(t)
	const look = "cat /proc/self/timens_offsets; test $(head -c 6 /proc/uptime) -gt 400000 && echo later; readlink /proc/self/ns/time"
	timed := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	}
	offset := func(s *specs.Spec) {
		timed(s)
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 86400, Nanosecs: 7}, "boottime": {Secs: 500000}}
	}
	own, err := os.Readlink("/proc/self/ns/time")
	if err != nil {
		t.Skip("kernel: no time namespaces")
	}
	var pids string
	for i, change := range []func(*specs.Spec){offset,
		func(s *specs.Spec) {
			offset(s)
			s.Linux.Namespaces[3].Path = "/proc/self/ns/net"
			s.Mounts = s.Mounts[:4]
		}} {
		b.config(func(s *specs.Spec) { change(s); s.Process.Args = []string{"sleep", "1000"} })
		id := "one"[:i+1]
		t.Cleanup(func() { b.run("delete", "--force", id) })
		b.ok("create", "--pid-file", filepath.Join(b.dir, "pid"), id)
		b.ok("start", id)
		out := b.ok("exec", id, "sh", "-c", look)
		if got := strings.Fields(out); len(got) != 8 || strings.Join(got[:7], " ") != "monotonic 86400 7 boottime 500000 0 later" || got[7] == own {
			t.Errorf("%v", got)
		}
		pid, _ := os.ReadFile(filepath.Join(b.dir, "pid"))
		pids = string(pid)
	}
	joined, err := os.Readlink("/proc/" + pids + "/ns/time")
	if err != nil {
		t.Fatal(err)
	}
	b.sees(joined, "readlink /proc/self/ns/time", func(s *specs.Spec) {
		timed(s)
		s.Linux.Namespaces[7].Path = "/proc/" + pids + "/ns/time"
	})
	b.sees("0 0", "while read a b c; do echo $b $c; break; done < /proc/self/timens_offsets", timed)
	b.refuses("no time namespace", func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} })
	b.refuses("numerical result out of range", func(s *specs.Spec) {
		offset(s)
		s.Linux.TimeOffsets["monotonic"] = specs.LinuxTimeOffset{Secs: -1 << 40}
	})
}

// TestLabels: without a security module, its labels are refused with the kernel's
// reason, for exec too; nothing runs unconfined.
func TestLabels(t *testing.T) {
	b := newBench(t)
	if lsm, err := os.ReadFile("/proc/self/attr/current"); err == nil && len(lsm) > 0 {
		t.Skip("kernel: a security module is enabled")
	}
	b.refuses("label AppArmor profile some", func(s *specs.Spec) { s.Process.ApparmorProfile = "some" })
	b.refuses("label SELinux label u:r:t:s0", func(s *specs.Spec) { s.Process.SelinuxLabel = "u:r:t:s0" })
	b.refuses("fsconfig: invalid argument", func(s *specs.Spec) { s.Linux.MountLabel = "u:r:t:s0" })
	b.sees("", ":", func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" })
	b.config(func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	t.Cleanup(func() { b.run("delete", "--force", "one") })
	b.ok("create", "one")
	process := filepath.Join(b.dir, "process.json")
	text, _ := json.Marshal(specs.Process{Args: []string{"/bin/sh", "-c", "echo it runs"}, Cwd: "/", ApparmorProfile: "some"})
	if err := os.WriteFile(process, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := b.run("exec", "--process", process, "one"); code != 1 || strings.Contains(out, "it runs") || !strings.Contains(out, "label AppArmor profile some") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestNetDevices: devices of the host are the container's, with their addresses,
// up, and under their new names; a name that is taken is refused.
func TestNetDevices(t *testing.T) {
	b := newBench(t)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("tool: ip")
	}
	devices := func(list map[string]string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
			for from, to := range list {
				s.Linux.NetDevices[from] = specs.LinuxNetDevice{Name: to}
			}
		}
	}
	pair := func() {
		t.Helper()
		ip("link", "add", "fiefa", "type", "veth", "peer", "name", "fiefb")
		ip("addr", "add", "10.77.1.1/24", "dev", "fiefa")
		ip("addr", "add", "fd77::1/64", "nodad", "dev", "fiefa")
		ip("addr", "add", "169.254.7.7/16", "scope", "link", "dev", "fiefa")
		ip("link", "set", "fiefa", "up")
		ip("link", "set", "fiefb", "up")
	}
	t.Cleanup(func() { exec.Command("ip", "link", "del", "fiefa").Run() })
	pair()
	b.sees("fiefb lo net0 10.77.1.1/24 fd77::1/64",
		"ls /sys/class/net; ip addr show dev net0 up | while read a b c; do case $a$b in inet*10.*|inet6fd*) echo $b;; inet*169*) echo $b;; esac; done",
		devices(map[string]string{"fiefa": "net0", "fiefb": ""}))
	pair()
	b.sees("net0 net1", "for i in /sys/class/net/net*; do echo ${i##*/}; done", devices(map[string]string{"fiefa": "net%d", "fiefb": "net%d"}))
	pair()
	b.refuses("the container already has a lo", devices(map[string]string{"fiefa": "lo"}))
	b.refuses("not a name", devices(map[string]string{"fiefa": "a/b"}))
	b.refuses("no such device", devices(map[string]string{"nosuch": ""}))
	ip("link", "show", "fiefa")
	b.refuses("no network namespace", func(s *specs.Spec) {
		devices(map[string]string{"fiefa": ""})(s)
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	})
}
