package pack

import (
	"archive/tar"
	"encoding/binary"
	"maps"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

const (
	capability = "security.capability"
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	paxXattr   = "SCHILY.xattr."
)

// header describes an entry of the upper or of a layer. Its owners are inside
// ids, its time has nanoseconds, and its extended attributes are those that the
// unpacker takes: user.*, ACLs and file capabilities.
func (s Source) header(t tree, name, path string, st *unix.Stat_t) (*tar.Header, error) {
	if err := fits(path); err != nil {
		return nil, err
	}
	uid, gid, err := s.owner(t, st, path)
	if err != nil {
		return nil, err
	}
	h := &tar.Header{
		Name: path, Mode: int64(st.Mode & 0o7777), Uid: uid, Gid: gid,
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	switch kind(st) {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = readlink(t.dir, name)
		return h, err // a link has none of the attributes (xattr(7))
	}
	h.PAXRecords, err = s.records(t, name, path)
	return h, err
}

func fits(path string) error {
	if len(path) > maxName {
		return refused(path, "its path is longer than 4095 bytes", "move or delete it")
	}
	return nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	return string(buf[:max(n, 0)]), sysx.Fault("read link", name, err)
}

// records are the extended attributes, as records of the header.
func (s Source) records(t tree, name, path string) (map[string]string, error) {
	file := fd.Path(t.dir) + "/" + name
	list, err := at.Xattrs(file)
	if err != nil {
		return nil, sysx.Fault("list extended attributes of", quote(path), err)
	}
	var out map[string]string
	for _, attr := range list {
		if !wanted(attr) {
			continue
		}
		value, err := at.Xattr(file, attr)
		if err == unix.ENODATA {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, sysx.Fault("read extended attribute "+quote(attr)+" of", quote(path), err)
		}
		if value, err = s.value(t, attr, value, path); err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]string{}
		}
		out[paxXattr+attr] = string(value)
	}
	return out, nil
}

// wanted is what means something to a container and nothing to the host: what
// overlayfs (trusted.overlay.*) and the host's security modules note is not the
// container's.
func wanted(attr string) bool {
	switch attr {
	case capability, aclAccess, aclDefault:
		return true
	}
	return strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "user.overlay.")
}

// value is an attribute's value with inside ids.
func (s Source) value(t tree, attr string, value []byte, path string) ([]byte, error) {
	switch {
	case attr == capability:
		return s.capability(t, value, path)
	case attr != aclAccess && attr != aclDefault && strings.Contains(attr, "="):
		return nil, refused(path, "the name of its attribute "+quote(attr)+" holds a =, which a tar cannot say", "remove the attribute: setfattr -x")
	case t.upper && s.Owners.UID != nil && (attr == aclAccess || attr == aclDefault):
		return s.acl(value, path)
	}
	return value, nil
}

// The layout of an ACL attribute (linux/posix_acl_xattr.h), little endian.
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

// capability returns file capabilities in revision 2, which belong to the root
// of whatever container the image becomes. Revision 3 names another root: the
// container's own where its files have host ids, which comes to the same, or
// the root of a user namespace made in the container. That one has no form in
// an image: revision 2 would hand its privilege to everybody.
func (s Source) capability(t tree, raw []byte, path string) ([]byte, error) {
	if len(raw) < sysx.CapSize2 {
		return nil, fault.New(fault.Corrupt, "read file capability of", quote(path), "it is too short", "")
	}
	magic := binary.LittleEndian.Uint32(raw)
	switch {
	case magic&sysx.CapRevisionMask == sysx.CapRevision2 && len(raw) == sysx.CapSize2:
		return raw, nil
	case magic&sysx.CapRevisionMask != sysx.CapRevision3 || len(raw) != sysx.CapSize3:
		return nil, fault.New(fault.Corrupt, "read file capability of", quote(path), "its revision is unknown", "")
	}
	root, ok := binary.LittleEndian.Uint32(raw[sysx.CapSize2:]), true
	if t.upper && s.Owners.UID != nil {
		root, ok = s.Owners.UID(root)
	}
	if root != 0 || !ok {
		return nil, refused(path, "its file capabilities are for the root of a user namespace in the container, which no image can say",
			"remove them: setcap -r")
	}
	out := append([]byte(nil), raw[:sysx.CapSize2]...)
	binary.LittleEndian.PutUint32(out, magic&^sysx.CapRevisionMask|sysx.CapRevision2)
	return out, nil
}

// acl returns an ACL with the ids of named users and groups turned into inside
// ones.
func (s Source) acl(value []byte, path string) ([]byte, error) {
	if len(value) < aclHeader || (len(value)-aclHeader)%aclEntry != 0 {
		return nil, fault.New(fault.Corrupt, "read ACL of", quote(path), "it has a wrong size", "")
	}
	out := append([]byte(nil), value...)
	for e := out[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		id, ok, what := binary.LittleEndian.Uint32(e[4:]), true, "user"
		stored := id
		switch binary.LittleEndian.Uint16(e) {
		case aclUser:
			id, ok = s.Owners.UID(id)
		case aclGroup:
			what = "group"
			id, ok = s.Owners.GID(id)
		}
		if !ok {
			return nil, stranger(path, what+" in the ACL", stored)
		}
		binary.LittleEndian.PutUint32(e[4:], id)
	}
	return out, nil
}

// alike reports whether two directories have the same mode, owner and
// attributes, as their headers say.
func alike(a, b *tar.Header) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && maps.Equal(a.PAXRecords, b.PAXRecords)
}
