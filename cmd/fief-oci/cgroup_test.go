package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
)

// TestLimits: the limits of a config.json bite, also for what exec starts, and no
// group is left.
func TestLimits(t *testing.T) {
	tr, err := cgroup.Open("fief-oci")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if a := tr.Abilities(); !a.Memory || !a.Pids {
		t.Skip("kernel: no memory or pids controller")
	}
	b := newBench(t)
	memory, pids := int64(32<<20), int64(20)
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "sleep 100 & wait"}
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}}
	})
	b.ok("run", "--detach", "limited")
	b.expect(137, "", "exec", "limited", "sh", "-c", "exec /bin/busybox tail /dev/zero")
	out, code := b.run("exec", "limited", "sh", "-c", `trap 'kill $all' EXIT; for i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2; do sleep 1000 & all="$all $!"; done; echo all`)
	if !strings.Contains(out, "fork") {
		t.Errorf("22 processes where 20 may be: %d %s", code, out)
	}
	kills, err := tr.OOMKills(b.group("limited"))
	if err != nil || kills != 1 {
		t.Errorf("%d kills, %v", kills, err)
	}
	file := b.dir + "/resources.json"
	if err := os.WriteFile(file, []byte(`{"pids":{"limit":200},"memory":{"limit":67108864}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok("update", "--resources", file, "limited")
	b.ok("exec", "limited", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2; do sleep 0.3 & done; wait")
	b.ok("pause", "limited")
	if s := b.status("limited"); s != paused {
		t.Errorf("paused, it is %s", s)
	}
	b.expect(1, "cannot exec in a paused container", "exec", "limited", "true")
	b.ok("resume", "limited")
	b.ok("exec", "limited", "test", "-d", "/")
	b.expect(1, "no resources", "update", "limited")
	b.ok("pause", "limited")
	b.expect(1, "cannot delete a container that is paused", "delete", "limited")
	b.ok("delete", "--force", "limited")
	for _, dir := range []string{"", "/memory", "/pids", "/unified"} {
		if _, err := os.Stat("/sys/fs/cgroup" + dir + "/fief-oci/" + b.group("limited")); err == nil {
			t.Errorf("/sys/fs/cgroup%s/fief-oci/%s is left", dir, b.group("limited"))
		}
	}
}

// TestDeviceGuard: without a user namespace container root may make the node of a
// disk, and not open it.
func TestDeviceGuard(t *testing.T) {
	tr, err := cgroup.Open("fief-oci")
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if tr.Mode() == cgroup.None || !tr.Abilities().Devices {
		t.Skip("kernel: no programs for devices")
	}
	tr.Drop()
	b := newBench(t)
	noUserns := func(s *specs.Spec) {
		s.Linux.Namespaces = s.Linux.Namespaces[1:]
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_MKNOD")
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
		s.Process.Args = []string{"sh", "-c", "/bin/busybox mknod /dev/x b 7 0; echo made; (: </dev/x) && echo opened; (: </dev/zero) && echo zero"}
	}
	b.config(noUserns)
	out, _ := b.run("run", "guarded")
	if !strings.Contains(out, "made") || !strings.Contains(out, "Operation not permitted") || strings.Contains(out, "opened") {
		t.Errorf("a loop device: %s", out)
	}
	major, minor := int64(7), int64(0)
	b.config(func(s *specs.Spec) {
		noUserns(s)
		s.Process.Args[2] = "/bin/busybox mknod /dev/x b 7 0; (: >/dev/x); (: </dev/zero) && echo zero"
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "b", Major: &major, Minor: &minor, Access: "r"}}}
	})
	if out, _ := b.run("run", "ruled"); !strings.Contains(out, "Operation not permitted") || !strings.Contains(out, "zero") {
		t.Errorf("a loop device that may be read, to write: %s", out)
	}
}

// TestDevicesList: where cgroup v1 has the devices, a named group lists its rules
// there too, with those of every container behind them.
func TestDevicesList(t *testing.T) {
	const v1 = "/sys/fs/cgroup/devices"
	if _, err := os.Stat(v1 + "/devices.list"); err != nil {
		t.Skip("kernel: no v1 hierarchy of devices")
	}
	b := newBench(t)
	name := "fief-oci-list-" + strconv.Itoa(os.Getpid())
	major, minor := int64(10), int64(229)
	b.config(func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Linux.CgroupsPath = "/" + name
		s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}}}
	})
	t.Cleanup(func() { b.run("delete", "--force", "listed") })
	b.ok("create", "listed")
	b.ok("start", "listed")
	text, err := os.ReadFile(filepath.Join(v1, name, "devices.list"))
	if err != nil || !strings.HasPrefix(string(text), "c 10:229 rwm\nc *:* m\nb *:* m\nc 1:3 rwm\n") {
		t.Errorf("%q, %v", text, err)
	}
	b.ok("delete", "--force", "listed")
	if _, err := os.Stat(filepath.Join(v1, name)); err == nil {
		t.Error("the group is left")
	}
}

func TestWithoutGroup(t *testing.T) {
	denied := fault.New(fault.Denied, "make cgroup", "x", "", "")
	plain := &specs.Spec{Linux: &specs.Linux{}}
	limit := int64(1)
	limited := &specs.Spec{Linux: &specs.Linux{Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}}}
	nodes := &specs.Spec{Linux: &specs.Linux{}, Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_MKNOD"}}}}
	for _, c := range []struct {
		s    *specs.Spec
		good bool
	}{{plain, true}, {limited, false}, {nodes, false}} {
		if err := (&container{}).without(c.s, denied); (err == nil) != c.good {
			t.Errorf("%+v: %v", c.s.Linux, err)
		}
	}
}
