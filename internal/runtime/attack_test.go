package runtime_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
)

// powerful gives the process every capability there is and takes away the
// filter, the masks and what is read-only.
func powerful(t *testing.T, s *specs.Spec) {
	t.Helper()
	last, err := harden.LastCap()
	if err != nil {
		t.Fatal(err)
	}
	caps, err := harden.Caps([]string{"ALL"}, nil, last)
	if err != nil {
		t.Fatal(err)
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Process.NoNewPrivileges = false
	s.Linux.Seccomp, s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil, nil
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return o == "ro" })
	}
}

// attack tries what a root with all capabilities over its own user namespace
// may try with mounts of somebody else's namespaces. $1 is a process of theirs.
const attack = `
mount -o remount,bind,rw /sys && echo flags-are-not-locked
mount -o remount,ro /sys 2>/dev/null && echo BAD superblock of sysfs
mount -o remount,ro /sys/fs/cgroup 2>/dev/null && echo BAD superblock of cgroup2
mount -o remount,ro /dev/mqueue 2>/dev/null && echo BAD superblock of mqueue
for f in /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/uevent_helper /sys/kernel/uevent_seqnum /sys/class/net/*/mtu /sys/class/net/*/ifalias \
 /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/vm/panic_on_oom \
 /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/forwarding /proc/irq/default_smp_affinity /proc/self/../$1/oom_score_adj /proc/$1/mem /proc/$1/uid_map /proc/$1/setgroups \
 /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control; do
	test -e $f && (: >> $f) 2>/dev/null && echo BAD may write $f
done
for f in /proc/kcore /proc/$1/environ /proc/$1/mem /proc/$1/maps /proc/$1/stack /proc/$1/io /proc/kmsg; do
	test -e $f && (cat $f | grep -q .) 2>/dev/null && echo BAD may read $f
done
ls /proc/$1/root/ >/dev/null 2>&1 && echo BAD root of $1
ls /proc/$1/fd/ >/dev/null 2>&1 && echo BAD descriptors of $1
ls /proc/$1/cwd/ >/dev/null 2>&1 && echo BAD directory of $1
kill -0 $1 2>/dev/null && echo BAD may signal $1
mkdir /sys/fs/cgroup/attack 2>/dev/null && echo BAD may make cgroups
hostname attacked 2>/dev/null && echo BAD hostname
ip link set lo down 2>/dev/null && echo BAD devices
grep -q . /proc/$1/status && echo seen
`

// TestPreparedMountsAreHarmless: a container with all capabilities over its own
// user namespace can make what it was handed writable, and has nothing of it:
// files belong to the root of whoever owns the namespaces shown.
func TestPreparedMountsAreHarmless(t *testing.T) {
	need(t)
	for name, with := range map[string]func() (inside string, change func(*specs.Spec)){
		"the host's": func() (string, func(*specs.Spec)) {
			return fmt.Sprint(os.Getpid()), func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:2] }
		},
		"an unmapped container's": func() (string, func(*specs.Spec)) { return joinedBy(donor(t, unmapped)) },
		"a mapped container's":    func() (string, func(*specs.Spec)) { return joinedBy(donor(t, func(*specs.Spec) {})) },
	} {
		t.Run(name, func(t *testing.T) {
			inside, change := with()
			b := newBox(t)
			s := launchtest.Spec("sh", "-c", attack, "sh", inside)
			remapped(s)
			change(s)
			powerful(t, s)
			done := b.provide(s)
			defer done()
			out, code := b.run(s)
			if code != 0 || strings.Contains(out, "BAD") || !strings.Contains(out, "flags-are-not-locked\n") || !strings.HasSuffix(out, "seen\n") {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
}

func joinedBy(proc runtime.Process) (string, func(*specs.Spec)) {
	return "1", func(s *specs.Spec) { join(s, proc.PID, all...) }
}

// spyOn looks for a process that still has the name, $1, of the program that
// starts it.
const spyOn = `
for p in /proc/[0-9]*; do
	[ "$(cat $p/comm)" = "$1" ] || continue
	echo found
	for f in mem environ maps auxv; do
		(cat $p/$f | grep -q .) 2>/dev/null && echo BAD $f
	done
	for d in fd root cwd map_files; do
		ls $p/$d/ >/dev/null 2>&1 && echo BAD $d
	done
done
true
`

// TestUntraceable: nobody may trace or look into the container's process on its
// way, not even the root of the user namespace and of the pid namespace that it
// joins, with all capabilities over both.
func TestUntraceable(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	with := b.running(s)
	joiner := newBox(t)
	joiner.opt.Gate = true
	js := launchtest.Spec("sleep", "100")
	join(js, with.PID, append(all, specs.UserNamespace)...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	done := joiner.provide(js)
	defer done()
	joiner.fds["gate"] = int(r.Fd())
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	look := func(when string) {
		spy := launchtest.Spec("sh", "-c", spyOn, "sh", strings.TrimSpace(string(name)))
		powerful(t, spy)
		out, code, err := b.inside(with, s, spy.Process)
		if err != nil || code != 0 || strings.Contains(out, "BAD") || !strings.Contains(out, "found") {
			t.Errorf("%s: %v, exit code %d: %s", when, err, code, out)
		}
	}
	joiner.launch = func(encoded []byte, files []int) (runtime.Process, error) {
		return runtime.StartWith(encoded, files, runtime.Callbacks{Prepare: func(int) error { look("before its first step"); return nil }})
	}
	proc := joiner.running(js) // waits at its gate: all is set but execve is to come
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/maps", proc.PID), &st); err != nil || st.Uid != 0 {
		t.Errorf("the process's files belong to %d, %v: it can be traced", st.Uid, err)
	}
	look("at its gate")
}
