// Package mnt wraps the mount system calls that work on descriptors
// (open_tree(2), mount_setattr(2), move_mount(2), fsopen(2)). A mount is an
// *os.File from its making until it is attached; closing the file of a mount
// that was never attached dissolves it.
package mnt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// The attributes of a mount, for Attr and FS.Mount.
const (
	ReadOnly = unix.MOUNT_ATTR_RDONLY
	NoSuid   = unix.MOUNT_ATTR_NOSUID
	NoDev    = unix.MOUNT_ATTR_NODEV
	NoExec   = unix.MOUNT_ATTR_NOEXEC
)

// The propagation types of a mount (mount_namespaces(7)).
const (
	Private    = unix.MS_PRIVATE
	Slave      = unix.MS_SLAVE
	Shared     = unix.MS_SHARED
	Unbindable = unix.MS_UNBINDABLE
)

// Attr is a change to mounts: attributes to set, attributes to clear, and a
// propagation type (zero: unchanged). Attributes not named stay as they are,
// which is what makes it safe on mounts with locked flags.
type Attr struct {
	Set, Clear  uint64
	Propagation uint64
}

// OpenTree opens path relative to dir (nil: the working directory) as an O_PATH
// handle of what is mounted there; the last symbolic link is followed. The
// caller closes it.
func OpenTree(dir *os.File, path string) (*os.File, error) {
	return openTree(dir, path, 0)
}

// Clone makes a detached copy of the mount that f is on, with f as its root;
// recursive brings the mounts below f along. f is untouched. The caller closes
// the result.
//
// A recursive clone is the only way to get a directory with locked mounts below
// it: without recursive the kernel refuses, as hidden files would appear.
func Clone(f *os.File, recursive bool) (*os.File, error) {
	return openTree(f, "", unix.AT_EMPTY_PATH|cloneFlags(recursive))
}

// ClonePath is Clone of what path names relative to dir (nil: the working
// directory). Symbolic links are followed.
func ClonePath(dir *os.File, path string, recursive bool) (*os.File, error) {
	return openTree(dir, path, cloneFlags(recursive))
}

func cloneFlags(recursive bool) uint {
	if recursive {
		return unix.OPEN_TREE_CLONE | unix.AT_RECURSIVE
	}
	return unix.OPEN_TREE_CLONE
}

func openTree(dir *os.File, path string, flags uint) (*os.File, error) {
	at, name := unix.AT_FDCWD, path
	if dir != nil {
		at = int(dir.Fd())
	}
	if path == "" {
		name = dir.Name()
	}
	n, err := unix.OpenTree(at, path, flags|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, sysx.Fault("open mount tree", name, err)
	}
	return fd.Wrap(n, name), nil
}

// SetAttr changes the attributes of the mount f, with recursive also of those
// below it. All change or none does (mount_setattr(2)).
func SetAttr(f *os.File, a Attr, recursive bool) error {
	attr := unix.MountAttr{Attr_set: a.Set, Attr_clr: a.Clear, Propagation: a.Propagation}
	return sysx.Fault("set mount attributes of", f.Name(), setattr(f, &attr, recursive))
}

// Idmap makes the detached mount f, with recursive also those below it, show
// ids through the maps of userns: an id on disk is an id inside, and appears as
// the host id it maps to. f must never have been attached. userns may be closed
// afterwards.
//
// A fault of class Unsupported means that this file system (EINVAL), this
// kernel, or the user namespace that owns the superblock (EPERM) does not allow
// idmapped mounts. FUSE decides per superblock, so only trying tells.
func Idmap(f, userns *os.File, recursive bool) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	err := setattr(f, &attr, recursive)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return fault.Wrap(fault.Unsupported, "map the ids of mount", f.Name(), err,
			"this file system has no idmapped mounts: move the data root to ext4, xfs or btrfs")
	}
	return sysx.Fault("map the ids of mount", f.Name(), err)
}

func setattr(f *os.File, attr *unix.MountAttr, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(int(f.Fd()), "", flags, attr)
}

// Attach puts the detached mount f onto target, a directory or file in the
// calling thread's mount namespace. f stays open and is now attached.
func Attach(f, target *os.File) error {
	err := unix.MoveMount(int(f.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return sysx.Fault("attach mount "+f.Name()+" to", target.Name(), err)
}

// AttachPath is Attach onto a path as the calling thread sees it. The last
// symbolic link is not followed.
func AttachPath(f *os.File, target string) error {
	err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return sysx.Fault("attach mount "+f.Name()+" to", target, err)
}

// Detach takes the mount at path, and all below it, out of the calling
// thread's mount namespace; users of it keep it alive (umount2(2), MNT_DETACH).
func Detach(path string) error {
	return sysx.Fault("detach mount", path, unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}
