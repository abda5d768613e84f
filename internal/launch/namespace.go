package launch

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// namespaces are those a spec makes (flags) and those it joins (paths), the
// user namespace last of them.
type namespaces struct {
	flags uint64
	joins []specs.LinuxNamespace
}

func (n namespaces) has(flag uint64) bool { return n.flags&flag != 0 }

// joinsAny reports whether one of the namespaces in flags is joined.
func (n namespaces) joinsAny(flags uint64) bool {
	return slices.ContainsFunc(n.joins, func(j specs.LinuxNamespace) bool {
		flag, _ := nsFlag(j.Type)
		return flag&flags != 0
	})
}

// mapped reports whether the container is in a user namespace other than its
// caller's.
func (n namespaces) mapped() bool {
	return n.has(unix.CLONE_NEWUSER) || n.joinsAny(unix.CLONE_NEWUSER)
}

func namespacesOf(list []specs.LinuxNamespace) (namespaces, error) {
	var n namespaces
	for _, e := range list {
		flag, ok := nsFlag(e.Type)
		if !ok {
			return n, fault.New(fault.Invalid, "use namespace", string(e.Type), "not known", "")
		}
		if n.has(flag) || n.joinsAny(flag) {
			return n, fault.New(fault.Invalid, "use namespace", string(e.Type), "given twice", "")
		}
		if e.Path == "" {
			n.flags |= flag
			continue
		}
		if flag == unix.CLONE_NEWNS {
			return n, fault.New(fault.Unsupported, "join namespace", e.Path, "joining a mount namespace is not supported",
				"let the container have its own")
		}
		n.joins = append(n.joins, e)
	}
	if !n.has(unix.CLONE_NEWNS) {
		return n, fault.New(fault.Invalid, "use namespaces", "", "without a mount namespace", "add one")
	}
	slices.SortStableFunc(n.joins, func(a, b specs.LinuxNamespace) int { return last(a.Type) - last(b.Type) })
	return n, nil
}

func last(t specs.LinuxNamespaceType) int {
	if t == specs.UserNamespace {
		return 1
	}
	return 0
}

// enter appends the steps of the process that enters the namespaces to join.
// It makes the container's process, which is the parent's child like itself, and
// ends.
//
// Why a process of its own does this:
//   - A user namespace cannot be entered by a process of several threads
//     (setns(2), EINVAL), so not by the parent.
//   - Namespaces of the host or of another container belong to other user
//     namespaces: entering them takes privilege there, which is gone once the
//     process is in the container's (user_namespaces(7)). So they come first.
//   - Namespaces that are new are to belong to the container's user namespace,
//     joined or new: they are made by the second clone3. A pid namespace made by
//     the first one would be the host's (and could not be entered by its maker).
//   - The cgroup is entered by the first clone3, with the parent's privilege and
//     cgroup namespace: with nsdelegate the kernel lets nobody enter a cgroup that
//     lies outside its cgroup namespace (cgroups(7)), as the container's does of a
//     joined one's. And a new cgroup namespace begins at the cgroup of its maker.
//
// What the process is to others: it stays in the parent's pid namespace, so that
// only processes there see it; entering a pid namespace is for its children
// (pid_namespaces(7)). It has the host root's credentials until it enters the
// user namespace, after which processes of that may have CAP_SYS_PTRACE over
// it, and so may those of a joined pid namespace over the container's process:
// both are untraceable before that and until execve (PR_SET_DUMPABLE 0, then
// CAP_SYS_PTRACE over the memory's user namespace is needed, the host's:
// ptrace(2), access mode checking). The kernel may set "dumpable" to the sysctl
// fs.suid_dumpable with the credentials (commit_creds), which is 1 only where
// somebody debugs setuid programs: so it is said again. Neither has a
// descriptor of the parent but those of the plan (CVE-2016-9962), and with a
// lean fork neither has its memory.
func (c *compilation) enter() {
	c.hide()
	s := c.b.step("shed", "descriptors", "", "of the parent")
	s.add(plan.Op{Kind: plan.CloseOthers})
	s.end()
	c.joinGroups()
	for _, j := range c.ns.joins {
		flag, _ := nsFlag(j.Type)
		s := c.b.step("join", string(j.Type), j.Path, "")
		s.call(unix.SYS_SETNS, plan.In(c.b.has(joinName(j))), plan.Bits(flag))
		s.end()
		if flag == unix.CLONE_NEWUTS {
			c.names() // with the privilege over it that is gone later
		}
	}
	if c.ns.joinsAny(unix.CLONE_NEWUSER) {
		c.hide()
	}
	s = c.b.step("fork", nsText(c.cloneFlags()), "", "one call, so that the user namespace owns all of them")
	s.add(plan.Op{Kind: plan.Fork}, plan.Bits(c.cloneFlags()))
	s.end()
	s = c.b.step("shed", "signal actions", "", "of the parent")
	s.add(plan.Op{Kind: plan.ResetInherited})
	s.call(unix.SYS_UMASK, plan.Int(0))
	s.end()
}

// hide makes the process untraceable for everyone without CAP_SYS_PTRACE in the
// parent's user namespace, until execve.
func (c *compilation) hide() {
	s := c.b.step("hide", "from tracers", "", "")
	s.call(unix.SYS_PRCTL, plan.Int(unix.PR_SET_DUMPABLE), plan.Int(0), plan.Int(0), plan.Int(0), plan.Int(0))
	s.end()
}

// joinName is the descriptor of a namespace to join.
func joinName(n specs.LinuxNamespace) string { return "ns:" + string(n.Type) }

func nsFlag(t specs.LinuxNamespaceType) (uint64, bool) {
	switch t {
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER, true
	case specs.MountNamespace:
		return unix.CLONE_NEWNS, true
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID, true
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET, true
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC, true
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS, true
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP, true
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME, true
	}
	return 0, false
}

// nsText lists namespaces by their short names.
func nsText(flags uint64) string {
	var out []string
	for _, n := range []struct {
		flag uint64
		name string
	}{
		{unix.CLONE_NEWUSER, "user"}, {unix.CLONE_NEWNS, "mnt"}, {unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNET, "net"},
		{unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"}, {unix.CLONE_NEWCGROUP, "cgroup"},
		{unix.CLONE_NEWTIME, "time"},
	} {
		if flags&n.flag != 0 {
			out = append(out, n.name)
		}
	}
	return strings.Join(out, " ")
}
