package launch

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// mountOptions is what the option list of one mount means.
type mountOptions struct {
	attr        uint64   // MOUNT_ATTR_* for fsmount
	propagation uint64   // MS_PRIVATE …, 0: none asked
	recursive   bool     // of the propagation
	bind        bool     // "bind" or "rbind"
	data        []string // what is left: options of the file system
}

// parseOptions sorts the options of mount(8) and the OCI spec. Options whose
// meaning cannot be had are refused, not dropped.
func parseOptions(list []string) (mountOptions, error) {
	var m mountOptions
	for _, o := range list {
		if set, clear, ok := attribute(o); ok {
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
		case "defaults", "async", "nomand", "norelatime", "rro", "rrw", "rnosuid", "rnodev", "rnoexec", "idmap", "ridmap":
			// Defaults of the kernel, or applied to a bind by whoever prepared it.
		case "tmpcopyup":
			return m, fault.New(fault.Unsupported, "use mount option", o, "not supported", "copy the files in the image or use a volume")
		default:
			m.data = append(m.data, o)
		}
	}
	return m, nil
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
// source has it: clearing a flag that the host has set is refused by the kernel
// where it is locked.
func BindAttr(options []string, recursive bool) unix.MountAttr {
	var m unix.MountAttr
	for _, o := range options {
		if recursive {
			var ok bool
			if o, ok = strings.CutPrefix(o, "r"); !ok {
				continue
			}
		}
		set, clear, ok := attribute(o)
		if !ok {
			continue
		}
		if clear&unix.MOUNT_ATTR__ATIME != 0 {
			m.Attr_clr |= unix.MOUNT_ATTR__ATIME
			m.Attr_set &^= unix.MOUNT_ATTR__ATIME
			clear &^= unix.MOUNT_ATTR__ATIME
		}
		m.Attr_set = m.Attr_set&^clear | set
	}
	return m
}

// MountOptions lists the options that are understood by themselves, for
// `features`; all others go to the file system.
func MountOptions() []string {
	return []string{"async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "nomand",
		"norelatime", "nostrictatime", "nosuid", "nosymfollow", "private", "rbind", "relatime", "ro", "rnodev", "rnoexec", "rnosuid", "rprivate", "rro",
		"rshared", "rslave", "runbindable", "rw", "shared", "slave", "strictatime", "suid", "symfollow", "unbindable"}
}
