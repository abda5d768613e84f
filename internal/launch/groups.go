package launch

import (
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// GroupName is the descriptor of the i-th v1 group to enter.
func GroupName(i int) string { return "group:" + strconv.Itoa(i) }

// groupFiles names the descriptors of the v1 groups.
func (c *compilation) groupFiles() {
	for i := range c.opt.Groups {
		c.b.file(GroupName(i))
	}
}

// joinGroups makes the child enter v1 groups by itself, before anything of the
// container is in sight: only v2 has CLONE_INTO_CGROUP, and a parent that entered
// for its child's sake would be limited, frozen and killed with it. The write is
// judged by the credentials that the file was opened with (CVE-2021-4197), and
// waits for an RCU grace period: once for all of them.
func (c *compilation) joinGroups() {
	if c.opt.Groups == 0 {
		return
	}
	s := c.b.step("enter", "cgroups of v1", "", "as a limit needs them; v2's was entered by the clone")
	for i := range c.opt.Groups {
		f := c.b.has(GroupName(i))
		s.call(unix.SYS_WRITE, plan.In(f), plan.Bytes([]byte{'0'}, "0"), plan.Int(1))
		s.call(unix.SYS_CLOSE, plan.In(f))
	}
	s.end()
}
