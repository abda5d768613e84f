package check

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/record"
)

// privileges looks at the capabilities of this process, which are those that a
// daemon started the same way has.
func privileges(o Options) []record.Check {
	status, err := os.ReadFile(filepath.Join(o.Proc, "thread-self/status"))
	if err != nil {
		return []record.Check{{Group: Privileges, Name: "capabilities", State: record.CheckFail, Found: err.Error(), Fix: "mount /proc"}}
	}
	if os.Geteuid() != 0 {
		return []record.Check{skipped(record.Check{Group: Privileges, Name: "capabilities"}, "this process is not root's, as the daemon will be")}
	}
	effective, bounding := capabilities(string(status))
	return []record.Check{vital(effective), resource(effective), grantable(bounding)}
}

// capabilities reads two lines of proc_pid_status(5).
func capabilities(status string) (effective, bounding uint64) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			effective, _ = strconv.ParseUint(strings.TrimSpace(v), 16, 64) // the kernel's own writing
		}
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bounding, _ = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return effective, bounding
}

func missing(mask uint64, names []string) (out []string) {
	for _, name := range names {
		if n, ok := harden.Capability(name); !ok || mask&(1<<n) == 0 {
			out = append(out, name)
		}
	}
	return out
}

func vital(effective uint64) record.Check {
	c := record.Check{Group: Privileges, Name: "capabilities of the daemon", State: record.CheckOK}
	needed := []string{
		"CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
		"CAP_FSETID", "CAP_MKNOD", "CAP_KILL", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	}
	if lost := missing(effective, needed); lost != nil {
		c.State, c.Found, c.Why = record.CheckFail, "missing: "+strings.Join(lost, ", "), "user namespaces, mounts and files of containers need them"
		c.Fix = "start the daemon as root, not in a container or a unit that drops capabilities"
	}
	return c
}

// resource is what a daemon in a container usually lacks: it works, and cannot
// raise limits.
func resource(effective uint64) record.Check {
	c := record.Check{Group: Privileges, Name: "CAP_SYS_RESOURCE", State: record.CheckOK}
	if missing(effective, []string{"CAP_SYS_RESOURCE"}) != nil {
		c.State, c.Found = record.CheckWarn, "missing"
		c.Why = "--ulimit above the daemon's own hard limits, lower oom_score_adj and more than the default of message queues and pipes are refused"
		c.Fix = "start the daemon with it, or raise its limits before it starts"
	}
	return c
}

// grantable compares what containers get by default with what this process
// could pass on.
func grantable(bounding uint64) record.Check {
	c := record.Check{Group: Privileges, Name: "capabilities for containers", State: record.CheckOK}
	if lost := missing(bounding, harden.DefaultCaps()); lost != nil {
		c.State, c.Found, c.Why = record.CheckWarn, "not in the bounding set: "+strings.Join(lost, ", "), "containers in the host's user namespace cannot have them"
		c.Fix = "start the daemon with a full bounding set"
	}
	return c
}

// limits looks at what the kernel counts: a user namespace's own counts are
// capped by the soft limits of the process that makes it (getrlimit(2),
// namespaces' ucounts since v5.14), so that the daemon's soft limits are the
// most that each container can have.
func limits(o Options) (out []record.Check) {
	for _, l := range []struct {
		name  string
		which int
		least uint64
		why   string
	}{
		{"nofile", unix.RLIMIT_NOFILE, 65536, "each running container takes some of the daemon's"},
		{"nproc", unix.RLIMIT_NPROC, 4096, "no container can have more processes"},
		{"memlock", unix.RLIMIT_MEMLOCK, 8 << 20, "no container can lock more bytes of memory"},
		{"sigpending", unix.RLIMIT_SIGPENDING, 1024, "no container can have more signals waiting"},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 819200, "no container can have more bytes in POSIX message queues"},
	} {
		var r unix.Rlimit
		c := record.Check{Group: Limits, Name: "limit of " + l.name, State: record.CheckOK}
		if err := unix.Getrlimit(l.which, &r); err != nil {
			c.State, c.Found = record.CheckWarn, err.Error()
			out = append(out, c)
			continue
		}
		have := r.Cur
		if l.which == unix.RLIMIT_NOFILE {
			have = r.Max // the daemon raises the soft limit itself, as every Go program
		}
		c.Found = limit(have)
		if have < l.least {
			c.State, c.Why = record.CheckWarn, l.why
			c.Fix = fmt.Sprintf("Limit%s=%d in fief.service, or ulimit before the daemon starts", strings.ToUpper(l.name), l.least)
		}
		out = append(out, c)
	}
	for _, s := range []sysctlCheck{
		{"fs.inotify.max_user_instances", 128, "programs in containers that watch files fail"},
		{"fs.inotify.max_user_watches", 8192, "programs in containers that watch files fail"},
		{"fs.file-max", 65536, "the whole host runs out of open files"},
		{"kernel.pid_max", 32768, "the whole host runs out of process ids"},
		{"kernel.keys.maxkeys", 200, "keyrings in containers are refused"},
		{"vm.max_map_count", 65530, "databases and virtual machines in containers do not start"},
	} {
		out = append(out, s.check(o, Limits)...)
	}
	return out
}

func limit(n uint64) string {
	if n == math.MaxUint64 {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// limitsOfNamespaces are the most namespaces of each kind that one user may
// have; each container takes one of each.
func limitsOfNamespaces(o Options) (out []record.Check) {
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		s := sysctlCheck{"user.max_" + kind + "_namespaces", 1024, "there cannot be more containers"}
		out = append(out, s.check(o, Namespaces)...)
	}
	return out
}

// sysctlCheck is a sysctl that should be at least so much.
type sysctlCheck struct {
	key   string
	least uint64
	why   string
}

// check has nothing to say about what this kernel does not have.
func (s sysctlCheck) check(o Options, group string) []record.Check {
	value, err := sysctl(o, s.key)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	c := record.Check{Group: group, Name: s.key, State: record.CheckOK, Found: value}
	n, parseErr := strconv.ParseUint(value, 10, 64)
	switch {
	case err != nil:
		c = skipped(c, err.Error())
	case parseErr == nil && n == 0:
		c.State = record.CheckFail
	case parseErr == nil && n < s.least:
		c.State = record.CheckWarn
	}
	if c.State == record.CheckFail || c.State == record.CheckWarn {
		c.Why, c.Fix = s.why, fmt.Sprintf("sysctl -w %s=%d, and in /etc/sysctl.d", s.key, s.least)
	}
	return []record.Check{c}
}

func sysctl(o Options, key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(o.Proc, "sys", strings.ReplaceAll(key, ".", "/")))
	return strings.TrimSpace(string(b)), err
}
