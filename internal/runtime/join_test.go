package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/space"
	"fief/internal/kernel/userns"
	"fief/internal/launch"
	"fief/internal/launch/launchtest"
	"fief/internal/runtime"
	"fief/internal/words/idmap"
	"fief/internal/words/plan"
)

// otherBase begins the ids of containers that have another map than
// launchtest's.
const otherBase = launchtest.Base + 1<<17

// namespaceFile names a namespace's file in /proc/PID/ns.
func namespaceFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// unmapped takes the user namespace out of a spec.
func unmapped(s *specs.Spec) {
	s.Linux.Namespaces = s.Linux.Namespaces[1:]
	s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
}

// remapped gives a spec ids of its own.
func remapped(s *specs.Spec) {
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: otherBase, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

// join makes s join namespaces of the process pid.
func join(s *specs.Spec, pid int, types ...specs.LinuxNamespaceType) {
	for _, kind := range types {
		for i := range s.Linux.Namespaces {
			if n := &s.Linux.Namespaces[i]; n.Type == kind {
				n.Path = fmt.Sprintf("/proc/%d/ns/%s", pid, namespaceFile(kind))
			}
		}
	}
}

// provide opens the namespaces that s joins and makes the mounts that are to be
// prepared; the caller closes them.
func (b *box) provide(s *specs.Spec) (done func()) {
	b.t.Helper()
	var list []*os.File
	b.fds = map[string]int{}
	add := func(name string, f *os.File, err error) {
		if err != nil {
			b.t.Fatal(name, err)
		}
		list = append(list, f)
		b.fds[name] = int(f.Fd())
	}
	joined := map[specs.LinuxNamespaceType]*os.File{}
	for _, n := range s.Linux.Namespaces {
		if n.Path != "" {
			f, err := os.Open(n.Path)
			add("ns:"+string(n.Type), f, err)
			joined[n.Type] = f
		}
	}
	for i, m := range s.Mounts {
		kind, ok := launch.Prepared(s, i)
		if !ok {
			continue
		}
		ns := joined[kind.Namespace()]
		var f *os.File
		var err error
		switch kind {
		case launch.Proc:
			f, err = space.Proc(ns, launch.ProcOptions(m)...)
		case launch.Sysfs:
			f, err = space.Sysfs(ns)
		case launch.Mqueue:
			f, err = space.Mqueue(ns)
		case launch.Cgroup2:
			f, err = space.Cgroup2(ns)
		}
		add(fmt.Sprint("mount:", i), f, err)
	}
	if b.opt.Cgroup {
		f, err := os.OpenFile(b.cgroup(), unix.O_PATH|unix.O_DIRECTORY, 0)
		add("cgroup", f, err)
	}
	return func() {
		for _, f := range list {
			f.Close()
		}
		b.fds = nil
	}
}

// cgroup makes a cgroup for the test, which removes it.
func (b *box) cgroup() string {
	b.t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || int64(st.Type) != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir := filepath.Join(root, "fief-test-"+strconv.Itoa(os.Getpid())+"-"+b.opt.ID)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			break
		}
		b.t.Cleanup(func() { os.Remove(dir) })
		return dir
	}
	b.t.Skip("fs: no cgroup v2 hierarchy to write to")
	return ""
}

// donor starts a container that others join: it has a device joined0, a message
// queue, and the name donor.
func donor(t *testing.T, change func(*specs.Spec)) runtime.Process {
	t.Helper()
	b := newBox(t)
	b.opt.Cgroup, b.opt.ID = true, "donor"
	s := launchtest.Spec("sleep", "100")
	s.Hostname = "donor"
	change(s)
	done := b.provide(s)
	proc := b.running(s)
	done()
	p := launchtest.Spec("sh", "-c", "ip link set lo down && ip link set lo name joined0 && ip link set joined0 up && touch /dev/mqueue/queue").Process
	admin := append(launchtest.Caps(), "CAP_NET_ADMIN")
	p.Capabilities = &specs.LinuxCapabilities{Bounding: admin, Effective: admin, Permitted: admin}
	b.opt.Cgroup = false
	out, code, err := b.inside(proc, s, p)
	if err != nil || code != 0 {
		t.Fatal(out, code, err)
	}
	return proc
}

const lookAround = `
for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done
echo net $(ls /sys/class/net)
echo queues $(ls /dev/mqueue)
echo first $(cat /proc/1/comm)
echo host $(hostname)
echo cgroup $(grep ^0: /proc/self/cgroup)
echo uids $(cat /proc/self/uid_map)
echo gids $(cat /proc/self/gid_map)
echo caps $(grep CapEff /proc/self/status)
echo groups $(ls /sys/fs/cgroup | grep -c cgroup.procs)
`

// children lists the children of all threads.
func children(t *testing.T) string {
	t.Helper()
	var out string
	list, _ := filepath.Glob("/proc/self/task/*/children")
	for _, name := range list {
		text, _ := os.ReadFile(name)
		out += string(text)
	}
	return out
}

var all = []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.PIDNamespace, specs.UTSNamespace, specs.CgroupNamespace}

// TestJoin: containers join namespaces of others, in every combination of user
// namespaces: they are where the spec says, in namespaces of their own
// otherwise, and see there what is there.
func TestJoin(t *testing.T) {
	need(t)
	for donorName, change := range map[string]func(*specs.Spec){"mapped": func(*specs.Spec) {}, "unmapped": unmapped} {
		t.Run(donorName, func(t *testing.T) {
			with, root := donor(t, change), newBox(t).root
			for name, own := range map[string]func(*specs.Spec){
				"same":  func(s *specs.Spec) { join(s, with.PID, specs.UserNamespace) },
				"other": remapped, "unmapped": unmapped,
			} {
				if donorName == "unmapped" && name == "same" {
					continue // there is none to join
				}
				for _, set := range append([][]specs.LinuxNamespaceType{all, nil}, singles()...) {
					if set == nil && name != "same" {
						continue // TestPlace
					}
					t.Run(fmt.Sprint(name, set), func(t *testing.T) {
						b := &box{t: t, root: root, launch: runtime.Start}
						s := launchtest.Spec("sh", "-c", lookAround)
						own(s)
						join(s, with.PID, set...)
						b.lookAround(s, with.PID)
					})
				}
			}
		})
	}
}

func singles() (out [][]specs.LinuxNamespaceType) {
	for _, one := range all {
		out = append(out, []specs.LinuxNamespaceType{one})
	}
	return out
}

// lookAround runs lookAround in a container of s, which joins namespaces of the
// process with, and compares.
func (b *box) lookAround(s *specs.Spec, with int) {
	t := b.t.(*testing.T)
	t.Helper()
	b.opt.Cgroup, b.opt.ID = true, "joiner"
	kids, files := children(t), descriptors(t)
	done := b.provide(s)
	out, code := b.run(s)
	done()
	if now := children(t); now != kids {
		t.Errorf("children before %q, after %q", kids, now)
	}
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors before, %d after", files, now)
	}
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) < 16 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	joined := map[string]bool{}
	for _, n := range s.Linux.Namespaces {
		joined[namespaceFile(n.Type)] = n.Path != ""
	}
	for i, n := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		there, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", with, n))
		if (lines[i] == there) != joined[n] && !(n == "user" && len(s.Linux.UIDMappings) == 0) {
			t.Errorf("%s namespace is %s, the other's %s, joined: %v", n, lines[i], there, joined[n])
		}
	}
	choose := func(kind string, there, own string) string {
		if joined[kind] {
			return there
		}
		return own
	}
	base := "0 0 4294967295"
	if m := s.Linux.UIDMappings; len(m) > 0 {
		base = fmt.Sprint(0, " ", m[0].HostID, " ", m[0].Size)
	}
	want := []string{
		"net " + choose("net", "joined0", "lo"), strings.TrimSpace("queues " + choose("ipc", "queue", "")), "first " + choose("pid", "sleep", "sh"),
		"host box", "cgroup 0::/" + choose("cgroup", "../"+filepath.Base(b.cgroup()), ""),
		"uids " + base, "gids " + base, "caps CapEff: 00000000a80425fb", "groups 1",
	}
	for i, w := range want {
		if got := lines[7+i]; got != w {
			t.Errorf("%q, want %q", got, w)
		}
	}
	if t.Failed() {
		p, _ := compiler().Container(s, b.opt)
		t.Logf("%s\n%s", out, p.String())
	}
}

// TestJoinSeveral: the namespaces of a container come from where each is said to
// come from, whoever owns them.
func TestJoinSeveral(t *testing.T) {
	first, second := donor(t, func(*specs.Spec) {}), donor(t, unmapped)
	third := newBox(t).running(func() *specs.Spec {
		s := launchtest.Spec("sleep", "100")
		remapped(s)
		return s
	}())
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", lookAround)
	join(s, first.PID, specs.UserNamespace, specs.UTSNamespace)
	join(s, second.PID, specs.NetworkNamespace, specs.CgroupNamespace)
	join(s, third.PID, specs.IPCNamespace, specs.PIDNamespace)
	done := b.provide(s)
	defer done()
	out, code := b.run(s)
	lines := strings.Split(out, "\n")
	if code != 0 || len(lines) < 16 {
		t.Fatalf("exit code %d: %s", code, out)
	}
	for i, from := range []runtime.Process{first, {}, third, second, third, first, second} {
		n := []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}[i]
		if there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", from.PID, n)); err == nil && lines[i] != there {
			t.Errorf("%s namespace is %s, want %s", n, lines[i], there)
		}
	}
	if want := "net joined0\nqueues\nfirst sleep\nhost box\n"; !strings.Contains(out, want) {
		t.Errorf("%s, want %s", out, want)
	}
}

// TestOwners: what a container that joins a user namespace makes belongs to
// that, and ids are known from the descriptor alone.
func TestOwners(t *testing.T) {
	with := donor(t, func(*specs.Spec) {})
	user, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", with.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	want, err := idmap.Range(launchtest.Base, 65536)
	if err != nil {
		t.Fatal(err)
	}
	if pair, err := userns.MapsOf(user); err != nil || !pair.Equal(want) {
		t.Errorf("%v, %v", pair, err)
	}
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	join(s, with.PID, specs.UserNamespace)
	done := b.provide(s)
	defer done()
	proc := b.running(s)
	for _, n := range s.Linux.Namespaces {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", proc.PID, namespaceFile(n.Type)))
		if err != nil {
			t.Fatal(err)
		}
		owner := ns
		if n.Type != specs.UserNamespace {
			if owner, err = userns.OwnerOf(ns); err != nil {
				t.Fatal(err)
			}
			defer owner.Close()
		}
		if same, err := userns.Same(owner, user); err != nil || !same {
			t.Errorf("the owner of the %s namespace is another: %v", n.Type, err)
		}
		ns.Close()
	}
}

// TestJoinedSysctl: sysctls of new namespaces are set through a proc that shows
// another pid namespace.
func TestJoinedSysctl(t *testing.T) {
	b := newBox(t)
	s := launchtest.Spec("cat", "/proc/sys/net/ipv4/ping_group_range", "/proc/sys/kernel/shmmni")
	s.Linux.Namespaces = launchtest.Namespaces(specs.UserNamespace, specs.MountNamespace, specs.NetworkNamespace, specs.IPCNamespace)
	s.Linux.Sysctl = map[string]string{"net.ipv4.ping_group_range": "0 65535", "kernel.shmmni": "77"}
	done := b.provide(s)
	defer done()
	if out, code := b.run(s); out != "0\t65535\n77\n" || code != 0 {
		t.Errorf("exit code %d: %q", code, out)
	}
}

// TestJoinedPosture: limits, oom_score_adj, maps and the credentials are those
// of the container's process, not of the one that entered namespaces.
func TestJoinedPosture(t *testing.T) {
	with := donor(t, func(*specs.Spec) {})
	b := newBox(t)
	s := launchtest.Spec("sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj; grep PPid /proc/$$/status; grep -E 'Uid|SigBlk|SigIgn|SigCgt|NoNewPrivs|Seccomp:|Threads|CapBnd' /proc/self/status; ls /proc/self/fd | wc -l; echo again > /dev/stdout")
	score := 500
	s.Process.OOMScoreAdj = &score
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	join(s, with.PID, append(all, specs.UserNamespace)...)
	done := b.provide(s)
	defer done()
	out, code := b.run(s)
	if code != 0 || !strings.HasPrefix(out, "100\n500\n") || !strings.HasSuffix(out, "4\nagain\n") {
		t.Errorf("exit code %d: %s", code, out)
	}
	for name, want := range map[string]string{"Uid": "1000\t1000\t1000\t1000", "SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "SigCgt": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2", "PPid": "0", "Threads": "1", "CapBnd": "00000000a80425fb"} {
		if got := field(out, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestJoinedExec: a further process is in all namespaces of the container,
// joined, its own, or the host's.
func TestJoinedExec(t *testing.T) {
	with := donor(t, func(*specs.Spec) {})
	for name, change := range map[string]func(*specs.Spec){
		"all":      func(s *specs.Spec) { join(s, with.PID, append(all, specs.UserNamespace)...) },
		"user":     func(s *specs.Spec) { join(s, with.PID, specs.UserNamespace) },
		"other":    func(s *specs.Spec) { remapped(s); join(s, with.PID, all...) },
		"unmapped": func(s *specs.Spec) { unmapped(s); join(s, with.PID, all...) },
		"host":     func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:2] },
		"user, host": func(s *specs.Spec) {
			s.Linux.Namespaces = s.Linux.Namespaces[:2]
			join(s, with.PID, specs.UserNamespace)
		},
		"bare": func(s *specs.Spec) { unmapped(s); s.Linux.Namespaces = s.Linux.Namespaces[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			s := launchtest.Spec("sleep", "100")
			change(s)
			done := b.provide(s)
			proc := b.running(s)
			done()
			out, code, err := b.inside(proc, s, launchtest.Spec("sh", "-c", "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/uid_map; id -u").Process)
			if err != nil || code != 0 {
				t.Fatal(err, code, out)
			}
			lines := strings.Split(out, "\n")
			for i, n := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
				if there, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", proc.PID, n)); lines[i] != there {
					t.Errorf("%s namespace is %s, the container's %s", n, lines[i], there)
				}
			}
			if m := readFile(t, fmt.Sprintf("/proc/%d/uid_map", proc.PID)); lines[7]+"\n" != m || lines[8] != "0" {
				t.Errorf("%q, the container's map %q", out, m)
			}
		})
	}
}

// TestJoinFailures: a step that fails on the way is named, whichever of the two
// processes it is in, and nothing is left.
func TestJoinFailures(t *testing.T) {
	with := donor(t, func(*specs.Spec) {})
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	own, err := os.Open("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	dead := deadNamespace(t)
	for _, c := range []struct {
		name, text string
		change     func(*box, *specs.Spec)
	}{
		{"wrong kind", "cannot join network: setns: invalid argument", func(b *box, s *specs.Spec) { b.fds["ns:network"] = int(own.Fd()) }},
		{"no namespace", "cannot join network: setns: invalid argument", func(b *box, s *specs.Spec) { b.fds["ns:network"] = int(null.Fd()) }},
		{"own user namespace", "cannot join user: setns: invalid argument", func(b *box, s *specs.Spec) { b.fds["ns:user"] = int(own.Fd()) }},
		{"dead pid namespace", "cannot fork mnt: cannot allocate memory", func(b *box, s *specs.Spec) { b.fds["ns:pid"] = dead }},
		{"later step", "cannot mount tmpfs → /dev: fsconfig: invalid argument", func(b *box, s *specs.Spec) { s.Mounts[1].Options = []string{"size=wrong"} }},
		{"program", `exec: "nosuch": executable file not found in $PATH`, func(b *box, s *specs.Spec) { s.Process.Args = []string{"nosuch"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			s := launchtest.Spec("true")
			join(s, with.PID, append(all, specs.UserNamespace)...)
			kids, files := children(t), descriptors(t)
			for range 3 {
				done := b.provide(s)
				c.change(b, s)
				p, err := compiler().Container(s, b.opt)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err = b.start(&p); err == nil || !strings.HasPrefix(err.Error(), c.text) {
					t.Errorf("%v, want %s", err, c.text)
				}
				done()
			}
			if now := children(t); now != kids {
				t.Errorf("children before %q, after %q", kids, now)
			}
			if now := descriptors(t); now > files {
				t.Errorf("%d descriptors before, %d after", files, now)
			}
		})
	}
}

// deadNamespace is a descriptor of a pid namespace whose first process is gone.
func deadNamespace(t *testing.T) int {
	t.Helper()
	b := newBox(t)
	s := launchtest.Spec("sleep", "100")
	p, err := compiler().Container(s, b.opt)
	if err != nil {
		t.Fatal(err)
	}
	encoded, _ := p.Encode()
	fds, done := b.files(&p, 2)
	defer done()
	proc, err := runtime.Start(encoded, fds)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc.PIDFD)
	ns := must(unix.Open(fmt.Sprintf("/proc/%d/ns/pid", proc.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0))
	t.Cleanup(func() { unix.Close(ns) })
	unix.PidfdSendSignal(proc.PIDFD, unix.SIGKILL, nil, 0)
	wait(t, proc.PID)
	return ns
}

// TestKilledInEveryStep: whichever of the two processes is killed, or fails, and
// wherever, the step is named, and no process and no descriptor is left.
func TestKilledInEveryStep(t *testing.T) {
	with := donor(t, func(*specs.Spec) {})
	b := newBox(t)
	b.opt.Cgroup, b.opt.ID = true, "joiner"
	s := launchtest.Spec("true")
	s.Linux.Seccomp = nil // with a filter there is no strict mode
	join(s, with.PID, append(all, specs.UserNamespace)...)
	kids, files := children(t), descriptors(t)
	// In strict mode the first system call but read, write and exit is the last.
	const strict = 1
	kill := plan.Op{Nr: unix.SYS_PRCTL, Name: "prctl", Args: []plan.Arg{plan.Int(unix.PR_SET_SECCOMP), plan.Int(strict), plan.Int(0), plan.Int(0), plan.Int(0)}}
	fail := plan.Op{Nr: 1 << 12, Name: "nosuch"}
	for step := plan.FirstChildStep; ; step++ {
		steps := 0
		if step > 20 {
			step += 4 // from there on it is as without joins
		}
		for errno, op := range map[syscall.Errno]plan.Op{0: kill, unix.ENOSYS: fail} {
			done := b.provide(s)
			p, err := compiler().Container(s, b.opt)
			if err != nil {
				t.Fatal(err)
			}
			if steps = len(p.Steps); step < steps {
				ops := &p.Steps[step].Ops
				*ops = append([]plan.Op{op}, *ops...)
				b.failAt(&p, step, errno)
			}
			done()
		}
		if step >= steps {
			break
		}
	}
	if now := children(t); now != kids {
		t.Errorf("children before %q, after %q", kids, now)
	}
	if now := descriptors(t); now > files {
		t.Errorf("%d descriptors before, %d after", files, now)
	}
	if text := readFile(t, b.cgroup()+"/cgroup.procs"); text != "" {
		t.Errorf("processes in the cgroup: %s", text)
	}
}

// failAt starts a plan that fails in a step with errno; 0: it is killed there
// or, when the step makes no system call, in the next.
func (b *box) failAt(p *plan.Plan, step int, errno syscall.Errno) {
	b.t.Helper()
	encoded, err := p.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	fds, done := b.files(p, 2)
	defer done()
	proc, err := b.launch(encoded, fds)
	var f *plan.Failure
	if !errors.As(err, &f) || f.Errno != errno || f.Step < step || f.Step > step && errno != 0 {
		b.t.Errorf("step %d (%s): %+v, %v, want %v", step, p.Steps[step].Verb, proc, err, errno)
	}
}
