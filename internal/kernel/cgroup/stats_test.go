package cgroup

import (
	"os"
	"os/exec"
	"reflect"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// start runs a program in a group, in those of its v1 hierarchies too.
func start(t *testing.T, tr *Tree, name string, dir *os.File, args ...string) *exec.Cmd {
	t.Helper()
	joins, err := tr.Joins(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", append([]string{"-c", `for i in $(seq 3 $((2+$1))); do eval "echo 0 >&$i"; done; shift; exec "$@"`, "sh", strconv.Itoa(len(joins))}, args...)...)
	cmd.ExtraFiles = joins
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range joins {
		f.Close()
	}
	return cmd
}

// hog is start, and waits for the program.
func hog(t *testing.T, tr *Tree, name string, dir *os.File, args ...string) *os.ProcessState {
	t.Helper()
	cmd := start(t, tr, name, dir, args...)
	if err := cmd.Wait(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState
}

// spin runs a loop in a group until the kernel has held it back for 300 ms, and
// returns the statistics then. How long that takes says nothing: on a busy machine
// a loop seldom gets as much as a tenth of a processor, and is not held back then.
// But it must never have got more than the quota, a tenth; twice that, and 50 ms
// for the slices that processors have in hand (CFS bandwidth, sched-bwc.rst), are
// borne here, where a loop without a quota gets all of a processor.
func spin(t *testing.T, tr *Tree, name string, dir *os.File) record.Stats {
	t.Helper()
	before, err := tr.Stats(name)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	cmd := start(t, tr, name, dir, "sh", "-c", "while :; do :; done")
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for {
		time.Sleep(50 * time.Millisecond)
		s, err := tr.Stats(name)
		wall := time.Since(from)
		if err != nil {
			t.Fatal(err)
		}
		if used := time.Duration(s.CPU.Total - before.CPU.Total); used > wall/5+50*time.Millisecond {
			t.Errorf("it used %v of a processor in %v", used, wall)
			return s
		}
		if s.CPU.Throttled > before.CPU.Throttled && s.CPU.ThrottledTime-before.CPU.ThrottledTime >= uint64(300*time.Millisecond) {
			return s
		}
		if wall > 2*time.Minute {
			t.Errorf("never held back in %v: %+v, before %+v", wall, s.CPU, before.CPU)
			return s
		}
	}
}

// TestLimitsBite: what a limit forbids does not happen, and is counted.
func TestLimitsBite(t *testing.T) {
	tr := tree(t)
	need(t, tr, "memory", "pids", "cpu")
	dir := in(t, tr, "b")
	if n, err := tr.OOMKills("b"); n != 0 || err != nil {
		t.Errorf("before: %d, %v", n, err)
	}
	if err := tr.Limit("b", &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: number(16 << 20)}, Pids: &specs.LinuxPids{Limit: number(4)},
	}); err != nil {
		t.Fatal(err)
	}
	state := hog(t, tr, "b", dir, "sh", "-c", "head -c 200m /dev/zero | tail -n 1 >/dev/null; exit 3")
	if n, err := tr.OOMKills("b"); n < 1 || err != nil { // the shell as well, when what the hog had is not free yet
		t.Errorf("a hog of memory: %d kills, %v, %v", n, err, state)
	}
	state = hog(t, tr, "b", dir, "sh", "-c", `trap 'kill $all' EXIT; for i in 1 2 3 4 5; do sleep 1000 & all="$all $!"; done`)
	if state.Success() {
		t.Error("six processes where four may be")
	}
	// Only now: the hogs before it would take ten times as long.
	if err := tr.Limit("b", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: number(10000), Period: unsigned(100000)}}); err != nil {
		t.Fatal(err)
	}
	s := spin(t, tr, "b", dir)
	if s.CPU.Throttled == 0 || s.CPU.Total == 0 || s.CPU.User+s.CPU.System == 0 {
		t.Errorf("processor: %+v", s.CPU)
	}
	if s.Memory.Limit != 16<<20 || s.Memory.Failures == 0 || len(s.Memory.Details) == 0 || s.Pids.Limit != 4 {
		t.Errorf("memory %+v, pids %+v", s.Memory, s.Pids)
	}
	if s.SystemCPU == 0 || s.Online == 0 || s.Read.IsZero() {
		t.Errorf("machine: %+v", s)
	}
}

// TestStatsUnlimited: a group that no limit was put on is measured all the same.
func TestStatsUnlimited(t *testing.T) {
	tr := tree(t)
	dir := in(t, tr, "u")
	within(t, dir)
	s, err := tr.Stats("u")
	for end := time.Now().Add(time.Minute); err == nil && s.CPU.Total == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		s, err = tr.Stats("u")
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.Pids.Current != 1 || s.Pids.Limit != 0 || s.Memory.Usage == 0 || s.Memory.Limit != machineMemory() || s.CPU.Total == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := tr.Stats("absent"); !fault.Is(err, fault.NotFound) {
		t.Errorf("of none: %v", err)
	}
}

func TestStatText(t *testing.T) {
	want := []record.BlkioStat{{Major: 8, Minor: 16, Op: "read", Bytes: 1, Count: 3}, {Major: 8, Minor: 16, Op: "write", Bytes: 2, Count: 4}}
	if got := ioStat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0\nnonsense x\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("v2: %+v", got)
	}
	got := blkioStat("8:16 Read 1\n8:16 Write 2\n8:16 Sync 2\n8:16 Total 3\nTotal 3\n", "8:16 Read 3\n8:16 Write 4\n8:16 Total 7\nTotal 7\n")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("v1: %+v", got)
	}
}

func FuzzStatText(f *testing.F) {
	f.Add("8:16 rbytes=1 wbytes=2", "8:16 Read 1\n")
	f.Fuzz(func(_ *testing.T, a, b string) { ioStat(a); blkioStat(a, b) })
}

// TestAbilities: what is said to be there can be written.
func TestAbilities(t *testing.T) {
	tr := tree(t)
	a := tr.Abilities()
	if a.CPUs == 0 || a.Cpuset && (a.Cpus == "" || a.Mems == "") {
		t.Errorf("%+v", a)
	}
	in(t, tr, "a")
	for _, c := range []struct {
		can bool
		r   specs.LinuxResources
	}{
		{a.Memory, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(64 << 20)}}},
		{a.Swap, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(64 << 20), Swap: number(64 << 20)}}},
		{a.Pids, specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number(5)}}},
		{a.CPUShares, specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: unsigned(100)}}},
		{a.Cpuset, specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}}},
		{a.Swappiness, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: unsigned(10)}}},
	} {
		if err := tr.Limit("a", &c.r); (err == nil) != c.can {
			t.Errorf("%+v: can is %v, but %v", c.r, c.can, err)
		}
	}
}
