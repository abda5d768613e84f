package launch

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// files names the descriptors the plan expects.
func (c *compilation) files() {
	if c.opt.Cgroup {
		c.b.file("cgroup")
	}
	c.groupFiles()
	for _, j := range c.ns.joins {
		c.b.file(joinName(j))
	}
	c.b.file("rootfs")
	for i, m := range c.spec.Mounts {
		if _, prepared := c.ns.prepared(m); prepared || IsBind(m) || copiesUp(m) {
			c.b.file(bindName(i))
		}
	}
	for _, target := range c.opt.Extra {
		c.b.file(extraName(target))
	}
	c.stdioFiles()
	c.root = c.b.has("rootfs")
}

func (c *compilation) stdioFiles() {
	if !c.process.Terminal {
		for _, name := range []string{"stdin", "stdout", "stderr"} {
			c.b.file(name)
		}
	}
	if c.opt.Gate {
		c.b.file("gate")
	}
	if !c.joined {
		c.hookFiles()
	}
	c.passedFiles()
}

// clone writes the parent's steps.
func (c *compilation) clone() error {
	k := &c.b.plan.Clone
	k.Cgroup = c.b.has("cgroup")
	object, detail, why := "", "", "a process that enters namespaces and makes the container's"
	if len(c.ns.joins) == 0 {
		k.Flags = c.cloneFlags()
		object, why = nsText(k.Flags), "one call, so that the user namespace owns all others"
	}
	mapping := ""
	switch {
	case c.ns.has(unix.CLONE_NEWUSER):
		if err := c.maps(k); err != nil {
			return err
		}
		detail = "owner=" + strconv.Itoa(int(k.Owner))
	case c.ns.mapped():
		if err := c.maps(&plan.Clone{}); err != nil {
			return err
		}
		mapping = "of the joined user namespace, not written"
	}
	c.parentStep("clone", object, detail, why)
	l := c.spec.Linux
	if c.ns.mapped() {
		c.parentStep("map ids", oneLine(kernelMap(l.UIDMappings)), oneLine(kernelMap(l.GIDMappings)), mapping)
	} else {
		c.parentStep("map ids", "", "", "")
	}
	return c.limits(k)
}

func (c *compilation) parentStep(verb, object, detail, why string) {
	c.b.step(verb, object, detail, why).end()
}

func oneLine(m string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSuffix(m, "\n"), " ", ":"), "\n", ",")
}

// maps fills in the id maps and the owner of the user namespace: the host id
// behind container root.
func (c *compilation) maps(k *plan.Clone) error {
	l := c.spec.Linux
	owner, ok := toHost(l.UIDMappings, 0)
	_, gok := toHost(l.GIDMappings, 0)
	if !ok || !gok {
		return fault.New(fault.Invalid, "use id map", "", "container id 0 is not mapped", "map id 0: the root of the container sets it up")
	}
	k.UIDMap, k.GIDMap, k.Owner = kernelMap(l.UIDMappings), kernelMap(l.GIDMappings), owner
	return nil
}

func kernelMap(list []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, m := range list {
		for i, n := range []uint32{m.ContainerID, m.HostID, m.Size} {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(strconv.FormatUint(uint64(n), 10))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// limits writes the third step of the parent.
func (c *compilation) limits(k *plan.Clone) error {
	var text []string
	for _, r := range c.process.Rlimits {
		number, ok := harden.Rlimit(r.Type)
		if !ok {
			return fault.New(fault.Invalid, "set resource limit", r.Type, "not known", "see setrlimit(2)")
		}
		if slices.ContainsFunc(k.Rlimits, func(o plan.Rlimit) bool { return o.Resource == number }) {
			return fault.New(fault.Invalid, "set resource limit", r.Type, "given twice", "")
		}
		k.Rlimits = append(k.Rlimits, plan.Rlimit{Resource: number, Soft: r.Soft, Hard: r.Hard})
		text = append(text, strings.ToLower(strings.TrimPrefix(r.Type, "RLIMIT_"))+"="+limitText(r.Soft)+":"+limitText(r.Hard))
	}
	if k.OOMScoreAdj = c.process.OOMScoreAdj; k.OOMScoreAdj != nil {
		text = append(text, "oom="+strconv.Itoa(*k.OOMScoreAdj))
	}
	for _, part := range []func(*plan.Clone) ([]string, error){c.priorities, c.clocks} {
		more, err := part(k)
		if err != nil {
			return err
		}
		text = append(text, more...)
	}
	if err := c.stdioOwner(k); err != nil {
		return err
	}
	c.parentStep("limit", strings.Join(text, " "), "", "")
	return nil
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// stdioOwner finds the host ids of the process, which pipes given as its stdio
// get.
func (c *compilation) stdioOwner(k *plan.Clone) error {
	uid, gid := c.process.User.UID, c.process.User.GID
	if c.mapsIDs() {
		var ok, gok bool
		uid, ok = toHost(c.spec.Linux.UIDMappings, uid)
		gid, gok = toHost(c.spec.Linux.GIDMappings, gid)
		if !ok || !gok {
			return fault.New(fault.Invalid, "run as user", strconv.Itoa(int(c.process.User.UID))+":"+strconv.Itoa(int(c.process.User.GID)),
				"not mapped in the container's user namespace", "give the container a longer id map")
		}
	}
	k.StdioOwned = !c.process.Terminal && (uid != 0 || gid != 0)
	k.StdioUID, k.StdioGID = uid, gid
	return nil
}

func (c *compilation) mapsIDs() bool { return c.ns.mapped() }

// wake appends the wait for the parent to have written the maps.
func (c *compilation) wake() {
	report := c.b.slot(plan.ReportName)
	s := c.b.step("await", "id maps and limits", "", "")
	s.call(unix.SYS_READ, plan.In(report), plan.Scratch("byte", 8, 0), plan.Int(1)).op().Positive = true
	s.call(unix.SYS_SETSID)
	s.end()
}

// shed appends the first steps of a child: nothing of the parent may be left.
func (c *compilation) shed() {
	s := c.b.step("shed", "descriptors, signal actions", "", "of the parent")
	s.add(plan.Op{Kind: plan.CloseOthers})
	s.add(plan.Op{Kind: plan.ResetInherited})
	s.call(unix.SYS_UMASK, plan.Int(0))
	s.end()
}

// identity makes the child root of its user namespace.
func (c *compilation) identity() {
	if !c.mapsIDs() {
		return
	}
	s := c.b.step("become", "root of the user namespace", "", "")
	zero := plan.Int(0)
	s.call(unix.SYS_SETRESGID, zero, zero, zero)
	s.call(unix.SYS_SETGROUPS, zero, zero)
	s.call(unix.SYS_SETRESUID, zero, zero, zero)
	s.end()
}

// isolateMounts keeps later mounts from reaching the host.
func (c *compilation) isolateMounts() {
	attr := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if strings.HasSuffix(c.spec.Linux.RootfsPropagation, "private") {
		attr.Propagation = unix.MS_PRIVATE
	}
	text := propagationText(attr.Propagation, true)
	s := c.b.step("isolate", "/", text, "mounts made here stay here")
	s.call(unix.SYS_MOUNT_SETATTR, plan.Int(unix.AT_FDCWD), plan.Str("/"), plan.Bits(unix.AT_RECURSIVE), c.b.attr(attr, text), plan.Int(32))
	s.end()
}

// attachRoot attaches the root file system over /, where it is the container's
// root from later on. It is taken out of its source's peer group before anything
// is mounted on it: a clone of a shared mount would carry every mount to the host.
func (c *compilation) attachRoot() {
	attr := c.rootAttr()
	c.keepOldRoot()
	s := c.b.step("attach", "rootfs → /", propagationText(attr.Propagation, true), "over all else: paths are looked up in it, by its descriptor")
	s.call(unix.SYS_MOVE_MOUNT, plan.In(c.root), plan.Str(""), plan.Int(unix.AT_FDCWD), plan.Str("/"), plan.Bits(unix.MOVE_MOUNT_F_EMPTY_PATH))
	s.setAttr(c.root, true, attr, propagationText(attr.Propagation, true))
	s.end()
}

// rootAttr is the root's propagation until all is mounted.
func (c *compilation) rootAttr() unix.MountAttr {
	if p := c.spec.Linux.RootfsPropagation; strings.HasSuffix(p, "slave") || strings.HasSuffix(p, "shared") {
		return unix.MountAttr{Propagation: unix.MS_SLAVE}
	}
	return unix.MountAttr{Propagation: unix.MS_PRIVATE}
}

// leaveOldRoot makes the root file system the root and detaches the host's tree,
// which pivot_root(".", ".") has stacked on it, where "." finds it (pivot_root(2),
// NOTES). So does "..": as long as the host's tree lies there, a link such as
// etc/../etc of an image leads into it, in-root look-up or not, as path_is_under
// says that what is mounted on the root is below it (openat2(2),
// RESOLVE_IN_ROOT; fs/namei.c, complete_walk). Hence both in one step, with no
// look-up between them.
func (c *compilation) leaveOldRoot() {
	s := c.b.step("root", "rootfs", "", "after proc and sysfs: the kernel wants to see unmasked ones")
	s.call(unix.SYS_FCHDIR, plan.In(c.root))
	s.call(unix.SYS_PIVOT_ROOT, plan.Str("."), plan.Str("."))
	s.call(unix.SYS_UMOUNT2, plan.Str("."), plan.Bits(unix.MNT_DETACH))
	s.call(unix.SYS_CHDIR, plan.Str("/"))
	s.end()
}
