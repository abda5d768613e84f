package launch

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// Kind is a file system that shows a namespace.
type Kind string

// The kinds, by the names of their file systems.
const (
	Proc    Kind = "proc"    // of a pid namespace
	Sysfs   Kind = "sysfs"   // of a network namespace
	Mqueue  Kind = "mqueue"  // of an ipc namespace
	Cgroup2 Kind = "cgroup2" // of a cgroup namespace
)

// Namespace is the type of the namespace that a file system of kind k shows.
func (k Kind) Namespace() specs.LinuxNamespaceType {
	switch k {
	case Proc:
		return specs.PIDNamespace
	case Sysfs:
		return specs.NetworkNamespace
	case Mqueue:
		return specs.IPCNamespace
	}
	return specs.CgroupNamespace
}

// Prepared reports whether the i-th mount of s is handed to the plan as a
// detached mount, "mount:<i>", although it is no bind, and of which kind that is
// to be: it shows the namespace of type what.Namespace() that the spec joins, or
// the parent's when the spec has none. Its attributes are set by the plan; the
// options of a proc, ProcOptions, are for whoever makes it.
//
// The kernel lets a container in a user namespace make these file systems only
// for namespaces which that one owns (CAP_SYS_ADMIN over the owner of the network
// namespace, sysfs_init_fs_context, and the like). Joined ones belong to the host
// or to another container, as a rule; where they belong to the joined user
// namespace, they are handed over all the same: one way for all.
func Prepared(s *specs.Spec, i int) (what Kind, ok bool) {
	if s.Linux == nil || i < 0 || i >= len(s.Mounts) {
		return "", false
	}
	n, err := namespacesOf(s.Linux.Namespaces)
	if err != nil {
		return "", false
	}
	return n.prepared(s.Mounts[i])
}

func (n namespaces) prepared(m specs.Mount) (Kind, bool) {
	if !n.mapped() || IsBind(m) || remounts(m) {
		return "", false
	}
	kind := Kind(m.Type)
	switch kind {
	case Proc, Sysfs, Mqueue, Cgroup2:
	case "cgroup":
		kind = Cgroup2 // see newMount
	default:
		return "", false
	}
	flag, _ := nsFlag(kind.Namespace())
	return kind, !n.has(flag)
}

// ProcOptions are the options of a proc mount that are its file system's
// (proc(5), "hidepid=invisible"), for whoever prepares one.
func ProcOptions(m specs.Mount) []string { return parseOptions(m.Options).data }

// prepared appends the attaching of a mount that shows a joined namespace.
func (c *compilation) prepared(from plan.Slot, m specs.Mount, kind Kind, o mountOptions) error {
	if len(o.data) > 0 && (kind == Sysfs || kind == Mqueue) {
		return fault.New(fault.Unsupported, "mount "+string(kind)+" on", m.Destination, "option "+o.data[0]+" cannot be given to a joined namespace's", "leave it out")
	}
	whose := "the joined"
	if flag, _ := nsFlag(kind.Namespace()); !c.ns.joinsAny(flag) {
		whose = "the host's"
	}
	attr := unix.MountAttr{Attr_set: o.attr}
	if o.attr&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	text, options := attrText(o.attr), ""
	if kind == Proc {
		options = strings.Join(o.data, ",")
	}
	dest := clean(m.Destination)
	s := c.b.step("attach", string(kind)+" → /"+dest, strings.TrimSpace(text+" "+options), "made outside: of "+whose+" "+string(kind.Namespace())+" namespace")
	mount, t := c.b.slot("mount"), c.b.slot("target")
	s.copy(from, mount)
	c.keep(string(kind), dest, mount, s)
	s.target(c.root, dest, directory, t)
	s.attach(mount, t)
	c.place(s, dest, mount)
	if o.attr != 0 {
		s.setAttr(mount, false, attr, text)
	}
	if o.propagation == 0 {
		o.propagation = unix.MS_PRIVATE
	}
	c.propagate(s, mount, o)
	s.end()
	return nil
}
