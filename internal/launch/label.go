package launch

import (
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/plan"
)

// label is what the process is to run as under a security module: what is
// written, and the files to try, below /proc/thread-self/attr (apparmor(7),
// selinux(8)).
type label struct {
	module, name, content string
	files                 []string
}

func (c *compilation) labels() (out []label) {
	if p := c.process.ApparmorProfile; p != "" && p != "unconfined" {
		out = append(out, label{"AppArmor profile", p, "exec " + p, []string{"apparmor/exec", "exec"}})
	}
	if l := c.process.SelinuxLabel; l != "" {
		out = append(out, label{"SELinux label", l, l, []string{"exec"}})
	}
	return out
}

// openLabels appends the opening of the files to write labels to, in the host's
// proc before the container's root is entered, and checks that it is a proc: a
// label written to a file the container has planted is one that does not hold
// (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
func (c *compilation) openLabels() {
	for _, l := range c.labels() {
		s := c.b.step("open", l.module, "", "in the host's proc")
		at := c.b.slot(l.module)
		flags := plan.Bits(unix.O_WRONLY | unix.O_CLOEXEC)
		var tries []ref
		for i, f := range l.files {
			r := s.call(unix.SYS_OPENAT, plan.Int(unix.AT_FDCWD), plan.Str("/proc/thread-self/attr/"+f), flags, plan.Int(0)).save(at)
			if i < len(l.files)-1 {
				tries = append(tries, r.ignore(unix.ENOENT))
			}
		}
		for _, r := range tries {
			r.okHere()
		}
		s.call(unix.SYS_FSTATFS, plan.In(at), plan.Scratch("statfs", sysx.SizeofStatfs, 0))
		s.equals(plan.Scratch("statfs", sysx.SizeofStatfs, 0), 0xffffffff, unix.PROC_SUPER_MAGIC).op().Skip = 1
		s.fail(unix.ENXIO)
		s.end()
	}
}

// applyLabels appends the writes, which take effect at execve. A kernel without
// the module refuses them (EINVAL).
func (c *compilation) applyLabels() {
	for _, l := range c.labels() {
		s := c.b.step("label", l.module+" "+l.name, "", "")
		at := c.b.slot(l.module)
		s.call(unix.SYS_WRITE, plan.In(at), plan.Str(l.content), plan.Int(len(l.content)))
		s.call(unix.SYS_CLOSE, plan.In(at))
		s.end()
	}
}

// labelled adds the label of mounts to a new file system's options, where its
// files have no labels of their own (mount(8), context=).
func (c *compilation) labelled(fs string, data []string) []string {
	l := c.spec.Linux.MountLabel
	if l == "" || fs != "tmpfs" && fs != "devpts" && fs != "ramfs" {
		return data
	}
	for _, d := range data {
		if strings.HasPrefix(d, "context=") {
			return data
		}
	}
	return append(data[:len(data):len(data)], "context="+l)
}
