package main

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/systemd"
)

// scoped is a bench on a machine where systemd makes groups.
func scoped(t *testing.T) *bench {
	if !systemd.Running() {
		t.Skip("tool: systemd is not running")
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if tree.Mode() != cgroup.Unified {
		t.Skip("kernel: no host with cgroup v2 alone")
	}
	return newBench(t)
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// holds compares control files of a group with what they must have.
func holds(t *testing.T, when, dir string, want map[string]string) {
	t.Helper()
	for file, value := range want {
		b, err := os.ReadFile("/sys/fs/cgroup" + dir + "/" + file)
		if got := strings.TrimSpace(string(b)); err != nil || got != value {
			t.Errorf("%s: %s is %q, %v; want %q", when, file, got, err, value)
		}
	}
}

// TestScope: with --systemd-cgroup a container is in the scope and slice that
// cgroupsPath names, its limits bite and outlive a reload of systemd, also those of
// update, and neither a run nor a delete leaves a unit.
func TestScope(t *testing.T) {
	b := scoped(t)
	memory, pids, quota, shares := int64(32<<20), int64(20), int64(133333), uint64(512) // no less than the one processor: a third of an emulated one takes minutes
	limited := func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "sleep 1000 & wait"}
		s.Linux.CgroupsPath = "fieftest-a.slice:oci:limited"
		s.Annotations = map[string]string{"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids},
			CPU: &specs.LinuxCPU{Quota: &quota, Shares: &shares, Cpus: "0"}}
	}
	t.Cleanup(func() { exec.Command("systemctl", "stop", "oci-limited.scope", "fieftest.slice").Run() })
	b.config(limited)
	b.ok("--systemd-cgroup", "run", "--detach", "limited")
	const dir = "/fieftest.slice/fieftest-a.slice/oci-limited.scope"
	want := map[string]string{"memory.max": "33554432", "pids.max": "20", "cpu.max": "133333 100000", "cpuset.cpus": "0", "cpu.weight": strconv.FormatUint(cgroup.WeightOfShares(shares), 10)}
	holds(t, "at the start", dir, want)
	pidFile := b.dir + "/pid"
	b.ok("exec", "--detach", "--pid-file", pidFile, "limited", "sleep", "1000")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if group, err := os.ReadFile("/proc/" + string(pid) + "/cgroup"); err != nil || string(group) != "0::"+dir+"\n" {
		t.Errorf("a session is in %q, %v", group, err)
	}
	shown := systemctl(t, "show", "oci-limited.scope", "-p", "MemoryMax", "-p", "TasksMax", "-p", "Delegate", "-p", "Slice", "-p", "TimeoutStopUSec", "-p", "ActiveState")
	for _, line := range []string{"MemoryMax=33554432", "TasksMax=20", "Delegate=yes", "Slice=fieftest-a.slice", "TimeoutStopUSec=7s", "ActiveState=active"} {
		if !strings.Contains(shown, line) {
			t.Errorf("no %s in %s", line, shown)
		}
	}
	systemctl(t, "daemon-reload")
	want["cpu.max"] = "134000 100000" // what systemd can keep
	if now, err := os.ReadFile("/sys/fs/cgroup" + dir + "/cpu.max"); err == nil && strings.HasPrefix(string(now), "133333 ") {
		want["cpu.max"] = "133333 100000" // it had no reason to write it again
	}
	holds(t, "after a reload", dir, want)
	b.expect(137, "", "exec", "limited", "sh", "-c", "exec /bin/busybox tail /dev/zero")

	// Another container of that name is refused, and the first lives on.
	b.config(func(s *specs.Spec) { s.Linux.CgroupsPath = "fieftest-a.slice:oci:limited" })
	b.expect(1, "oci-limited.scope", "--systemd-cgroup", "run", "second")
	if s := b.status("limited"); s != specs.StateRunning {
		t.Errorf("it is %s", s)
	}

	file := b.dir + "/resources.json"
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":200},"memory":{"limit":67108864}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok("update", "--resources", file, "limited")
	systemctl(t, "daemon-reload")
	holds(t, "after an update", dir, map[string]string{"memory.max": "67108864", "pids.max": "200", "cpuset.cpus": "0"})
	b.ok("pause", "limited")
	if s := b.status("limited"); s != paused {
		t.Errorf("paused, it is %s", s)
	}
	b.ok("resume", "limited")
	b.ok("delete", "--force", "limited")
	b.gone("oci-limited.scope", dir)

	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"cat", "/proc/self/cgroup"}
		s.Linux.CgroupsPath = ""
	})
	b.ok("--systemd-cgroup", "run", "short")
	b.gone("fief-oci-short.scope", "/system.slice/fief-oci-short.scope")
}

// gone: neither unit nor group is left.
func (b *bench) gone(unit, dir string) {
	b.t.Helper()
	if got := systemctl(b.t, "show", unit, "-p", "ActiveState", "-p", "LoadState"); !strings.Contains(got, "LoadState=not-found") {
		b.t.Errorf("%s is left: %s", unit, got)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + dir); err == nil {
		b.t.Errorf("%s is left", dir)
	}
}

// TestScopeRefusals: what is no slice and scope is refused, and so is systemd's way
// where systemd has nothing to say.
func TestScopeRefusals(t *testing.T) {
	b := newBench(t)
	want := "of format"
	if tree, err := cgroup.Open(ownGroups); err != nil {
		t.Fatal(err)
	} else {
		if tree.Mode() != cgroup.Unified {
			want = "cgroup v2 alone"
		}
		tree.Close()
	}
	b.config(func(s *specs.Spec) { s.Linux.CgroupsPath = "/a/b" })
	b.expect(1, want, "--systemd-cgroup", "run", "x")
	b.config(func(s *specs.Spec) { s.Linux.CgroupsPath = "a.slice:b:c" })
	b.expect(1, "systemd slices", "run", "x")
}
