package launch

import (
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// bindName is the descriptor of the i-th mount of a spec, when that is a bind or
// prepared.
func bindName(i int) string { return "mount:" + strconv.Itoa(i) }

// extraName is the descriptor of a mount that no spec speaks of.
func extraName(target string) string { return "extra:" + target }

// IsBind reports whether a mount of a spec is handed to the plan as a prepared,
// detached mount.
func IsBind(m specs.Mount) bool {
	return !remounts(m) && (m.Type == "bind" || m.Type == "none" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind"))
}

// remounts reports whether a mount of a spec changes one that is there.
func remounts(m specs.Mount) bool { return slices.Contains(m.Options, "remount") }

// mounts appends all mounts of the spec, in its order, and the extra ones.
func (c *compilation) mounts() error {
	for i, m := range c.spec.Mounts {
		o := parseOptions(m.Options)
		if clean(m.Destination) == "" {
			return fault.New(fault.Invalid, "mount over", m.Destination, "that is the root", "mount below it")
		}
		if err := c.fits(i, m, o); err != nil {
			return err
		}
		if o.remount {
			c.remount(m, o)
			continue
		}
		if copiesUp(m) {
			c.copyUp(c.b.has(bindName(i)), m, o)
			continue
		}
		if IsBind(m) {
			c.bind(c.b.has(bindName(i)), m.Destination, m.Source, o)
			continue
		}
		if kind, ok := c.ns.prepared(m); ok {
			if err := c.prepared(c.b.has(bindName(i)), m, kind, o); err != nil {
				return err
			}
			continue
		}
		if err := c.newMount(m, o); err != nil {
			return err
		}
	}
	for _, target := range c.opt.Extra {
		c.bind(c.b.has(extraName(target)), target, "prepared", mountOptions{})
	}
	return nil
}

// notOfNew reports whether an option is other than the size, owner and mode that
// a new file system is to have. On a bind mount(2) ignores these, and callers
// give one list to binds and tmpfs alike; what takes something away, a label or a
// word mistyped is no such option.
func notOfNew(option string) bool {
	name, _, given := strings.Cut(option, "=")
	return !given || !slices.Contains([]string{"size", "mode", "uid", "gid", "nr_blocks", "nr_inodes"}, name)
}

// fits refuses options that a mount of this kind has no use for: they would be
// silently without effect.
func (c *compilation) fits(i int, m specs.Mount, o mountOptions) error {
	refuse := func(what, why, hint string) error {
		return fault.New(fault.Unsupported, "mount on "+m.Destination+" with", what, why, hint)
	}
	bind := IsBind(m)
	mounted := func(before specs.Mount) bool { return clean(before.Destination) == clean(m.Destination) }
	switch {
	case o.remount && !slices.ContainsFunc(c.spec.Mounts[:i], mounted):
		return fault.New(fault.Invalid, "mount again on", m.Destination, "no mount before it in the list is there", "name the place of one")
	case o.remount && (len(o.data) > 0 || o.copyUp || o.idmap):
		return refuse("option remount", "only flags of a mount can be changed: ro, nosuid, nodev, noexec and the like", "give the mount itself its other options")
	case bind && slices.ContainsFunc(o.data, notOfNew):
		return refuse("option "+o.data[slices.IndexFunc(o.data, notOfNew)], "a bind makes no file system that it could be an option of", "leave it out")
	case !bind && (o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0):
		return refuse("an id map", "only binds are mapped: a new file system is the container's own", "leave it out")
	case o.copyUp && !copiesUp(m):
		return refuse("option tmpcopyup", "it is no tmpfs", "leave it out")
	case o.copyUp && !c.opt.Assists:
		return refuse("option tmpcopyup", "not supported", "copy the files in the image or use a volume")
	}
	if !o.copyUp {
		return nil
	}
	for _, before := range c.spec.Mounts[:i] {
		if within(clean(m.Destination), clean(before.Destination)) {
			return refuse("option tmpcopyup", "it lies in the mount on "+before.Destination+", not in the root file system", "leave it out")
		}
	}
	return nil
}

// remount appends the change of a mount that was made before: the flags that are
// named, of that mount alone. mount(2) would take away those that are not named,
// and without "bind" change the file system for all who have it mounted.
func (c *compilation) remount(m specs.Mount, o mountOptions) {
	dest := clean(m.Destination)
	attr := BindAttr(m.Options, false)
	if dest == "dev" && c.ownDev { // nodes and links are still to be made in it
		c.devReadOnly = (c.devReadOnly || attr.Attr_set&unix.MOUNT_ATTR_RDONLY != 0) && attr.Attr_clr&unix.MOUNT_ATTR_RDONLY == 0
		attr.Attr_set &^= unix.MOUNT_ATTR_RDONLY
	}
	all := BindAttr(m.Options, true)
	s := c.b.step("change", "mount on /"+dest, strings.Join(m.Options, ","), "")
	t := c.b.slot("target")
	s.lookup(c.root, dest, 0, t)
	for _, a := range []struct {
		attr      unix.MountAttr
		recursive bool
	}{{attr, false}, {all, true}} {
		if a.attr != (unix.MountAttr{}) {
			s.setAttr(t, a.recursive, a.attr, attrText(a.attr.Attr_set))
		}
	}
	c.propagate(s, t, o)
	s.end()
}

// within reports whether a clean path is dir or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// copyUp appends the attaching of a tmpfs that was filled outside.
func (c *compilation) copyUp(from plan.Slot, m specs.Mount, o mountOptions) {
	dest := clean(m.Destination)
	s := c.b.step("attach", "tmpfs → /"+dest, strings.Join(o.data, ","), "made outside, with what lay there")
	mount, t := c.b.slot("mount"), c.b.slot("target")
	s.copy(from, mount)
	c.ownDev = c.ownDev || dest == "dev"
	c.keep("tmpfs", dest, mount, s)
	s.target(c.root, dest, directory, t)
	s.attach(mount, t)
	c.place(s, dest, mount)
	c.propagate(s, mount, o)
	s.end()
}

// bind appends the attaching of a prepared mount. Its propagation is set inside,
// after the move: a clone of a shared mount is its peer, and what is mounted on
// it later would show up on the host.
func (c *compilation) bind(from plan.Slot, dest, source string, o mountOptions) {
	if o.propagation == 0 {
		o.propagation, o.recursive = unix.MS_PRIVATE, true
	}
	s := c.b.step("bind", source+" → /"+clean(dest), propagationText(o.propagation, o.recursive), "")
	mount, t := c.b.slot("mount"), c.b.slot("target")
	s.copy(from, mount)
	s.target(c.root, clean(dest), likeMount, t)
	s.attach(mount, t)
	if clean(dest) == "proc" {
		c.boundProc = c.b.slot("bound proc")
		s.copy(mount, c.boundProc)
	}
	c.place(s, clean(dest), mount)
	c.propagate(s, mount, o)
	s.end()
}

func (c *compilation) propagate(s *step, mount plan.Slot, o mountOptions) {
	if o.propagation != 0 {
		s.setAttr(mount, o.recursive, unix.MountAttr{Propagation: o.propagation}, propagationText(o.propagation, o.recursive))
	}
}

func propagationText(p uint64, recursive bool) string {
	name := "private"
	switch p {
	case unix.MS_SLAVE:
		name = "slave"
	case unix.MS_SHARED:
		name = "shared"
	case unix.MS_UNBINDABLE:
		name = "unbindable"
	}
	if recursive {
		return "r" + name
	}
	return name
}

// newMount appends a new instance of a file system.
func (c *compilation) newMount(m specs.Mount, o mountOptions) error {
	fs, data := m.Type, o.data
	switch fs {
	case "":
		return fault.New(fault.Invalid, "mount", m.Destination, "without a type", "give the mount a type")
	case "cgroup":
		fs, data = "cgroup2", nil // v1 hierarchies cannot be mounted in a user namespace, and are unsafe to delegate
	case "devpts":
		data = c.devptsOptions(data)
	}
	data = c.labelled(fs, data)
	dest := clean(m.Destination)
	if dest == "dev" {
		// Nodes and links are still to be made in it.
		c.devReadOnly = o.attr&unix.MOUNT_ATTR_RDONLY != 0
		o.attr &^= unix.MOUNT_ATTR_RDONLY
		c.ownDev = true
	}
	s := c.b.step("mount", fs+" → /"+dest, strings.Join(slices.DeleteFunc([]string{attrText(o.attr), strings.Join(data, ",")}, empty), " "), "")
	at := c.newFS(s, fs, m.Source, data, o.attr)
	c.keep(fs, dest, at, s)
	t := c.b.slot("target")
	s.target(c.root, dest, directory, t)
	s.attach(at, t)
	c.place(s, dest, at)
	c.propagate(s, at, o)
	s.end()
	return nil
}

func empty(s string) bool { return s == "" }

// newFS appends fsopen, fsconfig and fsmount and returns the slot of the
// detached mount.
func (c *compilation) newFS(s *step, fs, source string, data []string, attr uint64) plan.Slot {
	ctx, mount := c.b.slot("fs"), c.b.slot("mount")
	s.call(unix.SYS_FSOPEN, plan.Str(fs), plan.Bits(unix.FSOPEN_CLOEXEC)).save(ctx)
	if source == "" {
		source = fs
	}
	fsString(s, ctx, "source", source)
	for _, d := range data {
		key, value, has := strings.Cut(d, "=")
		if has {
			fsString(s, ctx, key, value)
			continue
		}
		s.call(unix.SYS_FSCONFIG, plan.In(ctx), plan.Int(unix.FSCONFIG_SET_FLAG), plan.Str(key), plan.Int(0), plan.Int(0))
	}
	s.call(unix.SYS_FSCONFIG, plan.In(ctx), plan.Int(unix.FSCONFIG_CMD_CREATE), plan.Int(0), plan.Int(0), plan.Int(0))
	s.call(unix.SYS_FSMOUNT, plan.In(ctx), plan.Bits(unix.FSMOUNT_CLOEXEC), plan.Bits(attr)).save(mount)
	return mount
}

func fsString(s *step, ctx plan.Slot, key, value string) {
	s.call(unix.SYS_FSCONFIG, plan.In(ctx), plan.Int(unix.FSCONFIG_SET_STRING), plan.Str(key), plan.Str(value), plan.Int(0))
}

// keep remembers the descriptors of mounts that later steps work below.
func (c *compilation) keep(fs, dest string, mount plan.Slot, s *step) {
	switch {
	case dest == "dev":
		c.dev = c.b.slot("dev")
		s.copy(mount, c.dev)
	case fs == "proc" && dest == "proc":
		c.proc = c.b.slot("proc")
		s.copy(mount, c.proc)
	case fs == "devpts" && dest == "dev/pts":
		c.pts = c.b.slot("pts")
		s.copy(mount, c.pts)
	}
}

// devptsOptions drops gid=N when the group is not mapped: the kernel would
// refuse the mount with EINVAL.
func (c *compilation) devptsOptions(data []string) []string {
	if !c.mapsIDs() {
		return data
	}
	for _, o := range data {
		value, ok := strings.CutPrefix(o, "gid=")
		if !ok {
			continue
		}
		gid, err := strconv.ParseUint(value, 10, 32)
		if err != nil || !mapped(c.spec.Linux.GIDMappings, uint32(gid)) {
			return without(data, "gid=")
		}
	}
	return data
}

func mapped(list []specs.LinuxIDMapping, id uint32) bool {
	_, ok := toHost(list, id)
	return ok
}

// toHost translates an id of the container; false when it is not mapped.
func toHost(list []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range list {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}
