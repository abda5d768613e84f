package shift

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// The attributes that hold ids.
const (
	capability = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	// xfs shows its stored form of the two ACLs as well (xfs_acl.h): copied, it
	// would overwrite the shifted ACL with the unshifted one.
	aclOfXFS = "trusted.SGI_ACL_"
)

// path names o for the system calls on extended attributes, which follow no
// link in the last component (lgetxattr(2)) and know no directory descriptor
// before Linux 6.13.
func (o object) path() string { return fd.Path(o.dir) + "/" + o.name }

func (o object) list(buf []byte) (int, error) {
	if o.file != nil {
		return unix.Flistxattr(int(o.file.Fd()), buf)
	}
	return unix.Llistxattr(o.path(), buf)
}

func (o object) get(name string, buf []byte) (int, error) {
	if o.file != nil {
		return unix.Fgetxattr(int(o.file.Fd()), name, buf)
	}
	return unix.Lgetxattr(o.path(), name, buf)
}

func (o object) set(name string, value []byte) error {
	if o.file != nil {
		return unix.Fsetxattr(int(o.file.Fd()), name, value, 0)
	}
	return unix.Lsetxattr(o.path(), name, value, 0)
}

// xattrs copies all extended attributes, with the ids in them shifted.
func (c *copier) xattrs(from, to object) error {
	names, err := from.xattrNames()
	if err != nil {
		return sysx.Fault("list extended attributes of", from.String(), err)
	}
	for _, name := range names {
		if skipped(name) {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return from.get(name, b) })
		if err != nil {
			return sysx.Fault("read extended attribute "+name+" of", from.String(), err)
		}
		if value, err = shifted(name, value, c.Pair); err != nil {
			return sysx.Fault("shift extended attribute "+name+" of", from.String(), err)
		}
		if err := to.set(name, value); err != nil {
			return sysx.Fault("set extended attribute "+name+" of", to.String(), err)
		}
	}
	return nil
}

// skipped says which attributes are not copied. Of those that speak to overlayfs
// only the mark of an opaque directory is: a redirect in a shadow reaches every
// layer in the store, whatever its image.
func skipped(name string) bool {
	return strings.HasPrefix(name, aclOfXFS) || strings.HasPrefix(name, overlayPrefix) && name != overlayOpaque
}

func (o object) xattrNames() ([]string, error) {
	buf, err := grow(o.list)
	if errors.Is(err, unix.EOPNOTSUPP) || len(buf) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(buf), "\x00"), "\x00"), err
}

// grow calls read with growing buffers; attributes are limited to 64 KiB
// (xattr(7)), lists of names too.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := read(buf)
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > 1<<17 {
			return nil, err
		}
	}
}

// shifted returns the value that an attribute must have under pair.
func shifted(name string, value []byte, pair idmap.Pair) ([]byte, error) {
	switch name {
	case capability:
		return shiftCapability(value, pair)
	case aclAccess, aclDefault:
		return shiftACL(value, pair)
	}
	return value, nil
}

// The layout of security.capability (capabilities(7), struct vfs_cap_data and
// vfs_ns_cap_data of linux/capability.h), little endian.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capSize2        = 20
	capSize3        = 24
)

// shiftCapability makes a file capability valid for the container's root:
// revision 2 belongs to host root, and the kernel ignores it in a user
// namespace on a mount that is not idmapped (security/commoncap.c,
// rootid_owns_currentns, v4.14).
func shiftCapability(value []byte, pair idmap.Pair) ([]byte, error) {
	if len(value) < capSize2 {
		return nil, fault.New(fault.Corrupt, "read file capability", "", "it is too short", "")
	}
	magic := binary.LittleEndian.Uint32(value)
	var root uint32
	switch {
	case magic&capRevisionMask == capRevision2 && len(value) == capSize2:
	case magic&capRevisionMask == capRevision3 && len(value) == capSize3:
		root = binary.LittleEndian.Uint32(value[capSize2:])
	default:
		return nil, fault.New(fault.Corrupt, "read file capability", "", "its revision is unknown", "")
	}
	host, ok := pair.UID.ToHost(idmap.Inside(root))
	if !ok {
		host = overflow
	}
	out := make([]byte, capSize3)
	copy(out, value[:capSize2])
	binary.LittleEndian.PutUint32(out, magic&^capRevisionMask|capRevision3)
	binary.LittleEndian.PutUint32(out[capSize2:], uint32(host))
	return out, nil
}

// The layout of an ACL attribute (linux/posix_acl_xattr.h): a version, then
// entries of tag, permissions and id, little endian. Only entries for a named
// user or group have an id.
const (
	aclVersion = 2
	aclHeader  = 4
	aclEntry   = 8
	aclUser    = 0x02
	aclGroup   = 0x08
)

// shiftACL shifts the ids of named users and groups.
func shiftACL(value []byte, pair idmap.Pair) ([]byte, error) {
	if len(value) < aclHeader || (len(value)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(value) != aclVersion {
		return nil, fault.New(fault.Corrupt, "read ACL", "", "it has a wrong size or version", "")
	}
	out := bytes.Clone(value)
	for e := out[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		id := binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e) {
		case aclUser:
			binary.LittleEndian.PutUint32(e[4:], uint32(toHost(pair.UID, id)))
		case aclGroup:
			binary.LittleEndian.PutUint32(e[4:], uint32(toHost(pair.GID, id)))
		}
	}
	return out, nil
}
