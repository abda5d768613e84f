package launch

import (
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// FirstPassed is the lowest descriptor that a program is handed besides stdio, as
// in sd_listen_fds(3).
const FirstPassed = 3

// PassedName is the i-th descriptor that is the program's, too.
func PassedName(i int) string { return "passed:" + strconv.Itoa(i) }

func (c *compilation) passedFiles() {
	for i := range c.opt.Passed {
		c.b.file(PassedName(i))
	}
}

// passDescriptors appends what lets the passed descriptors survive execve. They
// have the numbers that the program expects from the beginning on: nothing of the
// plan lies there.
func (c *compilation) passDescriptors() {
	if c.opt.Passed == 0 {
		return
	}
	s := c.b.step("pass", "descriptors", strconv.Itoa(c.opt.Passed), "")
	for i := range c.opt.Passed {
		s.call(unix.SYS_FCNTL, plan.In(c.b.has(PassedName(i))), plan.Int(unix.F_SETFD), plan.Int(0))
	}
	s.end()
}
