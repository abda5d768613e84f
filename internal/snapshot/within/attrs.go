package within

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/snapshot/unpack"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	paxXattr   = "SCHILY.xattr."
	paxACL     = "SCHILY.acl."
)

// carried are the attributes that archives have: what a container notes about
// its files. What overlayfs or the host's security modules note is not its own.
func carried(attr string) bool {
	return attr == capXattr || attr == aclAccess || attr == aclDefault ||
		strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "user.overlay.")
}

// attrsOf are the attributes of a directory, opened with O_PATH, as records of
// its header.
func (r *reader) attrsOf(dir *os.File) (map[string]string, error) {
	path := fd.Path(dir) + "/."
	return r.records(dir.Name(), func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

func (r *reader) records(name string, list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string]string, error) {
	names, err := at.XattrNames(list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, sysx.Fault("list the extended attributes of", name, err)
	}
	var out map[string]string
	for _, attr := range names {
		if !carried(attr) {
			continue
		}
		value, err := at.XattrValue(func(b []byte) (int, error) { return get(attr, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, sysx.Fault("read "+quote(attr)+" of", name, err)
		}
		if value = r.insideValue(attr, value); value == nil || strings.ContainsRune(attr, '=') {
			continue // a record's name ends at the first "=" (pax(1)): docker leaves it out too
		}
		if out == nil {
			out = map[string]string{}
		}
		out[paxXattr+attr] = string(value)
	}
	return out, nil
}

// insideValue is an attribute as the container has it; nil for what means
// nothing there.
func (t tree) insideValue(attr string, value []byte) []byte {
	switch attr {
	case capXattr:
		return insideCaps(value, t.pair.UID)
	case aclAccess, aclDefault:
		out, _ := shiftACL(value, func(m idmap.Map, id uint32) (uint32, bool) { return uint32(inside(m, id)), true }, t.pair)
		return out
	}
	return value
}

// attrsFor reads the attributes that a header asks for, with host ids.
func (w *writer) attrsFor(name string, h *tar.Header) (map[string][]byte, error) {
	var out map[string][]byte
	for key, value := range h.PAXRecords {
		attr, v, err := attrOf(key, value)
		if err != nil {
			return nil, bad(name, "its ACL cannot be read: "+err.Error())
		}
		if _, twice := out[attr]; attr == "" || attr == "security.selinux" || twice && strings.HasPrefix(key, paxACL) {
			continue // labels are the host's policy's; of an ACL in both forms the attribute counts
		}
		switch {
		case attr == capXattr:
			if v, err = outsideCaps(v, w.pair.UID); err != nil {
				return nil, bad(name, "its file capabilities mean nothing in the container")
			}
		case attr == aclAccess, attr == aclDefault:
			if v, err = shiftACL(v, func(m idmap.Map, id uint32) (uint32, bool) { return outside(m, int(id)) }, w.pair); err != nil {
				return nil, fault.Wrap(fault.Invalid, "unpack", quote(name), err, "make the archive without ACLs, or give the container a larger range")
			}
		case !strings.HasPrefix(attr, "user."):
			return nil, fault.New(fault.Unsupported, "unpack", quote(name), "the extended attribute "+quote(attr)+" is not set in containers", "make the archive without it")
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[attr] = v
	}
	return out, nil
}

// attrOf takes a record of a header for an attribute; empty is another record,
// or an ACL that says no more than the mode. ACLs are also written as text.
func attrOf(key, value string) (attr string, v []byte, err error) {
	if attr, is := strings.CutPrefix(key, paxXattr); is {
		return attr, []byte(value), nil
	}
	kind, is := strings.CutPrefix(key, paxACL)
	if !is || kind != "access" && kind != "default" {
		return "", nil, nil
	}
	if v, err = unpack.ACLOfText(value); v == nil || err != nil {
		return "", nil, err
	}
	return "system.posix_acl_" + kind, v, nil
}

// The layout of an ACL attribute (linux/posix_acl_xattr.h): a version, then
// entries of tag, permissions and id. Only those for a named user or group have
// an id.
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

// shiftACL changes the ids of named users and groups. Nil, with an error, for
// what is no ACL and for ids that to does not have.
func shiftACL(value []byte, to func(idmap.Map, uint32) (uint32, bool), pair idmap.Pair) ([]byte, error) {
	if len(value) < aclHeader || (len(value)-aclHeader)%aclEntry != 0 {
		return nil, errors.New("its ACL has a wrong size")
	}
	out := append([]byte(nil), value...)
	for e := out[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
		id, ok := binary.LittleEndian.Uint32(e[4:]), true
		switch binary.LittleEndian.Uint16(e) {
		case aclUser:
			id, ok = to(pair.UID, id)
		case aclGroup:
			id, ok = to(pair.GID, id)
		}
		if !ok {
			return nil, errors.New("its ACL names somebody whom the container's map has not")
		}
		binary.LittleEndian.PutUint32(e[4:], id)
	}
	return out, nil
}
