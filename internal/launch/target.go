package launch

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/words/plan"
)

// kind says what a missing mount target is made as.
type kind uint8

const (
	directory kind = iota
	file
	likeMount // what the mount in slot "mount" is
)

const (
	dirMode  = 0o755
	fileMode = 0o755 // what other OCI runtimes give files they make for a mount
)

// clean turns a path of a container into one relative to its root; empty for
// the root itself.
func clean(name string) string {
	if clean := path.Clean(name); strings.HasPrefix(clean, "/") {
		return clean[1:] // no copy of a name that is clean, as most are
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// lookup appends an O_PATH open of name inside the root, whose result goes to
// slot t; a missing one is ignored when told by the caller.
func (s *step) lookup(root plan.Slot, name string, flags uint64, t plan.Slot) ref {
	how, size := s.b.openHow(unix.O_PATH | flags)
	if name == "" {
		name = "."
	}
	return s.call(unix.SYS_OPENAT2, plan.In(root), plan.Str(name), how, size).save(t)
}

// target appends what opens name, a path without leading slash, in the root and
// makes it when it is missing: directories along the path, then an empty file or
// a directory. Nothing is resolved outside the root, as the kernel keeps the
// look-up in it (RESOLVE_IN_ROOT, v5.6), and what is made is made relative to
// the parent's descriptor, never through a link (CVE-2024-45310, CVE-2021-30465).
// A dangling link in the way is replaced, as Docker's init layer replaces
// /etc/resolv.conf.
func (s *step) target(root plan.Slot, name string, k kind, t plan.Slot) {
	found := s.lookup(root, name, 0, t).ignore(unix.ENOENT)
	dir, base := path.Split(name)
	parent := s.b.slot("parent")
	s.copy(root, parent)
	s.parents(root, clean(dir), parent)
	s.make(k, parent, base)
	made := s.lookup(root, name, 0, t).ignore(unix.ENOENT)
	s.call(unix.SYS_UNLINKAT, plan.In(parent), plan.Str(base), plan.Int(0))
	s.make(k, parent, base)
	s.lookup(root, name, 0, t)
	found.okHere()
	made.okHere()
}

// make appends the making of one directory entry.
func (s *step) make(k kind, parent plan.Slot, name string) {
	switch k {
	case directory:
		s.makeDir(parent, name)
	case file:
		s.makeFile(parent, name)
	case likeMount:
		isDir := s.isDir(s.b.slot("mount"))
		s.makeFile(parent, name)
		over := s.jump()
		isDir.okHere()
		s.makeDir(parent, name)
		over.okHere()
	}
}

// parents appends what walks dir and makes what is missing of it; slot parent
// holds the root at first and the last directory at the end.
func (s *step) parents(root plan.Slot, dir string, parent plan.Slot) {
	if dir == "" {
		return
	}
	next := s.b.slot("next")
	names := strings.Split(dir, "/")
	for i, name := range names {
		prefix := strings.Join(names[:i+1], "/")
		found := s.lookup(root, prefix, unix.O_DIRECTORY, next).ignore(unix.ENOENT)
		s.makeDir(parent, name)
		made := s.lookup(root, prefix, unix.O_DIRECTORY, next).ignore(unix.ENOENT)
		s.call(unix.SYS_UNLINKAT, plan.In(parent), plan.Str(name), plan.Int(0))
		s.makeDir(parent, name)
		s.lookup(root, prefix, unix.O_DIRECTORY, next)
		found.okHere()
		made.okHere()
		s.copy(next, parent)
	}
}

func (s *step) makeDir(parent plan.Slot, name string) {
	s.call(unix.SYS_MKDIRAT, plan.In(parent), plan.Str(name), plan.Bits(dirMode)).ignore(unix.EEXIST)
}

func (s *step) makeFile(parent plan.Slot, name string) {
	flags := uint64(unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC)
	s.call(unix.SYS_OPENAT, plan.In(parent), plan.Str(name), plan.Bits(flags), plan.Bits(fileMode)).ignore(unix.EEXIST)
}

// attach appends the move of a detached mount onto the target in slot t.
func (s *step) attach(mount, t plan.Slot) {
	s.call(unix.SYS_MOVE_MOUNT, plan.In(mount), plan.Str(""), plan.In(t), plan.Str(""),
		plan.Bits(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// setAttr appends a mount_setattr on the mount in slot m.
func (s *step) setAttr(m plan.Slot, recursive bool, attr unix.MountAttr, text string) {
	flags := uint64(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	s.call(unix.SYS_MOUNT_SETATTR, plan.In(m), plan.Str(""), plan.Bits(flags), s.b.attr(attr, text), plan.Int(32))
}
