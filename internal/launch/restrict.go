package launch

import (
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// names appends hostname and domainname, in the UTS namespace that the process
// is in by then.
func (c *compilation) names() {
	if h := c.spec.Hostname; h != "" {
		s := c.b.step("hostname", h, "", "")
		s.call(unix.SYS_SETHOSTNAME, plan.Str(h), plan.Int(len(h)))
		s.end()
	}
	if d := c.spec.Domainname; d != "" {
		s := c.b.step("domainname", d, "", "")
		s.call(unix.SYS_SETDOMAINNAME, plan.Str(d), plan.Int(len(d)))
		s.end()
	}
}

// loopback brings lo up in a new network namespace: one ioctl is less than a
// netlink exchange (netdevice(7), SIOCSIFFLAGS).
func (c *compilation) loopback() {
	if !c.ns.has(unix.CLONE_NEWNET) {
		return
	}
	var request [40]byte // struct ifreq
	copy(request[:], "lo")
	request[16] = unix.IFF_UP | unix.IFF_RUNNING
	s := c.b.step("link up", "lo", "", "")
	socket := c.b.slot("socket")
	s.call(unix.SYS_SOCKET, plan.Int(unix.AF_INET), plan.Bits(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), plan.Int(0)).save(socket)
	s.call(unix.SYS_IOCTL, plan.In(socket), plan.Bits(unix.SIOCSIFFLAGS), plan.Bytes(request[:], "lo up"))
	s.end()
}

// sysctls appends the writes below /proc/sys, through the container's own proc
// and with no link or mount in the way (CVE-2025-52881).
func (c *compilation) sysctls() error {
	set := c.spec.Linux.Sysctl
	for _, key := range slices.Sorted(maps.Keys(set)) {
		name := sysctlPath(key)
		if err := c.maySet(key, name); err != nil {
			return err
		}
		s := c.b.step("sysctl", key+"="+set[key], "", "")
		if c.proc == 0 {
			c.findProc(s)
		}
		how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		f := c.b.slot("sysctl")
		s.call(unix.SYS_OPENAT2, plan.In(c.proc), plan.Str("sys/"+name), plan.Bytes(bytesOf(&how), "beneath write"), plan.Int(unix.SizeofOpenHow)).save(f)
		s.call(unix.SYS_WRITE, plan.In(f), plan.Str(set[key]), plan.Int(len(set[key])))
		s.call(unix.SYS_CLOSE, plan.In(f))
		s.end()
	}
	return nil
}

// findProc appends what makes the slot of proc one for settings: the proc that is
// bound on /proc, as where another pid namespace's was handed over (none could be
// made for it in here), or a new one, if that is anything else.
func (c *compilation) findProc(s *step) {
	c.proc = c.b.slot("proc")
	over := ref{}
	if c.boundProc != 0 {
		s.call(unix.SYS_FSTATFS, plan.In(c.boundProc), plan.Scratch("statfs", sysx.SizeofStatfs, 0))
		is := s.equals(plan.Scratch("statfs", sysx.SizeofStatfs, 0), 0xffffffff, unix.PROC_SUPER_MAGIC)
		no := s.jump()
		is.okHere()
		s.copy(c.boundProc, c.proc)
		over = s.jump()
		no.okHere()
	}
	s.copy(c.newFS(s, "proc", "proc", nil, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC), c.proc)
	if over.s != nil {
		over.okHere()
	}
}

// sysctlPath turns a sysctl's name into a path below /proc/sys, as sysctl(8)
// does: the separator is the one of "." and "/" that comes first.
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		return strings.ReplaceAll(key, ".", "/")
	}
	return key
}

// maySet refuses what is not the container's own: the write would change the
// host or another container.
func (c *compilation) maySet(key, name string) error {
	need := uint64(0)
	switch {
	case slices.Contains(strings.Split(name, "/"), "..") || strings.HasPrefix(name, "/"):
		return fault.New(fault.Invalid, "set sysctl", key, "not a sysctl", "")
	case strings.HasPrefix(name, "net/"):
		need = unix.CLONE_NEWNET
	case name == "kernel/sem", strings.HasPrefix(name, "kernel/msg"), strings.HasPrefix(name, "kernel/shm"), strings.HasPrefix(name, "fs/mqueue/"):
		need = unix.CLONE_NEWIPC
	case strings.HasPrefix(name, "user/"):
		need = unix.CLONE_NEWUSER
	case name == "kernel/domainname":
		need = unix.CLONE_NEWUTS
	default:
		return fault.New(fault.Invalid, "set sysctl", key, "not kept apart by any namespace: it would change the host", "set it on the host")
	}
	if !c.ns.has(need) {
		return fault.New(fault.Invalid, "set sysctl", key, "the container has no "+nsText(need)+" namespace of its own", "give it one")
	}
	return nil
}

// workdir appends the making and entering of the working directory. A directory
// that the container's root may not enter (of an unmapped owner) is tried again
// by the process's own user.
func (c *compilation) workdir() {
	cwd := c.process.Cwd
	s := c.b.step("chdir", cwd, "", "")
	s.Kind = plan.Chdir
	at := c.b.slot("cwd")
	if name := clean(cwd); name != "" {
		s.target(c.root, name, directory, at)
	} else {
		s.copy(c.root, at)
	}
	s.call(unix.SYS_FCHDIR, plan.In(at)).save(c.b.slot("entered")).ignore(unix.EACCES)
	s.end()
}

// restrictPaths appends read-only paths, masks and the read-only root.
func (c *compilation) restrictPaths() {
	for _, p := range c.spec.Linux.ReadonlyPaths {
		c.readOnlyPath(p)
	}
	if len(c.spec.Linux.MaskedPaths) > 0 {
		c.blank()
	}
	for _, p := range c.spec.Linux.MaskedPaths {
		c.mask(p)
	}
	readOnly := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if c.devReadOnly {
		s := c.b.step("read-only", "/dev", "", "")
		s.setAttr(c.dev, false, readOnly, "ro")
		s.end()
	}
	if c.spec.Root != nil && c.spec.Root.Readonly {
		s := c.b.step("read-only", "/", "", "")
		s.setAttr(c.root, false, readOnly, "ro")
		s.end()
	}
	if p, _ := propagationOf(c.spec.Linux.RootfsPropagation); p == unix.MS_SHARED || p == unix.MS_UNBINDABLE {
		name := c.spec.Linux.RootfsPropagation
		s := c.b.step("propagate", "/", name, "")
		s.setAttr(c.root, strings.HasPrefix(name, "r"), unix.MountAttr{Propagation: p}, name)
		s.end()
	}
}

// place is a mount of the spec below which something is to be masked or
// read-only.
type place struct {
	dest string
	at   plan.Slot
}

// place remembers the mount in a slot, attached at dest, when a path to be
// restricted lies below it.
func (c *compilation) place(s *step, dest string, mount plan.Slot) {
	restricted := func(p string) bool { return strings.HasPrefix(clean(p), dest+"/") }
	if !slices.ContainsFunc(c.spec.Linux.MaskedPaths, restricted) && !slices.ContainsFunc(c.spec.Linux.ReadonlyPaths, restricted) {
		return
	}
	at := c.b.slot("on:" + dest)
	s.copy(mount, at)
	c.places = append(c.places, place{dest, at})
}

// below says where a path to be restricted is looked up: in the last mount that
// it lies below, by that one's descriptor. Who shares the root file system with
// the container could rename /proc in it, and the mount with it, between the two:
// the path would be missing then, and the mount have no masks.
func (c *compilation) below(name string) (root plan.Slot, rest string) {
	for _, p := range slices.Backward(c.places) {
		if rest, ok := strings.CutPrefix(name, p.dest+"/"); ok {
			return p.at, rest
		}
	}
	return c.root, name
}

func (c *compilation) readOnlyPath(name string) {
	s := c.b.step("read-only", "/"+clean(name), "", "")
	t, mount := c.b.slot("target"), c.b.slot("mount")
	root, rest := c.below(clean(name))
	missing := s.lookup(root, rest, 0, t).ignore(unix.ENOENT)
	s.cloneOf(t, mount, true)
	s.setAttr(mount, true, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, "ro")
	s.attach(mount, t)
	missing.ignoredHere()
	s.end()
}

// blank makes the one empty file system that covers all masked directories: a
// tmpfs each would cost a superblock and a shrinker each.
func (c *compilation) blank() {
	s := c.b.step("prepare", "blank directory", "ro", "shared by all masked directories")
	attr := uint64(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	s.copy(c.newFS(s, "tmpfs", "tmpfs", []string{"nr_blocks=1", "nr_inodes=2", "mode=755"}, attr), c.b.slot("blank"))
	s.end()
}

// mask appends the covering of one path, by the type of what is there: the
// descriptor that was looked at is the one that is covered. The blank directory
// itself is attached over the first directory, clones of it over the others: a
// detached mount cannot be cloned before v6.15.
func (c *compilation) mask(name string) {
	s := c.b.step("mask", "/"+clean(name), "", "")
	t, mount, blank, shown := c.b.slot("target"), c.b.slot("mount"), c.b.slot("blank"), c.b.slot("shown")
	root, rest := c.below(clean(name))
	missing := s.lookup(root, rest, 0, t).ignore(unix.ENOENT)
	isDir := s.isDir(t)
	s.cloneOf(c.null, mount, false)
	s.setAttr(mount, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}, "ro,nosuid,noexec")
	s.attach(mount, t)
	over := s.jump()
	isDir.okHere()
	again := s.add(plan.Op{Kind: plan.TestSlot}, plan.Int(int(shown)))
	s.attach(blank, t)
	s.copy(blank, shown)
	first := s.jump()
	again.okHere()
	s.cloneOf(shown, mount, false)
	s.attach(mount, t)
	over.okHere()
	first.okHere()
	missing.ignoredHere()
	s.end()
}
