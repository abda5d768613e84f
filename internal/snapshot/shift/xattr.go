package shift

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
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
	names, err := at.XattrNames(from.list)
	if err != nil {
		return sysx.Fault("list extended attributes of", from.String(), err)
	}
	for _, name := range names {
		if skipped(name) {
			continue
		}
		value, err := at.XattrValue(func(b []byte) (int, error) { return from.get(name, b) })
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

// shifted returns the value that an attribute must have under pair.
func shifted(name string, value []byte, pair idmap.Pair) ([]byte, error) {
	if pair.IsZero() {
		return value, nil
	}
	switch name {
	case capability:
		return shiftCapability(value, pair)
	case aclAccess, aclDefault:
		return shiftACL(value, pair)
	}
	return value, nil
}

// shiftCapability makes a file capability valid for the container's root:
// revision 2 belongs to host root, and the kernel ignores it in a user
// namespace on a mount that is not idmapped (security/commoncap.c,
// rootid_owns_currentns, v4.14).
func shiftCapability(value []byte, pair idmap.Pair) ([]byte, error) {
	if len(value) < sysx.CapSize2 {
		return nil, fault.New(fault.Corrupt, "read file capability", "", "it is too short", "")
	}
	magic := binary.LittleEndian.Uint32(value)
	var root uint32
	switch {
	case magic&sysx.CapRevisionMask == sysx.CapRevision2 && len(value) == sysx.CapSize2:
	case magic&sysx.CapRevisionMask == sysx.CapRevision3 && len(value) == sysx.CapSize3:
		root = binary.LittleEndian.Uint32(value[sysx.CapSize2:])
	default:
		return nil, fault.New(fault.Corrupt, "read file capability", "", "its revision is unknown", "")
	}
	host, ok := pair.UID.ToHost(idmap.Inside(root))
	if !ok {
		host = overflow
	}
	out := make([]byte, sysx.CapSize3)
	copy(out, value[:sysx.CapSize2])
	binary.LittleEndian.PutUint32(out, magic&^sysx.CapRevisionMask|sysx.CapRevision3)
	binary.LittleEndian.PutUint32(out[sysx.CapSize2:], uint32(host))
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
