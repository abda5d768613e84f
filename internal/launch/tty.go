package launch

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/plan"
)

// terminal appends the making of the pseudoterminal of a container's first
// process and of /dev/console.
func (c *compilation) terminal() error {
	if !c.process.Terminal {
		return nil
	}
	c.openTerminal()
	if !c.hostDev() {
		slave := c.b.slot("tty")
		s := c.b.step("bind", "terminal → /dev/console", "", "")
		t, mount := c.b.slot("target"), c.b.slot("mount")
		s.target(c.root, "dev/console", file, t)
		s.cloneOf(slave, mount, false)
		s.attach(mount, t)
		s.end()
	}
	c.useTerminal()
	return nil
}

// openTerminal opens a pseudoterminal of the container's devpts and sends the
// master to the parent. It is opened in the container, so that its user owns
// it, and checked to be one: what lies at /dev/pts/ptmx in a running container
// is the container's choice (CVE-2025-52565).
func (c *compilation) openTerminal() {
	master, slave := c.b.slot("ptmx"), c.b.slot("tty")
	s := c.b.step("open", "terminal", consoleText(c.process.ConsoleSize), "")
	flags := uint64(unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK)
	if c.pts != 0 {
		s.call(unix.SYS_OPENAT, plan.In(c.pts), plan.Str("ptmx"), plan.Bits(flags|unix.O_NOFOLLOW|unix.O_CLOEXEC), plan.Int(0)).save(master)
	} else {
		how, size := s.b.openHow(flags)
		s.call(unix.SYS_OPENAT2, plan.In(c.root), plan.Str("dev/pts/ptmx"), how, size).save(master)
	}
	s.verifyDevice(master, device{major: 5, minor: 2})
	s.call(unix.SYS_FSTATFS, plan.In(master), plan.Scratch("statfs", sysx.SizeofStatfs, 0))
	s.equals(plan.Scratch("statfs", sysx.SizeofStatfs, 0), 0xffffffff, sysx.DevptsMagic).op().Skip = 1
	s.fail(unix.ENXIO)
	s.call(unix.SYS_IOCTL, plan.In(master), plan.Bits(unix.TIOCSPTLCK), plan.Scratch("zero", 8, 0))
	s.call(unix.SYS_IOCTL, plan.In(master), plan.Bits(unix.TIOCGPTPEER), plan.Bits(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)).save(slave)
	if b := c.process.ConsoleSize; b != nil && b.Height > 0 && b.Width > 0 {
		size := unix.Winsize{Row: uint16(b.Height), Col: uint16(b.Width)}
		s.call(unix.SYS_IOCTL, plan.In(slave), plan.Bits(unix.TIOCSWINSZ), plan.Bytes(bytesOf(&size), "winsize"))
	}
	if uid := c.process.User.UID; uid != 0 {
		s.call(unix.SYS_FCHOWN, plan.In(slave), plan.Int(int(uid)), plan.Int(-1))
	}
	s.end()
	c.send(master, "terminal", plan.TellConsole, "to the process that keeps it")
}

func consoleText(b *specs.Box) string {
	if b == nil {
		return ""
	}
	return limitText(uint64(b.Height)) + "x" + limitText(uint64(b.Width))
}

// send appends the sending of a descriptor to the parent: a sendmsg with SCM_RIGHTS: its structs lie in the plan, the
// descriptor's number is patched in (unix(7), cmsg(3)).
func (c *compilation) send(fd plan.Slot, object, tell, why string) {
	s := c.b.step("send", object, "", why)
	control := []byte{
		20, 0, 0, 0, 0, 0, 0, 0, // cmsg_len: header 16, one descriptor 4
		unix.SOL_SOCKET, 0, 0, 0, unix.SCM_RIGHTS, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0,
	}
	rights := plan.Bytes(control, "rights")
	s.add(plan.Op{Kind: plan.Patch}, plan.Int(int(fd)), rights.Plus(16))
	body := plan.Words(plan.Const(tell, tell), plan.Int(1))
	message := plan.Words(plan.Int(0), plan.Int(0), body, plan.Int(1), rights, plan.Int(len(control)), plan.Int(0))
	s.call(unix.SYS_SENDMSG, plan.In(c.b.slot(plan.ReportName)), message, plan.Bits(unix.MSG_NOSIGNAL))
	s.end()
}

// useTerminal makes the terminal the controlling one and stdio. The session was
// made at the beginning.
func (c *compilation) useTerminal() {
	slave := c.b.slot("tty")
	s := c.b.step("use", "terminal", "stdin stdout stderr", "")
	s.call(unix.SYS_IOCTL, plan.In(slave), plan.Bits(unix.TIOCSCTTY), plan.Int(0))
	for fd := range 3 {
		s.call(unix.SYS_DUP3, plan.In(slave), plan.Int(fd), plan.Int(0))
	}
	s.end()
}

// cloneOf appends the cloning of what slot from holds into slot to.
func (s *step) cloneOf(from, to plan.Slot, recursive bool) {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	s.call(unix.SYS_OPEN_TREE, plan.In(from), plan.Str(""), plan.Bits(flags)).save(to)
}
