package runtime_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch/launchtest"
	"fief/internal/words/fault"
)

// field returns the value of a line "name: value".
func field(text, name string) string {
	for _, line := range strings.Split(text, "\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "missing"
}

// TestPosture compares what a container's process is with what it must be.
func TestPosture(t *testing.T) {
	b := newBox(t)
	out, _ := b.run(launchtest.Spec("cat", "/proc/self/status"))
	for name, want := range map[string]string{
		"Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0", "Groups": "", "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1",
		"SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "SigCgt": "0000000000000000",
		"CapInh": "0000000000000000", "CapPrm": "00000000a80425fb", "CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "CapAmb": "0000000000000000",
		"Umask": "0022", "Pid": "1", "PPid": "0", "Threads": "1",
	} {
		if got := field(out, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := field(out, "Cpus_allowed"); got != field(readFile(t, "/proc/1/status"), "Cpus_allowed") {
		t.Errorf("Cpus_allowed is %q", got)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestIgnoredSignals: what the starting process ignores is not ignored inside.
func TestIgnoredSignals(t *testing.T) {
	b := newBox(t)
	var ignore, old [4]uint64
	ignore[0] = 1 // SIG_IGN
	sigaction(t, unix.SIGHUP, &ignore, &old)
	defer sigaction(t, unix.SIGHUP, &old, nil)
	out, _ := b.run(launchtest.Spec("grep", "SigIgn", "/proc/self/status"))
	if got := field(out, "SigIgn"); got != "0000000000000000" {
		t.Errorf("SigIgn is %q", got)
	}
}

// TestPlace looks at the namespaces, maps, descriptors and names of a container.
func TestPlace(t *testing.T) {
	b := newBox(t)
	script := `
cat /proc/self/uid_map /proc/self/gid_map
for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done
hostname
pwd
ls /proc/self/fd | wc -l
ls /
ip link show lo | grep -c UP
`
	out, code := b.run(launchtest.Spec("sh", "-c", script))
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) < 15 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for i := range 2 {
		if want := fmt.Sprint(0, launchtest.Base, 65536); strings.Join(strings.Fields(lines[i]), " ") != want {
			t.Errorf("map is %q, want %q", lines[i], want)
		}
	}
	for i, n := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		host, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil || lines[2+i] == host || !strings.HasPrefix(lines[2+i], n+":[") {
			t.Errorf("%s namespace is %q, the host's is %q", n, lines[2+i], host)
		}
	}
	if lines[9] != "box" || lines[10] != "/" {
		t.Errorf("hostname %q, directory %q", lines[9], lines[10])
	}
	if lines[11] != "4" { // 0, 1, 2 and ls's own
		t.Errorf("%s descriptors, want 0, 1, 2 and the one of ls:\n%s", lines[11], out)
	}
	if strings.Contains(out, "work") || !strings.Contains(out, "busybox") && !strings.Contains(out, "bin\n") {
		t.Errorf("root directory is not the container's:\n%s", out)
	}
	if !strings.Contains(out, "\n1\n") {
		t.Errorf("lo is not up:\n%s", out)
	}
}

// TestPaths looks at masks, read-only paths, devices and links.
func TestPaths(t *testing.T) {
	b := newBox(t)
	script := `
test -c /proc/interrupts && echo interrupts-masked
test -z "$(cat /proc/keys)" && echo keys-masked
test -z "$(ls /proc/scsi /sys/firmware | grep -v :)" && echo directories-masked
echo x > /proc/sys/kernel/domainname || echo proc-sys-read-only
touch /proc/scsi/x || echo mask-read-only
echo b > /proc/sysrq-trigger || echo sysrq-read-only
touch /sys/x || echo sys-read-only
for n in null zero full random urandom tty; do test -c /dev/$n || echo no $n; done
echo hi > /dev/null && echo null-writable
for n in fd stdin stdout stderr core ptmx; do readlink /dev/$n; done
test -e /dev/pts/ptmx && echo pts
test -e /dev/mqueue && touch /dev/shm/x && echo shm
touch /made && echo root-writable
ls /sys/fs/cgroup | grep -c cgroup.procs
`
	out, _ := b.run(launchtest.Spec("sh", "-c", script+"\ncat /proc/self/mounts >/dev/stderr"))
	for _, want := range []string{"interrupts-masked", "keys-masked", "directories-masked", "proc-sys-read-only", "mask-read-only", "sysrq-read-only",
		"sys-read-only", "null-writable", "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n/proc/kcore\npts/ptmx", "pts\n", "shm\n", "root-writable"} {
		if !strings.Contains(out, want) {
			t.Errorf("missing %q", want)
		}
	}
	if strings.Contains(out, "no ") || t.Failed() {
		t.Error(out)
	}
}

// TestReadOnlyRoot: the root file system is read-only, mounts on it are not.
func TestReadOnlyRoot(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", "touch /x || echo refused; touch /dev/shm/x && pwd")
	s.Root.Readonly = true
	s.Process.Cwd = "/work/dir"
	out, _ := b.run(s)
	if !strings.Contains(out, "refused") || !strings.Contains(out, "/work/dir\n") {
		t.Error(out)
	}
}

// TestMounts: binds of directories and files onto missing and existing targets,
// through links that lead out of the root, and tmpfs.
func TestMounts(t *testing.T) {
	b := newBox(t)
	source := t.TempDir()
	if err := os.WriteFile(source+"/file", []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Symlink("/../../../escape", b.root+"/link")
	os.Symlink("/run/systemd/resolve/stub", b.root+"/etc/resolv.conf")
	s := launchtest.Spec("sh", "-c", "cat /a/b/c /etc/resolv.conf /d/e/file /link/x/file; touch /t/x && mount | grep ' /t '; cat /extra/file; test -L /etc/resolv.conf || echo replaced")
	bind := func(dest string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: "there", Options: []string{"rbind", "rprivate"}}
	}
	n := len(s.Mounts)
	s.Mounts = append(s.Mounts, bind("/a/b/c"), bind("/etc/resolv.conf"), bind("/d/e"), bind("/link/x"),
		specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "size=64k", "mode=1777"}})
	b.binds = map[string]string{"extra:/extra": source}
	for i, from := range []string{source + "/file", source + "/file", source, source} {
		b.binds[fmt.Sprint("mount:", n+i)] = from
	}
	b.opt.Extra = []string{"/extra"}
	out, code := b.run(s)
	if strings.Count(out, "content\n") != 5 || !strings.Contains(out, "tmpfs on /t ") || !strings.Contains(out, "size=64k") || !strings.Contains(out, "replaced") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if _, err := os.Lstat("/escape"); err == nil {
		t.Error("a directory was made outside the root")
	}
}

// TestUser: another user keeps only what its capability sets say, and may open
// the pipe that is its stdout.
func TestUser(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", "id; cat /proc/self/status; echo again > /dev/stdout")
	s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 1001}}
	s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
	s.Process.NoNewPrivileges = false
	out, code := b.run(s)
	if !strings.Contains(out, "uid=1000 gid=1001 groups=5,1001") || !strings.HasSuffix(out, "again\n") || code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for name, want := range map[string]string{"CapPrm": "0000000000000000", "CapBnd": "00000000a80425fb", "NoNewPrivs": "0", "Seccomp": "2"} {
		if got := field(out, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	s.Process.Capabilities.Permitted = []string{"CAP_NET_RAW"}
	s.Process.Capabilities.Effective, s.Process.Capabilities.Inheritable = s.Process.Capabilities.Permitted, s.Process.Capabilities.Permitted
	s.Process.Capabilities.Ambient = s.Process.Capabilities.Permitted
	out, _ = b.run(s)
	for _, name := range []string{"CapPrm", "CapEff", "CapInh", "CapAmb"} {
		if got := field(out, name); got != "0000000000002000" {
			t.Errorf("%s is %q", name, got)
		}
	}
}

// TestExecFailures: what a program that cannot be run is reported as.
func TestExecFailures(t *testing.T) {
	b := newBox(t)
	os.WriteFile(b.root+"/plain", []byte("x"), 0o644)
	os.WriteFile(b.root+"/bin/nothing", []byte("\x00\x01"), 0o755)
	os.WriteFile(b.root+"/loose", []byte("#!/no/such\n"), 0o755)
	for _, c := range []struct {
		program, text string
		code          int
	}{
		{"nosuch", `exec: "nosuch": executable file not found in $PATH`, 127},
		{"/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, 127},
		{"/plain/x", `exec: "/plain/x": stat /plain/x: not a directory`, 127},
		{"/loose", `exec: "/loose": stat /loose: no such file or directory`, 127},
		{"/plain", `exec: "/plain": permission denied`, 126},
		{"/etc", `exec: "/etc": permission denied`, 126},
		{"nothing", `exec: "nothing": exec format error`, 126},
	} {
		p, err := compiler().Container(launchtest.Spec(c.program), b.opt)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = b.start(&p)
		if err == nil || err.Error() != c.text || fault.ExitCodeOf(err) != c.code {
			t.Errorf("%s: %v, exit code %d", c.program, err, fault.ExitCodeOf(err))
		}
	}
}

// TestStepFailures: a step that fails is named with its system call.
func TestStepFailures(t *testing.T) {
	b := newBox(t)
	os.WriteFile(b.root+"/plain", nil, 0o644)
	for _, c := range []struct {
		change func(*specs.Spec)
		text   string
	}{
		{func(s *specs.Spec) { s.Mounts[1].Options = []string{"size=wrong"} }, "cannot mount tmpfs → /dev: fsconfig: invalid argument"},
		{func(s *specs.Spec) { s.Mounts[0].Destination = "/plain/x" }, "cannot mount proc → /plain/x: openat2: not a directory"},
		{func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.no.such": "1"} }, "cannot sysctl net.no.such=1: openat2: no such file or directory"},
		{func(s *specs.Spec) { s.Process.Cwd = "/plain" }, `chdir to cwd ("/plain") set in config.json failed: not a directory`},
		{func(s *specs.Spec) { s.Linux.UIDMappings[0].Size = 0 }, ""},
		{func(s *specs.Spec) {
			s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 0, Size: 5})
		}, "cannot map ids"},
	} {
		s := launchtest.Spec("true")
		c.change(s)
		p, err := compiler().Container(s, b.opt)
		if err != nil {
			if c.text != "" {
				t.Error(err)
			}
			continue
		}
		if _, _, err = b.start(&p); err == nil || !strings.HasPrefix(err.Error(), c.text) {
			t.Errorf("%v, want %s", err, c.text)
		}
	}
}

// TestSysctl: sysctls of the container's namespaces are set.
func TestSysctl(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("cat", "/proc/sys/net/ipv4/ping_group_range", "/proc/sys/kernel/shmmni")
	s.Linux.Sysctl = map[string]string{"net.ipv4.ping_group_range": "0 65535", "kernel.shmmni": "77"}
	if out, _ := b.run(s); out != "0\t65535\n77\n" {
		t.Errorf("%q", out)
	}
}

// TestLimits: resource limits and oom_score_adj reach the process, and Go's
// raised limit of open files does not.
func TestLimits(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", "ulimit -n; ulimit -c; cat /proc/self/oom_score_adj")
	score := 500
	s.Process.OOMScoreAdj = &score
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	if out, _ := b.run(s); out != "1024\n0\n500\n" {
		t.Errorf("%q", out)
	}
	s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200})
	if out, _ := b.run(s); !strings.HasPrefix(out, "100\n") {
		t.Errorf("%q", out)
	}
}

// TestNoUserns: without a user namespace devices are made, not bound.
func TestNoUserns(t *testing.T) {
	b := newBox(t)
	os.Lchown(b.root, 0, 0)
	s := launchtest.Spec("sh", "-c", "cat /proc/self/uid_map; grep -c ' /dev/null ' /proc/self/mounts; stat -c %a:%F /dev/null; test -c /proc/keys && echo masked; chmod 600 /proc/keys || echo refused")
	s.Linux.Namespaces = launchtest.Namespaces(specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace)
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
	s.Mounts[3] = specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}
	out, _ := b.run(s)
	if !strings.Contains(out, "refused") || !strings.Contains(out, "4294967295\n0\n666:character special file\nmasked\n") {
		t.Error(out)
	}
}
