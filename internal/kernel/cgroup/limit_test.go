package cgroup

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// value reads a file of a group where its controller is.
func value(t *testing.T, tr *Tree, name, fileV1, fileV2 string) string {
	t.Helper()
	controller, _, _ := strings.Cut(fileV1, ".")
	root, file := tr.fd(), fileV2
	if h, ok := tr.in(controller); ok {
		root, file = h.fd(), fileV1
	}
	got, err := read(root, tr.dir(name)+"/"+file)
	if err != nil {
		t.Errorf("%s: %v", file, err)
	}
	return got
}

func need(t *testing.T, tr *Tree, controllers ...string) {
	t.Helper()
	for _, c := range controllers {
		if tr.where(c) == nowhere {
			t.Skip("kernel: no cgroup controller " + c)
		}
	}
}

func in(t *testing.T, tr *Tree, name string) *os.File {
	t.Helper()
	dir, err := tr.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// TestLimit: limits are set, changed while a process is in the group, which they
// reach, and gone with the group.
func TestLimit(t *testing.T) {
	tr := tree(t)
	need(t, tr, "memory", "cpu", "pids", "cpuset")
	dir := in(t, tr, "l")
	cmd := within(t, dir)
	first := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: number(64 << 20), Reservation: number(32 << 20)}, Pids: &specs.LinuxPids{Limit: number(50)},
		CPU: &specs.LinuxCPU{Shares: unsigned(512), Quota: number(20000), Period: unsigned(50000), Cpus: "0", Mems: "0"},
	}
	if err := tr.Limit("l", first); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ v1, v2, wantV1, wantV2 string }{
		{"memory.limit_in_bytes", "memory.max", "67108864", "67108864"},
		{"memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432"},
		{"pids.max", "pids.max", "50", "50"},
		{"cpu.shares", "cpu.weight", "512", "59"},
		{"cpu.cfs_quota_us", "cpu.max", "20000", "20000 50000"},
		{"cpuset.cpus", "cpuset.cpus", "0", "0"},
	} {
		controller, _, _ := strings.Cut(c.v1, ".")
		want := c.wantV2
		if tr.where(controller) == inV1 {
			want = c.wantV1
		}
		if got := value(t, tr, "l", c.v1, c.v2); got != want {
			t.Errorf("%s is %q, want %q", c.v1, got, want)
		}
	}
	for _, controller := range []string{"memory", "pids"} {
		if h, ok := tr.in(controller); ok {
			procs, err := read(h.fd(), tr.dir("l")+"/cgroup.procs")
			if want := cmd.Process.Pid; err != nil || procs != strconv.Itoa(want) {
				t.Errorf("in %s: %q, %v, want %d", controller, procs, err, want)
			}
		}
	}
	up := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(128 << 20)}, CPU: &specs.LinuxCPU{Quota: number(-1)}}
	if err := tr.Limit("l", up); err != nil {
		t.Fatal(err)
	}
	if got := value(t, tr, "l", "memory.limit_in_bytes", "memory.max"); got != "134217728" {
		t.Errorf("after the second: %s", got)
	}
	cmd.Process.Kill()
	if err := tr.Remove("l"); err != nil {
		t.Fatal(err)
	}
	for _, root := range tr.roots() {
		if err := unix.Faccessat(root, tr.dir("l"), unix.F_OK, 0); err != unix.ENOENT {
			t.Errorf("a group is left: %v", err)
		}
	}
}

// TestLimitOrder: memory and swap are raised and lowered together in one go,
// though each bounds the other.
func TestLimitOrder(t *testing.T) {
	tr := tree(t)
	need(t, tr, "memory")
	in(t, tr, "o")
	for _, size := range []int64{64 << 20, 256 << 20, 16 << 20, -1, 32 << 20} {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(size), Swap: number(size)}}
		if err := tr.Limit("o", r); err != nil {
			if fault.Is(err, fault.Unsupported) {
				t.Skip("kernel: " + err.Error())
			}
			t.Fatalf("%d: %v", size, err)
		}
	}
}

// TestJoins: a process that writes 0 to them is in the v1 groups, and there are
// none where nothing is limited.
func TestJoins(t *testing.T) {
	tr := tree(t)
	need(t, tr, "memory", "pids")
	in(t, tr, "j")
	if files, err := tr.Joins("j"); err != nil || len(files) > 0 {
		t.Fatalf("without limits: %v, %v", files, err)
	}
	if err := tr.Limit("j", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(9)}}); err != nil {
		t.Fatal(err)
	}
	files, err := tr.Joins("j")
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	if tr.where("pids") == inV1 {
		want = 1
	}
	if len(files) != want {
		t.Errorf("%d files, want %d", len(files), want)
	}
	for _, f := range files {
		f.Close()
	}
}

func TestLimitRefusals(t *testing.T) {
	tr := tree(t)
	in(t, tr, "r")
	for _, c := range []struct {
		r     *specs.LinuxResources
		class fault.Class
	}{
		{&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "100000"}}, fault.Invalid},
		{&specs.LinuxResources{Unified: map[string]string{"nonsense.max": "1"}}, fault.Unsupported},
		{&specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}}}, fault.Unsupported},
	} {
		if err := tr.Limit("r", c.r); !fault.Is(err, c.class) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	if err := (&Tree{}).Limit("r", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(1)}}); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
}

// TestRooted: a name with a slash in front is a path of its own.
func TestRooted(t *testing.T) {
	tr := tree(t)
	name := "/" + tr.parent + "/deep/er/c"
	f, err := tr.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if tr.Path(name) != name {
		t.Errorf("path %s", tr.Path(name))
	}
	if err := tr.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := tr.Remove("deep"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"/", "//x", "/a/../b", "/a/"} {
		if _, err := tr.Create(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestDroppedMeanwhile: the directory of all groups was empty, and another daemon
// that ended has removed it.
func TestDroppedMeanwhile(t *testing.T) {
	tr := tree(t)
	need(t, tr, "memory")
	in(t, tr, "first")
	if err := tr.Remove("first"); err != nil {
		t.Fatal(err)
	}
	other, err := Open(tr.parent)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Drop(); err != nil {
		t.Fatal(err)
	}
	in(t, tr, "second")
	if err := tr.Limit("second", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(64 << 20)}}); err != nil {
		t.Error(err)
	}
}
