package launch

import (
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// Descriptors of a plan with hooks: see Container.
const (
	createState = "hooks:createContainer"
	startState  = "hooks:startContainer"
	hookOutput  = "hooks:output"
	hookBundle  = "hooks:bundle"
	answer      = "answer"
)

// hookFiles names the descriptors that hooks need.
func (c *compilation) hookFiles() {
	h := c.spec.Hooks
	if h == nil || !c.opt.Assists {
		return
	}
	if len(h.CreateContainer) > 0 {
		c.b.file(createState)
		c.b.file(hookOutput)
		if c.opt.Bundle {
			c.b.file(hookBundle)
		}
	}
	if len(h.StartContainer) > 0 {
		c.b.file(startState)
	}
	if c.opt.Gate && len(h.StartContainer)+len(h.Poststart) > 0 {
		c.b.file(answer)
	}
}

// keepOldRoot appends the opening of the host's tree, which createContainer
// hooks see, while it is the root.
func (c *compilation) keepOldRoot() {
	if c.b.has(createState) == 0 {
		return
	}
	s := c.b.step("keep", "host's /", "", "for hooks")
	flags := plan.Bits(unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC)
	s.call(unix.SYS_OPENAT, plan.Int(unix.AT_FDCWD), plan.Str("/"), flags, plan.Int(0)).save(c.b.slot("oldroot"))
	s.end()
}

// createContainerHooks appends the hooks that run in the container's namespaces
// and see the host's tree, in which the finished file system of the container
// lies where config.json says, as pivot_root is still to come. What a hook mounts
// there is mounted in the container as well.
func (c *compilation) createContainerHooks() {
	if c.b.has(createState) == 0 {
		return
	}
	old := c.b.slot("oldroot")
	c.showRoot(old)
	for _, h := range c.spec.Hooks.CreateContainer {
		c.hook("createContainer", h, createState, func(s *step) {
			output := c.b.has(hookOutput)
			s.call(unix.SYS_DUP3, plan.In(output), plan.Int(1), plan.Int(0))
			s.call(unix.SYS_DUP3, plan.In(output), plan.Int(2), plan.Int(0))
			s.call(unix.SYS_FCHDIR, plan.In(old))
			s.call(unix.SYS_CHROOT, plan.Str("."))
		})
	}
	c.hideRoot()
}

// showRoot appends the moving of the container's mounts to where config.json says,
// in the host's tree. They are what they will be, no shared ones among them nor
// what they lie on: hooks pivot into them (nvidia-cdi-hook update-ldcache), and
// pivot_root(2) refuses shared ones. A path that the container's root may not walk
// is left alone, unless the caller has made it for the hooks.
func (c *compilation) showRoot(old plan.Slot) {
	name := clean(c.spec.Root.Path)
	s := c.b.step("show", "/ → host's /"+name, "", "for hooks")
	t := c.b.slot("bundle root")
	var unreachable ref
	if bundle := c.b.has(hookBundle); bundle != 0 {
		dir, base := path.Split(name)
		s.setAttr(bundle, false, unix.MountAttr{Propagation: unix.MS_PRIVATE}, "private")
		s.lookup(old, clean(dir), unix.O_DIRECTORY, c.b.slot("target"))
		s.attach(bundle, c.b.slot("target"))
		unreachable = s.lookup(bundle, base, unix.O_DIRECTORY, t)
	} else {
		unreachable = s.lookup(old, name, unix.O_DIRECTORY, t).ignore(unix.EACCES, unix.ENOENT)
	}
	s.attach(c.root, t)
	unreachable.ignoredHere()
	s.end()
}

// hideRoot appends the end of showRoot.
func (c *compilation) hideRoot() {
	s := c.b.step("hide", "/ from the host's tree", "", "over all else again")
	shown := s.add(plan.Op{Kind: plan.TestSlot}, plan.Int(int(c.b.slot("bundle root"))))
	over := s.jump()
	shown.okHere()
	s.call(unix.SYS_MOVE_MOUNT, plan.In(c.root), plan.Str(""), plan.Int(unix.AT_FDCWD), plan.Str("/"), plan.Bits(unix.MOVE_MOUNT_F_EMPTY_PATH))
	over.okHere()
	s.end()
}

// startContainerHooks appends the hooks that run in the container as its process
// is about to.
func (c *compilation) startContainerHooks() {
	if c.b.has(startState) == 0 || c.joined {
		return
	}
	for _, h := range c.spec.Hooks.StartContainer {
		c.hook("startContainer", h, startState, func(*step) {})
	}
}

// Offsets in siginfo_t of a child's end and in struct pollfd (waitid(2),
// poll(2)), and values found there.
const (
	sizeofSiginfo = 128
	siginfoCode   = 8
	siginfoStatus = 24
	cldExited     = 1
	pollEvents    = 4 // events, and revents in the upper half
)

// hook appends one hook: a process of its own that has the state as its stdin,
// for whose end the child waits. enter appends what that process does first.
func (c *compilation) hook(kind string, h specs.Hook, state string, enter func(*step)) {
	limit := ""
	if h.Timeout != nil {
		limit = "timeout=" + strconv.Itoa(*h.Timeout) + "s"
	}
	s := c.b.step("hook", kind+" hook "+h.Path, limit, "")
	s.Kind = plan.Hook
	stdin, pidfd := c.b.has(state), c.b.slot("hook")
	s.call(unix.SYS_LSEEK, plan.In(stdin), plan.Int(0), plan.Int(0))
	spawned := s.add(plan.Op{Kind: plan.Spawn, Save: pidfd})
	s.call(unix.SYS_DUP3, plan.In(stdin), plan.Int(0), plan.Int(0))
	enter(s)
	if kind == "createContainer" || c.opt.Passed > 0 { // else there are none left
		closing := s.call(unix.SYS_CLOSE_RANGE, plan.Int(3), plan.Bits(1<<32-1), plan.Bits(unix.CLOSE_RANGE_CLOEXEC))
		if kind != "createContainer" {
			closing.ignore(unix.EPERM, unix.ENOSYS) // a filter's answer: what is passed on is the hook's then, too
		}
	}
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	s.call(unix.SYS_EXECVE, plan.Str(h.Path), plan.Strings(args), plan.Strings(h.Env))
	spawned.okHere()
	c.awaitHook(s, pidfd, h.Timeout)
	s.end()
}

// awaitHook appends the wait for a hook's end and the look at how it ended.
func (c *compilation) awaitHook(s *step, pidfd plan.Slot, timeout *int) {
	const pidfdType = 3 // P_PIDFD
	wait := func() {
		s.call(unix.SYS_WAITID, plan.Int(pidfdType), plan.In(pidfd), plan.Scratch("siginfo", sizeofSiginfo, 0), plan.Bits(unix.WEXITED), plan.Int(0))
	}
	// Written to, so of a content that no constant has: equal ones are one.
	poll := struct {
		unix.PollFd
		tag [8]byte
	}{unix.PollFd{Events: unix.POLLIN}, [8]byte{'p', 'o', 'l', 'l', 'f', 'd'}}
	pollfd := plan.Bytes(bytesOf(&poll), "pollfd")
	until := plan.Int(0)
	if timeout != nil {
		until = plan.Words(plan.Int(*timeout), plan.Int(0)) // of its own: the kernel writes to it
	}
	s.add(plan.Op{Kind: plan.Patch}, plan.Int(int(pidfd)), pollfd)
	s.call(unix.SYS_PPOLL, pollfd, plan.Int(1), until, plan.Int(0), plan.Int(8))
	ended := s.equals(pollfd.Plus(pollEvents), unix.POLLIN<<16, unix.POLLIN<<16)
	s.call(unix.SYS_PIDFD_SEND_SIGNAL, plan.In(pidfd), plan.Int(int(unix.SIGKILL)), plan.Int(0), plan.Int(0))
	wait()
	c.hookFails(s, unix.ETIMEDOUT)
	ended.okHere()
	wait()
	s.call(unix.SYS_CLOSE, plan.In(pidfd))
	killed := s.equals(plan.Scratch("siginfo", sizeofSiginfo, siginfoCode), 0xffffffff, cldExited)
	c.hookFails(s, unix.ECANCELED)
	killed.okHere()
	good := s.equals(plan.Scratch("siginfo", sizeofSiginfo, siginfoStatus), 0xffffffff, 0)
	c.hookFails(s, unix.ECANCELED)
	good.okHere()
}

// hookFails appends the end of the child, told to whoever opened the gate.
func (c *compilation) hookFails(s *step, errno unix.Errno) {
	if at := c.b.has(answer); at != 0 && strings.HasPrefix(s.Object, "startContainer") {
		s.call(unix.SYS_WRITE, plan.In(at), plan.Str("x"), plan.Int(1))
	}
	s.fail(errno)
}
