package launch

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch/launchtest"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

var update = flag.Bool("update", false, "write the golden plans anew")

func compiler() *Compiler {
	return &Compiler{Filter: launchtest.Filter, Key: launchtest.Key}
}

// noUserns makes a spec one for the host's user and network namespace.
func noUserns(s *specs.Spec) {
	s.Linux.Namespaces = launchtest.Namespaces(specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace)
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
}

func user(s *specs.Spec) {
	s.Process.User = specs.User{UID: 1000, GID: 100, AdditionalGids: []uint32{5, 100}}
	s.Process.Capabilities.Ambient = []string{"CAP_NET_RAW", "CAP_KILL"} // the second is not inheritable
	s.Process.Capabilities.Inheritable = []string{"CAP_NET_RAW"}
	s.Process.NoNewPrivileges = false
	s.Process.Cwd = "/home/user"
}

func withMounts(s *specs.Spec) {
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data/dir", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "ro"}},
		specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/run/hosts", Options: []string{"rbind", "rslave"}},
		specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "nosuid", "nodev", "size=64k"}})
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmni": "9"}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}}
}

// joinAll makes a spec join all namespaces but the mount namespace, the user
// namespace first, which is entered last.
func joinAll(s *specs.Spec) {
	for i := range s.Linux.Namespaces {
		if n := &s.Linux.Namespaces[i]; n.Type != specs.MountNamespace {
			n.Path = "/proc/77/ns/" + string(n.Type)
		}
	}
}

// hostNamespaces leaves a spec a user and a mount namespace.
func hostNamespaces(s *specs.Spec) {
	s.Linux.Namespaces = launchtest.Namespaces(specs.UserNamespace, specs.MountNamespace)
	s.Mounts[0].Options = append(s.Mounts[0].Options, "hidepid=invisible")
}

func scheduled(a specs.Scheduler) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Scheduler = &a }
}

// timed gives a spec a time namespace with clocks of its own.
func timed(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 100, Nanosecs: 5}, "boottime": {Secs: -7}}
}

// ruled gives a process all that the parent or the kernel is told of it.
func ruled(s *specs.Spec) {
	timed(s)
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 5, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 3}
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "1"}
	s.Process.ApparmorProfile, s.Process.SelinuxLabel = "profile", "u:r:t:s0"
	s.Linux.MountLabel = "u:r:files:s0:c1,c2"
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
}

// TestPrepared: which mounts are handed over follows from the namespaces.
func TestPrepared(t *testing.T) {
	kinds := func(s *specs.Spec) (out string) {
		for i := range s.Mounts {
			if kind, ok := Prepared(s, i); ok {
				out += string(kind) + " " + string(kind.Namespace()) + ","
			}
		}
		return out
	}
	for _, c := range []struct {
		change func(*specs.Spec)
		want   string
	}{
		{func(*specs.Spec) {}, ""},
		{noUserns, ""},
		{joinAll, "proc pid,sysfs network,cgroup2 cgroup,mqueue ipc,"},
		{hostNamespaces, "proc pid,sysfs network,cgroup2 cgroup,mqueue ipc,"},
		{func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/ns/user" }, ""},
		{func(s *specs.Spec) { s.Linux.Namespaces[4].Path = "/ns/ipc" }, "mqueue ipc,"},
		{func(s *specs.Spec) { joinAll(s); s.Mounts[0].Options = []string{"rbind"} }, "sysfs network,cgroup2 cgroup,mqueue ipc,"},
		{func(s *specs.Spec) { s.Linux = nil }, ""},
	} {
		s := launchtest.Spec("true")
		if c.change(s); kinds(s) != c.want {
			t.Errorf("%s, want %s", kinds(s), c.want)
		}
	}
	if _, ok := Prepared(launchtest.Spec("true"), 99); ok {
		t.Error("a mount that is not there")
	}
}

// TestGolden compares the plans of every mode with their printed form, which a
// reviewer can read.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
		exec   bool
		opt    Options
	}{
		{name: "default", change: func(*specs.Spec) {}, opt: Options{ID: "id", Cgroup: true}},
		{name: "tty", change: func(s *specs.Spec) {
			s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 24, Width: 80}
		}},
		{name: "read-only", change: func(s *specs.Spec) { s.Root.Readonly = true }},
		{name: "host", change: noUserns},
		{name: "mounts", change: withMounts, opt: Options{ID: "id", Extra: []string{"/usr"}}},
		{name: "user", change: user},
		{name: "gate", change: func(*specs.Spec) {}, opt: Options{ID: "id", Gate: true, Trace: true}},
		{name: "joined-net", change: func(s *specs.Spec) { s.Linux.Namespaces[3].Path = "/run/netns/x" }},
		{name: "groups", change: func(*specs.Spec) {}, opt: Options{ID: "id", Cgroup: true, Groups: 2}},
		{name: "exec-groups", change: func(*specs.Spec) {}, exec: true, opt: Options{ID: "id", Cgroup: true, Groups: 1}},
		{name: "joined-all", change: joinAll, opt: Options{ID: "id", Cgroup: true}},
		{name: "host-namespaces", change: hostNamespaces},
		{name: "exec-joined", change: joinAll, exec: true},
		{name: "copy-up", change: func(s *specs.Spec) {
			s.Linux.RootfsPropagation = "unbindable"
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/var/lib", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro", "size=1m", "rshared"}})
		}, opt: Options{ID: "id", Assists: true}},
		{name: "hooks", change: func(s *specs.Spec) {
			timeout := 3
			s.Root.Path = "/bundle/rootfs"
			s.Linux.RootfsPropagation = "rslave"
			s.Hooks = &specs.Hooks{
				CreateContainer: []specs.Hook{{Path: "/bin/one", Args: []string{"one", "-x"}, Env: []string{"A=b"}, Timeout: &timeout}, {Path: "/bin/two"}},
				StartContainer:  []specs.Hook{{Path: "/sbin/ldconfig"}},
			}
		}, opt: Options{ID: "id", Gate: true, Assists: true}},
		{name: "listener", change: func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/x" }, opt: Options{ID: "id", Gate: true, Assists: true}},
		{name: "listener-privileges", change: func(s *specs.Spec) { user(s); s.Linux.Seccomp.ListenerPath = "/x" }, opt: Options{ID: "id", Assists: true}},
		{name: "ruled", change: ruled},
		{name: "ruled-joined", change: func(s *specs.Spec) { ruled(s); s.Linux.Namespaces[3].Path = "/run/netns/x" }},
		{name: "exec-ruled", change: ruled, exec: true},
		{name: "exec", change: func(*specs.Spec) {}, exec: true, opt: Options{ID: "id", Cgroup: true}},
		{name: "exec-tty", change: func(s *specs.Spec) { user(s); s.Process.Terminal = true }, exec: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := launchtest.Spec("sh", "-c", "true")
			c.change(s)
			var p plan.Plan
			var err error
			if c.exec {
				p, err = compiler().Exec(s.Process, s, c.opt)
			} else {
				p, err = compiler().Container(s, c.opt)
			}
			if err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, p.Listing())
			encoded, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plan.Decode(encoded); err != nil {
				t.Error(err)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a, b := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("%s differs from line %d on; -update writes it anew. Now:\n%s", file, i+1, got)
		}
	}
}

// TestPure: the same spec gives the same plan.
func TestPure(t *testing.T) {
	c := compiler()
	first := ""
	for range 5 {
		s := launchtest.Spec("true")
		withMounts(s)
		p, err := c.Container(s, Options{ID: "id"})
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = p.Listing()
		}
		if p.Listing() != first {
			t.Fatal("plans differ")
		}
	}
}

// TestRefusals: what cannot be carried out is refused when planning.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		class  fault.Class
	}{
		"no arguments": {func(s *specs.Spec) { s.Process.Args = nil }, fault.Invalid},
		"listener":     {func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/x" }, fault.Unsupported},
		"rdt":          {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"} }, fault.Unsupported},
		"vm":           {func(s *specs.Spec) { s.VM = &specs.VM{} }, fault.Unsupported},
		"limit twice": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NPROC"}, {Type: "RLIMIT_NPROC"}}
		}, fault.Invalid},
		"devices":        {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"x": {}} }, fault.Unsupported},
		"policy":         {scheduled(specs.Scheduler{Policy: "SCHED_X"}), fault.Invalid},
		"iso":            {scheduled(specs.Scheduler{Policy: specs.SchedISO}), fault.Unsupported},
		"nice":           {scheduled(specs.Scheduler{Policy: specs.SchedOther, Nice: 20}), fault.Invalid},
		"priority":       {scheduled(specs.Scheduler{Policy: specs.SchedBatch, Priority: 1}), fault.Invalid},
		"deadline":       {scheduled(specs.Scheduler{Policy: specs.SchedRR, Runtime: 1}), fault.Invalid},
		"scheduler flag": {scheduled(specs.Scheduler{Policy: specs.SchedRR, Flags: []specs.LinuxSchedulerFlag{"x"}}), fault.Invalid},
		"io class":       {func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "x"} }, fault.Invalid},
		"io priority": {func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, fault.Invalid},
		"cpus":        {func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "1-0"} }, fault.Invalid},
		"personality": {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "x"} }, fault.Invalid},
		"personality flag": {func(s *specs.Spec) {
			s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{"x"}}
		}, fault.Invalid},
		"memory mode":  {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "x"} }, fault.Invalid},
		"memory nodes": {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "a"} }, fault.Invalid},
		"memory flag": {func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{"x"}}
		}, fault.Invalid},
		"clocks, host time": {func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}} }, fault.Invalid},
		"clocks, joined": {func(s *specs.Spec) {
			timed(s)
			s.Linux.Namespaces[7].Path = "/x"
		}, fault.Invalid},
		"clock":                {func(s *specs.Spec) { timed(s); s.Linux.TimeOffsets["realtime"] = specs.LinuxTimeOffset{} }, fault.Invalid},
		"nanoseconds":          {func(s *specs.Spec) { timed(s); s.Linux.TimeOffsets["boottime"] = specs.LinuxTimeOffset{Nanosecs: 1e9} }, fault.Invalid},
		"maps, no user":        {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, fault.Invalid},
		"unmapped root":        {func(s *specs.Spec) { s.Linux.UIDMappings[0].ContainerID = 1 }, fault.Invalid},
		"unmapped user":        {func(s *specs.Spec) { s.Process.User.UID = 70000 }, fault.Invalid},
		"host sysctl":          {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, fault.Invalid},
		"sysctl upwards":       {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../vm/swappiness": "1"} }, fault.Invalid},
		"net sysctl, host net": {func(s *specs.Spec) { noUserns(s); s.Linux.Sysctl = map[string]string{"net.a": "1"} }, fault.Invalid},
		"joined, no maps":      {func(s *specs.Spec) { s.Linux.Namespaces[0].Path, s.Linux.UIDMappings = "/x", nil }, fault.Invalid},
		"joined, user sysctl":  {func(s *specs.Spec) { joinAll(s); s.Linux.Sysctl = map[string]string{"user.max_mnt_namespaces": "1"} }, fault.Invalid},
		"joined mount":         {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/x" }, fault.Unsupported},
		"joined twice": {func(s *specs.Spec) {
			joinAll(s)
			s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[3])
		}, fault.Invalid},
		"joined and new": {func(s *specs.Spec) {
			joinAll(s)
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network"})
		}, fault.Invalid},
		"option of joined":         {func(s *specs.Spec) { joinAll(s); s.Mounts[3].Options = []string{"x=y"} }, fault.Unsupported},
		"no mount namespace":       {func(s *specs.Spec) { s.Linux.Namespaces = launchtest.Namespaces(specs.PIDNamespace) }, fault.Invalid},
		"namespace twice":          {func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }, fault.Invalid},
		"mount over root":          {func(s *specs.Spec) { s.Mounts[0].Destination = "/a/.." }, fault.Invalid},
		"capability":               {func(s *specs.Spec) { s.Process.Capabilities.Bounding = []string{"CAP_X"} }, fault.Invalid},
		"limit":                    {func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, fault.Invalid},
		"device":                   {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, fault.Invalid},
		"tmpcopyup":                {func(s *specs.Spec) { s.Mounts[6].Options = []string{"tmpcopyup"} }, fault.Unsupported},
		"tmpcopyup on proc":        {func(s *specs.Spec) { s.Mounts[0].Options = []string{"tmpcopyup"} }, fault.Unsupported},
		"remount of nothing":       {func(s *specs.Spec) { s.Mounts[6].Options = []string{"remount", "ro"} }, fault.Invalid},
		"remount of a file system": {func(s *specs.Spec) { again(s, "remount", "size=1k") }, fault.Unsupported},
		"remount with an id map":   {func(s *specs.Spec) { again(s, "bind", "remount", "idmap") }, fault.Unsupported},
		"option of a bind":         {func(s *specs.Spec) { s.Mounts[6].Options = []string{"bind", "sync"} }, fault.Unsupported},
		"id map of a tmpfs":        {func(s *specs.Spec) { s.Mounts[6].Options = []string{"idmap"} }, fault.Unsupported},
		"propagation":              {func(s *specs.Spec) { s.Linux.RootfsPropagation = "odd" }, fault.Invalid},
		"hooks":                    {func(s *specs.Spec) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}} }, fault.Unsupported},
	} {
		s := launchtest.Spec("true")
		c.change(s)
		if _, err := compiler().Container(s, Options{}); !fault.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// again adds a remount of a spec's last mount.
func again(s *specs.Spec, options ...string) {
	last := s.Mounts[len(s.Mounts)-1]
	s.Mounts = append(s.Mounts, specs.Mount{Destination: last.Destination + "/.", Type: last.Type, Options: options})
}

// TestDevptsGroup: gid= is dropped when the group is not mapped.
func TestDevptsGroup(t *testing.T) {
	s := launchtest.Spec("true")
	s.Linux.GIDMappings[0].Size = 5
	p, err := compiler().Container(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(p.Listing(), `"gid"`) {
		t.Error("gid=5 was kept")
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct{ name, path, want string }{
		{"/x", "/bin", "/x"}, {"./x", "/bin", "./x"}, {"x", "/bin:/usr/bin/", "/bin/x /usr/bin/x"}, {"x", "", ""}, {"x", ":.:rel:/bin", "/bin/x"},
	} {
		p := &specs.Process{Args: []string{c.name}, Env: []string{"PATH=/no", "PATH=" + c.path}}
		if got := strings.Join(candidates(p), " "); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.name, c.path, got, c.want)
		}
	}
}
