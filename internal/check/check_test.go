package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/probe"
	"fief/internal/snapshot"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

func find(t *testing.T, checks []record.Check, name string) record.Check {
	t.Helper()
	for _, c := range checks {
		if strings.HasPrefix(c.Name, name) {
			return c
		}
	}
	t.Fatalf("no check %q", name)
	return record.Check{}
}

// left is what a trial could leave behind.
func left(t *testing.T, dir string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	tree, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/fief-check-*")
	hybrid, _ := filepath.Glob("/sys/fs/cgroup/unified/fief-check-*")
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{string(mounts), strings.Join(names, " "), strings.Join(append(groups, hybrid...), " "), strings.Repeat("f", len(fds))}, "\n")
}

func TestRunLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: much is only tried as root")
	}
	dir := t.TempDir()
	o := Options{DataRoot: filepath.Join(dir, "not", "made"), ExecRoot: dir, First: 524288, Last: 1878982655}
	Run(o, snapshot.Probe) // opens what this process keeps open, once
	before := left(t, dir)
	checks := Run(o, snapshot.Probe)
	if after := left(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	states := []record.CheckState{record.CheckOK, record.CheckWarn, record.CheckFail, record.CheckInfo, record.CheckSkipped}
	for _, c := range checks {
		if c.Group == "" || c.Name == "" || !slices.Contains(states, c.State) {
			t.Errorf("%+v", c)
		}
		if c.State != record.CheckOK && c.Found == "" && c.Why == "" {
			t.Errorf("nothing said: %+v", c)
		}
		if c.State == record.CheckFail && c.Fix == "" {
			t.Errorf("no advice: %+v", c)
		}
	}
	if len(checks) < 40 {
		t.Errorf("%d checks", len(checks))
	}
	for _, name := range []string{"clone3", "pidfd", "openat2", "move_mount", "seccomp filters"} {
		if c := find(t, checks, name); c.State != record.CheckOK {
			t.Errorf("%+v", c)
		}
	}
}

// What needs root is said to be skipped, not failed.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root: to be able to drop it")
	}
	var checks []record.Check
	err := thread(func() error {
		// Of this thread alone, which ends.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			return errno
		}
		checks = Run(Options{DataRoot: "/var/lib/fief", ExecRoot: "/run/fief", First: 524288, Last: 1878982655}, nil)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"move_mount", "ways to show files", "capabilities"} {
		if c := find(t, checks, name); c.State != record.CheckSkipped || !strings.Contains(c.Why, "root") {
			t.Errorf("%+v", c)
		}
	}
	if c := find(t, checks, "openat2"); c.State != record.CheckOK {
		t.Errorf("%+v", c)
	}
}

// The best way that holds makes failures below it harmless, not those above.
func TestRungs(t *testing.T) {
	no, yes := probe.Answer{Feature: "a", Since: "9.9", Verdict: probe.No, Err: errors.New("x")}, probe.Answer{Feature: "b", Verdict: probe.Yes}
	var got []string
	for _, c := range rungs([]probe.Answer{no, yes, no}, nil) {
		got = append(got, string(c.State))
	}
	if strings.Join(got, " ") != "warn ok info ok" {
		t.Errorf("%q", got)
	}
	if c := rungs([]probe.Answer{no}, nil)[0]; c.State != record.CheckInfo || c.Why != "" {
		t.Errorf("no way holds: %+v", c)
	}
	for _, checks := range [][]record.Check{rungs([]probe.Answer{no}, nil), rungs(nil, errors.New("y"))} {
		if c := checks[len(checks)-1]; c.State != record.CheckFail || c.Fix == "" {
			t.Errorf("%+v", c)
		}
	}
}

// A switched-off host, by its files.
func TestSwitchesAndLimits(t *testing.T) {
	proc := t.TempDir()
	for key, value := range map[string]string{
		"user.max_user_namespaces": "0\n", "user.max_net_namespaces": "7", "user.max_pid_namespaces": "50000",
		"kernel.unprivileged_userns_clone": "0", "kernel.apparmor_restrict_unprivileged_userns": "1", "fs.inotify.max_user_instances": "12",
	} {
		file := filepath.Join(proc, "sys", strings.ReplaceAll(key, ".", "/"))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Proc: proc}.filled()
	checks := slices.Concat(switches(o, true), limitsOfNamespaces(o), limits(o))
	for name, want := range map[string]record.CheckState{
		"kernel.unprivileged_userns_clone": record.CheckFail, "kernel.apparmor_restrict_unprivileged_userns": record.CheckFail,
		"user.max_user_namespaces": record.CheckFail, "user.max_net_namespaces": record.CheckWarn, "user.max_pid_namespaces": record.CheckOK,
		"fs.inotify.max_user_instances": record.CheckWarn,
	} {
		if c := find(t, checks, name); c.State != want || want != record.CheckOK && !strings.Contains(c.Fix, "sysctl -w "+name+"=") {
			t.Errorf("%+v, not %s", c, want)
		}
	}
	for _, c := range switches(o, false) {
		if c.State != record.CheckInfo {
			t.Errorf("namespaces can be made all the same: %+v", c)
		}
	}
}

func TestCapabilities(t *testing.T) {
	effective, bounding := capabilities("CapInh:\t1\nCapEff:\t000001fffeffffff\nCapBnd:\t0000000000000001\n")
	if effective != 0x1fffeffffff || bounding != 1 {
		t.Errorf("%x %x", effective, bounding)
	}
	if c := vital(effective); c.State != record.CheckOK {
		t.Errorf("%+v", c)
	}
	if c := resource(effective); c.State != record.CheckWarn {
		t.Errorf("%+v", c)
	}
	if c := vital(1); c.State != record.CheckFail || !strings.Contains(c.Found, "CAP_SETFCAP") {
		t.Errorf("%+v", c)
	}
	if c := grantable(bounding); c.State != record.CheckWarn || strings.Contains(c.Found, "CAP_CHOWN") {
		t.Errorf("%+v", c)
	}
}

// A refusal is not cured by a newer kernel.
func TestAdviceFitsTheRefusal(t *testing.T) {
	for err, want := range map[error]string{unix.ENOSYS: newKernel, fmt.Errorf("x: %w", unix.EPERM): privileged} {
		c := trial{name: "x", worst: record.CheckFail, do: func() error { return err }, fix: newKernel}.run(Kernel)
		if c.State != record.CheckFail || c.Fix != want {
			t.Errorf("%v: %+v", err, c)
		}
	}
}

func TestLastIDs(t *testing.T) {
	for in, want := range map[idmap.Span]string{
		{In: 0, Out: 0, N: 4294967295}:   "0:2147418112:65536",
		{In: 0, Out: 100000, N: 65536}:   "0:0:65536",
		{In: 0, Out: 1000, N: 1}:         "0:0:1",
		{In: 1, Out: 100000, N: 2000000}: "0:1934465:65536",
	} {
		m, err := idmap.New(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := lastIDs(m); err != nil || got.List() != want {
			t.Errorf("%v: %v, %v", in, got.List(), err)
		}
	}
	if _, err := lastIDs(idmap.Map{}); err == nil {
		t.Error("of nothing")
	}
}
