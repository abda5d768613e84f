package launch

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountOptions is what the option list of one mount means.
type mountOptions struct {
	attr        uint64   // MOUNT_ATTR_* for fsmount
	propagation uint64   // MS_PRIVATE …, 0: none asked
	recursive   bool     // of the propagation
	bind        bool     // "bind" or "rbind"
	idmap       bool     // "idmap" or "ridmap"
	copyUp      bool     // "tmpcopyup"
	remount     bool     // "remount": of a mount that is there
	data        []string // what is left: options of the file system
}

// parseOptions sorts the options of mount(8) and the OCI spec: what it does
// not know is the file system's.
func parseOptions(list []string) mountOptions {
	var m mountOptions
	for _, o := range list {
		if set, clear, ok := attribute(strings.TrimPrefix(o, recursion(o))); ok {
			m.attr = m.attr&^clear | set
			continue
		}
		if p, ok := propagationOf(o); ok {
			m.propagation, m.recursive = p, strings.HasPrefix(o, "r")
			continue
		}
		switch o {
		case "bind", "rbind":
			m.bind = true
		case "idmap", "ridmap":
			m.idmap = true
		case "tmpcopyup":
			m.copyUp = true
		case "defaults", "async", "nomand", "noiversion", "silent", "loud":
			// Defaults of the kernel, or about its log only.
		case "remount":
			m.remount = true
		default:
			m.data = append(m.data, o)
		}
	}
	return m
}

// recursion is the letter before an option that is to hold for all mounts of a
// tree ("rro"), empty when the option has none.
func recursion(o string) string {
	if rest, ok := strings.CutPrefix(o, "r"); ok {
		if _, _, known := attribute(rest); known {
			return "r"
		}
	}
	return ""
}

// attribute returns the mount attributes an option sets and clears.
func attribute(o string) (set, clear uint64, ok bool) {
	switch o {
	case "ro":
		return unix.MOUNT_ATTR_RDONLY, 0, true
	case "rw":
		return 0, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MOUNT_ATTR_NOSUID, 0, true
	case "suid":
		return 0, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MOUNT_ATTR_NODEV, 0, true
	case "dev":
		return 0, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MOUNT_ATTR_NOEXEC, 0, true
	case "exec":
		return 0, unix.MOUNT_ATTR_NOEXEC, true
	case "noatime":
		return unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME, true
	case "strictatime":
		return unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME, true
	case "relatime", "atime", "nostrictatime":
		return 0, unix.MOUNT_ATTR__ATIME, true
	case "norelatime":
		return 0, 0, true // the kernel's default all the same (mount(8))
	case "nodiratime":
		return unix.MOUNT_ATTR_NODIRATIME, 0, true
	case "diratime":
		return 0, unix.MOUNT_ATTR_NODIRATIME, true
	case "nosymfollow":
		return unix.MOUNT_ATTR_NOSYMFOLLOW, 0, true
	case "symfollow":
		return 0, unix.MOUNT_ATTR_NOSYMFOLLOW, true
	}
	return 0, 0, false
}

func propagationOf(o string) (uint64, bool) {
	switch o {
	case "private", "rprivate":
		return unix.MS_PRIVATE, true
	case "slave", "rslave":
		return unix.MS_SLAVE, true
	case "shared", "rshared":
		return unix.MS_SHARED, true
	case "unbindable", "runbindable":
		return unix.MS_UNBINDABLE, true
	}
	return 0, false
}

// attrText prints mount attributes as mount(8) would.
func attrText(attr uint64) string {
	var out []string
	for _, o := range []string{"ro", "nosuid", "nodev", "noexec", "noatime", "strictatime", "nodiratime", "nosymfollow"} {
		if set, _, _ := attribute(o); attr&set != 0 && (set&unix.MOUNT_ATTR__ATIME == 0 || attr&unix.MOUNT_ATTR__ATIME == set) {
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// without returns the list lacking options that begin with prefix.
func without(list []string, prefix string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(o string) bool { return strings.HasPrefix(o, prefix) })
}

// BindAttr returns what the options of a bind ask to be applied to its clone:
// those for its top mount, or with recursive those for all mounts of it ("rro"
// …, OCI runtime spec, Linux mount options). What is not named stays as the
// source has it. An option that takes a flag away ("exec") is asked of the
// kernel, which refuses where a more privileged mount namespace has locked it.
func BindAttr(options []string, recursive bool) unix.MountAttr {
	var m unix.MountAttr
	for _, o := range options {
		r := recursion(o)
		if (r != "") != recursive {
			continue
		}
		set, clear, ok := attribute(strings.TrimPrefix(o, r))
		if !ok {
			continue
		}
		// All of the access times are one field, cleared as a whole.
		m.Attr_set, m.Attr_clr = m.Attr_set&^clear|set, m.Attr_clr&^(set&^unix.MOUNT_ATTR__ATIME)|clear
	}
	return m
}

// MountOptions lists the options that are understood by themselves, for
// `features`; all others go to the file system.
func MountOptions() []string {
	list := []string{"async", "bind", "defaults", "idmap", "loud", "noiversion", "nomand", "private", "rbind", "ridmap", "remount", "rprivate", "rshared", "rslave",
		"runbindable", "shared", "silent", "slave", "tmpcopyup", "unbindable"}
	for _, o := range []string{"atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime",
		"nosuid", "nosymfollow", "relatime", "ro", "rw", "strictatime", "suid", "symfollow"} {
		list = append(list, o, "r"+o)
	}
	slices.Sort(list)
	return list
}

// CopiesUp reports whether mount m is a tmpfs that begins with what its place in
// the root file system holds, which is handed to the plan as a prepared mount;
// attr are the mount's attributes and data the file system's options.
func CopiesUp(m specs.Mount) (attr uint64, data []string, ok bool) {
	if !copiesUp(m) {
		return 0, nil, false
	}
	o := parseOptions(m.Options)
	return o.attr, o.data, true
}

func copiesUp(m specs.Mount) bool {
	return m.Type == "tmpfs" && !remounts(m) && slices.Contains(m.Options, "tmpcopyup")
}
