package attack

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fief/internal/testenv"
)

var update = flag.Bool("update", false, "write the tables anew")

// look prints what a process is: its status and what else the kernel tells of
// it, one thing a line.
const look = `
cat /proc/self/status
cut -d' ' -f40,41 /proc/self/stat | sed 's/^/rt priority and policy: /'
cut -d' ' -f7 /proc/self/stat | sed 's/^/terminal: /'
sed 's/^/limit: /' /proc/self/limits
for f in oom_score_adj personality timerslack_ns; do echo "$f: $(cat /proc/self/$f 2>&1)"; done
echo "cwd: $(pwd)"
echo "environ of uid: $(stat -c %u /proc/self/environ)"
cat /proc/self/environ | tr '\0' '\n' | sed 's/^/env: /'
for f in /proc/$$/fd/*; do echo "fd ${f##*/}: $(readlink $f)"; done
for n in user mnt pid net ipc uts cgroup time; do echo "ns $n: $(readlink /proc/self/ns/$n)"; done
cat /proc/self/uid_map | sed 's/^/uid_map: /'
sed 's/^/mount: /' /proc/self/mountinfo
for d in /dev/*; do echo "dev: $(stat -c '%n %F %t:%T %a %u:%g' $d)"; done
masked= bare=
for f in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do
	if test -d $f; then test -z "$(ls -A $f)" && masked=some || bare=some; elif test -e $f; then test "$(stat -c %t:%T $f)" = 1:3 && masked=some || bare=some; fi
done
echo "masked: ${masked:-none}, bare: ${bare:-none}"
for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper; do test -e $f && { (: >>$f) 2>/dev/null && echo "writable: $f"; }; done
ip link | grep -o '^[0-9]*: [a-z0-9]*' | sed 's/^[0-9]*:/link:/'
true
`

// kept are the fields of a status that are a posture.
var kept = []string{"Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigBlk", "SigIgn", "SigCgt", "Threads", "Cpus_allowed"}

// places are the mounts and devices whose lines are kept: others differ from
// machine to machine.
var places = regexp.MustCompile(`^(/dev(/(pts|shm|mqueue|null|zero|full|random|urandom|tty|console|ptmx|fd|core|stdin|stdout|stderr|fief-init))?|/proc(/(sys|irq|fs))?|/sys|/sys/fs/cgroup)$`)

var (
	statusLine = regexp.MustCompile(`^([A-Za-z_0-9]+):\t\s*(.*)$`)
	ownKeyring = regexp.MustCompile(`^keyring _ses\.[0-9a-z]+$`)
	limitLine  = regexp.MustCompile(`^(Max(?: [a-z]+)+) {2,}(\w+) +(\w+)`)
	numbered   = regexp.MustCompile(`^(pipe|socket):\[\d+\]$`)
)

// table turns what look has printed into what is the same on every machine.
func table(t *testing.T, out string) string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	host := map[string]string{}
	for line := range strings.Lines(string(own)) {
		if m := statusLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			host[m[1]] = m[2]
		}
	}
	one, err := os.ReadFile("/proc/1/status")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if m := statusLine.FindStringSubmatch(line); m != nil {
			switch {
			case !slices.Contains(kept, m[1]):
				continue
			case strings.HasPrefix(m[1], "Cap") && m[2] == host["CapBnd"]:
				line = m[1] + ": all of the host"
			case strings.HasPrefix(m[1], "Cap") && m[2] == "000001ffffffffff":
				line = m[1] + ": all of the host"
			case m[1] == "Cpus_allowed" && strings.Contains(string(one), line):
				line = m[1] + ": all"
			}
		}
		if line = normal(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// normal takes out of a line what is another one each time.
func normal(line string) string {
	kind, value, _ := strings.Cut(line, ": ")
	switch {
	case strings.HasPrefix(kind, "fd "):
		if m := numbered.FindStringSubmatch(value); m != nil {
			value = m[1]
		}
	case strings.HasPrefix(kind, "ns "):
		name := strings.TrimPrefix(kind, "ns ")
		if host, _ := os.Readlink("/proc/self/ns/" + name); host == value {
			value = "of the host"
		} else {
			value = "its own"
		}
	case kind == "env" && strings.HasPrefix(value, "HOSTNAME="):
		value = "HOSTNAME=…"
	case kind == "terminal" && value != "0":
		value = "its own"
	case kind == "limit":
		if value = limit(value); value == "" {
			return ""
		}
	case (kind == "priority" || kind == "io priority") && value == inherited()[kind]:
		value = "the daemon's"
	case kind == "session keyring" && ownKeyring.MatchString(value):
		value = "its own"
	case kind == "uid_map":
		f := strings.Fields(value)
		if len(f) == 3 && f[1] != "0" {
			f[1] = "…"
		}
		value = strings.Join(f, " ")
	case kind == "mount":
		if value = mount(value); value == "" {
			return ""
		}
	case kind == "dev":
		if name, _, _ := strings.Cut(value, " "); !places.MatchString(name) {
			return ""
		}
	}
	return strings.TrimRight(kind+": "+value, " :")
}

// mount keeps a line of mountinfo's place, flags, propagation and type.
func mount(line string) string {
	before, after, _ := strings.Cut(line, " - ")
	f := strings.Fields(before)
	kind, _, _ := strings.Cut(after, " ")
	if len(f) < 6 {
		return line
	}
	for i := range f[6:] {
		f[6+i], _, _ = strings.Cut(f[6+i], ":")
	}
	if f[4] == probe {
		return ""
	}
	for _, dir := range []string{"/proc/", "/sys/", "/dev/"} {
		if strings.HasPrefix(f[4], dir) && !places.MatchString(f[4]) {
			return ""
		}
	}
	if strings.HasPrefix(f[4], "/etc/") || strings.HasSuffix(f[4], "init") || f[4] == "/" && kind != "overlay" {
		kind = "file of the host"
	}
	return strings.Join(append([]string{f[4], kind, f[5]}, f[6:]...), " ")
}

// compare wants the table to be the one of testdata.
func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".posture")
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
	for _, line := range a {
		if !slices.Contains(b, line) {
			t.Errorf("missing %q", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			t.Errorf("new     %q", line)
		}
	}
}

// TestPosture compares what containers and sessions are with tables: what a
// faster start or a new option changes by mistake is seen here.
func TestPosture(t *testing.T) {
	program := prober(t)
	d := testenv.Start(t)
	d.Busybox(t)
	for name, args := range map[string][]string{
		"default": nil, "host": {"--userns=host"}, "privileged": {"--privileged", "--userns=host"}, "read-only": {"--read-only"},
		"no-capabilities": {"--cap-drop", "ALL"}, "user": {"--user", "1000:50"}, "init": {"--init"}, "terminal": {"-t"},
		"unconfined": {"--security-opt", "seccomp=unconfined"},
	} {
		t.Run(name, func(t *testing.T) {
			args = append([]string{"--network", "none", "-v", program + ":" + probe + ":ro"}, args...)
			id := strings.TrimSpace(d.Must(t, append(append([]string{"run", "-d"}, args...), "busybox", "sleep", "1000")...))
			defer d.Must(t, "rm", "-f", id)
			session := []string{"exec", id}
			if name == "terminal" {
				session = []string{"exec", "-t", id}
			}
			out := d.Must(t, append(session, "sh", "-c", look)...) + "\n" + d.Must(t, append(session, probe)...)
			compare(t, name+"-exec", table(t, out))
			once := append(append([]string{"run", "--rm"}, args...), "busybox")
			out = d.Must(t, append(once, "sh", "-c", look)...) + "\n" + d.Must(t, append(once, probe)...)
			compare(t, name, table(t, out))
		})
	}
}

// probe is where the program of testdata/probe is in a container.
const probe = "/probe"

// prober builds that program, for whoever runs it in a container.
func prober(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", dir+probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir + probe
}

// inherited is what a process that this one starts gets of it: limits, as
// /proc/PID/limits has them by name, and priorities.
var inherited = sync.OnceValue(func() map[string]string {
	out := map[string]string{}
	text, _ := exec.Command("cat", "/proc/self/limits").Output() // Go raises its own
	for line := range strings.Lines(string(text)) {
		if m := limitLine.FindStringSubmatch(line); m != nil {
			out[m[1]+" soft"], out[m[1]+" hard"] = m[2], m[3]
		}
	}
	if n, _, errno := unix.Syscall(unix.SYS_GETPRIORITY, unix.PRIO_PROCESS, 0, 0); errno == 0 {
		out["priority"] = strconv.Itoa(int(n))
	}
	const process = 1 // IOPRIO_WHO_PROCESS
	if n, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, process, 0, 0); errno == 0 {
		out["io priority"] = strconv.Itoa(int(n))
	}
	return out
})

// limit takes out of a line of /proc/PID/limits what depends on the machine.
func limit(line string) string {
	m := limitLine.FindStringSubmatch(line)
	if m == nil {
		return "" // the heading
	}
	soft, hard := m[2], m[3]
	if soft == inherited()[m[1]+" soft"] {
		soft = "the daemon's"
	}
	if hard == inherited()[m[1]+" hard"] {
		hard = "the daemon's"
	}
	return m[1] + " " + soft + ", " + hard
}

// TestPostureCanFail: a table notices each kind of difference.
func TestPostureCanFail(t *testing.T) {
	const good = "parent death signal: 0\nsession keyring: keyring _ses.0123ab\nterminal: 0\nlimit: Max core file size        1                1                bytes\npriority: 39\nio priority: 99999\nCapInh:\t0000000000000000\nSigIgn:\t0000000000000000\nfd 0: /dev/null\nns pid: pid:[1]\nmount: 1 2 0:3 / /proc rw,nosuid - proc proc rw\n"
	want := table(t, good)
	for from, to := range map[string]string{"CapInh:\t0000000000000000": "CapInh:\t0000000000000001", "SigIgn:\t0000000000000000": "SigIgn:\t0000000000001000", "fd 0: /dev/null": "fd 0: /dev/null\nfd 9: /sys/fs/cgroup",
		"signal: 0": "signal: 9", "keyring _ses.0123ab": "keyring _uid_ses.0", "terminal: 0": "terminal: 34816", "1                1 ": "1                2 ", "priority: 39": "priority: 40", "99999": "7",
		"pid:[1]": readlink(t, "/proc/self/ns/pid"), "rw,nosuid": "rw", "- proc": "shared:3 - proc"} {
		if got := table(t, strings.Replace(good, from, to, 1)); got == want {
			t.Errorf("%q is not noticed", to)
		}
	}
}

func readlink(t *testing.T, name string) string {
	t.Helper()
	to, err := os.Readlink(name)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// hunt looks for a process that runs a program of fief's, for ever, and says what
// it may do with it.
const hunt = `
while :; do
	for p in /proc/[0-9]*; do
		case $(readlink $p/exe) in /fief-*|*/fief-*)
			echo seen
			(: >>$p/exe) && echo BAD writable $(readlink $p/exe)
			for f in $p/map_files/*; do case $(readlink $f) in /fief-*) (: >>$f) && echo BAD writable $f;; esac; done
			test "$1" = descriptors && for f in $p/fd/*; do case $(readlink $f) in /*) echo BAD descriptor $(readlink $f);; esac; done
		esac
	done
done 2>/dev/null`

// TestNothingOfFief: while commands are executed in a container, nothing of fief
// can be written to from inside, whose root is the host's; only one with
// CAP_SYS_PTRACE gets to see any of it.
func TestNothingOfFief(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	for name, c := range map[string]struct {
		args []string
		sees bool
	}{
		"remapped": {[]string{"--cap-add", "ALL"}, false}, "host": {[]string{"--userns=host"}, false},
		"root of the host": {[]string{"--uidmap", "0:0:1", "--gidmap", "0:0:1", "--cap-add", "ALL"}, false},
		"privileged":       {[]string{"--privileged", "--userns=host"}, true}, "pid of the host": {[]string{"--privileged", "--userns=host", "--pid=host"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			all := append([]string{"run", "-d", "--network", "none"}, c.args...)
			out, errs, code := d.Fief(t, append(all, "busybox", "sh", "-c", hunt)...)
			if code != 0 {
				t.Fatal(errs)
			}
			id := strings.TrimSpace(out)
			defer d.Must(t, "rm", "-f", id)
			for range 20 {
				d.Must(t, "exec", id, "true")
			}
			log, _, _ := d.Fief(t, "logs", id)
			if bad := regexp.MustCompile(`BAD.*`).FindString(log); bad != "" && !strings.Contains(bad, "fief-test") {
				t.Error(bad)
			}
			if !c.sees && strings.Contains(log, "seen") {
				t.Error("a program of fief's is in sight")
			}
		})
	}
}

// TestMonitorIsSealed: no monitor's program can be written to by way of its
// process, by root of the host neither; a container whose program is
// /proc/self/exe, fief-mon, is none who could (CVE-2019-5736).
func TestMonitorIsSealed(t *testing.T) {
	d := testenv.Start(t)
	d.Busybox(t)
	id := strings.TrimSpace(d.Must(t, "run", "-d", "--network", "none", "--userns=host", "busybox", "sleep", "1000"))
	defer d.Must(t, "rm", "-f", id)
	found := 0
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if to, _ := os.Readlink(exe); to != "/fief-mon" {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(exe, &fs); err != nil || fs.Flags&unix.ST_RDONLY == 0 {
			t.Errorf("%s: %v, flags %#x", exe, err, fs.Flags)
		}
		found++
	}
	if found == 0 {
		t.Error("no monitor found")
	}
}

// fds are the descriptors of a process by what they are.
func fds(pid int) map[string]int {
	classes := map[string]int{}
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range list {
		to, err := os.Readlink(l)
		if err != nil {
			continue
		}
		to, _, _ = strings.Cut(to, ":[")
		if strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/dev/") {
			to = "file"
		}
		classes[to]++
	}
	return classes
}
