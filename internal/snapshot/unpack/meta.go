package unpack

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unsafe"

	"fief/internal/kernel/sysx"
	"fief/internal/words/idmap"

	"golang.org/x/sys/unix"
)

// meta is what an entry says about its file, checked.
type meta struct {
	link     bool // a symlink, which has no mode of its own
	uid, gid int
	mode     uint32
	xattrs   []xattr
	stamp    stamp
}

type xattr struct {
	name  string
	value []byte
}

func (u *unpacker) metaOf(name string, h *tar.Header) (meta, error) {
	if !isID(h.Uid) || !isID(h.Gid) {
		return meta{}, bad(name, fmt.Sprintf("there is no owner %d:%d", h.Uid, h.Gid))
	}
	if h.Typeflag == tar.TypeSymlink && (h.Linkname == "" || len(h.Linkname) > u.lim.Name) {
		return meta{}, bad(name, "the symlink's target is empty or too long")
	}
	u.facts.MaxUID = max(u.facts.MaxUID, idmap.Inside(h.Uid))
	u.facts.MaxGID = max(u.facts.MaxGID, idmap.Inside(h.Gid))
	xattrs, err := u.xattrsOf(name, h)
	return meta{
		link:   h.Typeflag == tar.TypeSymlink,
		uid:    h.Uid,
		gid:    h.Gid,
		mode:   uint32(h.Mode) & 0o7777,
		xattrs: xattrs,
		stamp:  stampOf(h),
	}, err
}

func isID(id int) bool { return id >= 0 && id <= idmap.Max }

// stampOf takes the times of a header to the nanosecond. Without an access
// time, or with one no clock has, it is the modification time.
func stampOf(h *tar.Header) stamp {
	mtime := h.ModTime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	atime := h.AccessTime
	if atime.IsZero() || atime.Unix() < 0 {
		atime = mtime
	}
	return stamp{atime: atime, mtime: mtime}
}

func setTimes(parent int, base string, s stamp) error {
	return again(func() error { return unix.UtimesNanoAt(parent, base, s.spec(), unix.AT_SYMLINK_NOFOLLOW) })
}

func (s stamp) spec() []unix.Timespec {
	return []unix.Timespec{
		{Sec: s.atime.Unix(), Nsec: int64(s.atime.Nanosecond())},
		{Sec: s.mtime.Unix(), Nsec: int64(s.mtime.Nanosecond())},
	}
}

const paxXattr = "SCHILY.xattr."

// xattrsOf takes the extended attributes that mean something to a container
// and nothing to the host: user.*, ACLs and file capabilities. Left out are
// trusted.* and user.overlay.*, by which a layer would speak to overlayfs
// (trusted.overlay.redirect reaches any file below), and labels of the host's
// security modules (security.selinux, security.ima …), which are not for an
// image to choose.
func (u *unpacker) xattrsOf(name string, h *tar.Header) ([]xattr, error) {
	var out []xattr
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		attr, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !wanted(attr) {
			continue
		}
		value := []byte(h.PAXRecords[key])
		if len(value) > u.lim.Xattr || len(attr) > 255 {
			return nil, over("bytes in an extended attribute", int64(u.lim.Xattr))
		}
		if len(out) >= u.lim.Xattrs {
			return nil, over("extended attributes in one entry", int64(u.lim.Xattrs))
		}
		if attr == capability {
			var err error
			if value, err = capV2(value); err != nil {
				return nil, bad(name, err.Error())
			}
		}
		out = append(out, xattr{attr, value})
	}
	return withACLs(out, name, h)
}

// withACLs adds the ACLs that an entry has as text only.
func withACLs(out []xattr, name string, h *tar.Header) ([]xattr, error) {
	for _, pair := range paxACLs {
		text := h.PAXRecords[pair[0]]
		if text == "" || slices.ContainsFunc(out, func(x xattr) bool { return x.name == pair[1] }) {
			continue
		}
		value, err := ACLOfText(text)
		if err != nil {
			return nil, bad(name, err.Error())
		}
		if value != nil {
			out = append(out, xattr{pair[1], value})
		}
	}
	return out, nil
}

const capability = "security.capability"

func wanted(attr string) bool {
	switch attr {
	case capability, aclAccess, aclDefault:
		return true
	}
	return strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "user.overlay.")
}

// capV2 returns file capabilities in revision 2, which belong to whatever root
// the mount's id map gives them. Revision 3 names a root by its host id: it
// gets into images when an engine forgets to take it out again
// (linux/capability.h, capabilities(7) "File capability extended attribute
// versioning").
func capV2(raw []byte) ([]byte, error) {
	const effective = 0x1
	if len(raw) < 4 {
		return nil, errors.New("its file capabilities are cut off")
	}
	magic := binary.LittleEndian.Uint32(raw)
	switch {
	case magic&sysx.CapRevisionMask == sysx.CapRevision2 && len(raw) == sysx.CapSize2:
		return raw, nil
	case magic&sysx.CapRevisionMask == sysx.CapRevision3 && len(raw) == sysx.CapSize3:
		out := slices.Clone(raw[:sysx.CapSize2])
		binary.LittleEndian.PutUint32(out, sysx.CapRevision2|magic&effective)
		return out, nil
	}
	return nil, errors.New("its file capabilities are of no known revision")
}

// applyFile sets everything on an open regular file. The owner comes first:
// changing it clears set-id bits and capabilities (chown(2)).
func (m meta) applyFile(fd int, name string) error {
	if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
		return sysFault("set the owner of", name, err)
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return sysFault("set the mode of", name, err)
	}
	for _, x := range m.xattrs {
		err := unix.Fsetxattr(fd, x.name, x.value, 0)
		if err := x.judge(name, err); err != nil {
			return err
		}
	}
	return sysFault("set the times of", name, again(func() error { return futimens(fd, m.stamp) }))
}

// apply sets everything but the times on what was just made, or found to be a
// directory, at base. Nothing else writes below the layer's root, so that base
// cannot have become a symlink for fchmodat to follow.
func (u *unpacker) apply(parent int, base string, m meta) error {
	if m.link {
		if err := unix.Fchownat(parent, base, m.uid, m.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return sysFault("set the owner of", base, err)
		}
	} else if err := own(parent, base, m.uid, m.gid, m.mode); err != nil {
		return sysFault("set the owner of", base, err)
	}
	return setXattrs(parent, base, base, m.xattrs)
}

func own(parent int, base string, uid, gid int, mode uint32) error {
	if err := unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Fchmodat(parent, base, mode, 0)
}

// setXattrs sets them on base of parent by way of /proc, since the calls that
// take a directory descriptor are too new (setxattrat(2), Linux 6.13).
func setXattrs(parent int, base, name string, xattrs []xattr) error {
	if len(xattrs) == 0 {
		return nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d/%s", parent, base)
	for _, x := range xattrs {
		err := unix.Lsetxattr(path, x.name, x.value, 0)
		if err := x.judge(name, err); err != nil {
			return err
		}
	}
	return nil
}

// judge lets pass what Docker lets pass: user attributes on a file system
// without them, and on symlinks and devices (EPERM, xattr(7)). Capabilities,
// ACLs and overlayfs's marks are never lost silently.
func (x xattr) judge(name string, err error) error {
	lenient := strings.HasPrefix(x.name, "user.")
	if lenient && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM)) {
		return nil
	}
	return sysFault("set "+x.name+" on", name, err)
}

// futimens is utimensat(2) with a NULL path, which x/sys does not offer.
func futimens(fd int, s stamp) error {
	spec := s.spec()
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
