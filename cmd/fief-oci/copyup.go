package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
)

// maxDepth bounds a copied tree: each level holds two descriptors.
const maxDepth = 256

// copyUp makes a tmpfs that holds a copy of the directory it will cover. It is
// made and filled here: whoever fills it inside would need a program there.
func (f *files) copyUp(m specs.Mount, attr uint64, data []string) (int, error) {
	fs := mnt.NewFS("tmpfs").Set("source", "tmpfs")
	for _, o := range data {
		key, value, has := strings.Cut(o, "=")
		if !has {
			fs.Flag(o)
			continue
		}
		if key == "uid" || key == "gid" {
			var err error
			if value, err = f.outside(key, value); err != nil {
				fs.Close()
				return -1, err
			}
		}
		fs.Set(key, value)
	}
	made, err := fs.Mount(int(attr &^ unix.MOUNT_ATTR_RDONLY))
	if err != nil {
		return -1, err
	}
	defer made.Close()
	if err := f.fill(made, m.Destination); err != nil {
		return -1, err
	}
	if attr&unix.MOUNT_ATTR_RDONLY != 0 {
		if err := mnt.SetAttr(made, mnt.Attr{Set: unix.MOUNT_ATTR_RDONLY}, false); err != nil {
			return -1, err
		}
	}
	return keep(made)
}

// outside translates an id of the container into one of the host, whose the
// tmpfs is.
func (f *files) outside(kind, value string) (string, error) {
	list := f.spec.Linux.UIDMappings
	if kind == "gid" {
		list = f.spec.Linux.GIDMappings
	}
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || len(list) == 0 {
		return value, fault.Wrap(fault.Invalid, "use mount option", kind+"="+value, err, "give a number")
	}
	for _, l := range list {
		if uint32(id) >= l.ContainerID && uint32(id)-l.ContainerID < l.Size {
			return strconv.FormatUint(uint64(l.HostID)+id-uint64(l.ContainerID), 10), nil
		}
	}
	return "", fault.New(fault.Invalid, "use mount option", kind+"="+value, "not mapped in the container's user namespace", "")
}

// fill copies the directory at a path of the root file system, if there is one.
func (f *files) fill(to *os.File, path string) error {
	root, err := at.Dir(f.absolute(f.spec.Root.Path))
	if err != nil {
		return err
	}
	defer root.Close()
	from, err := at.InRoot(root, strings.TrimPrefix(path, "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	writable, err := openDir(to, ".") // a mount's own descriptor is a path only
	if err != nil {
		return err
	}
	defer writable.Close()
	return fault.Wrap(fault.Internal, "copy to the tmpfs on", path, copyTree(from, writable, maxDepth), "")
}

// copyTree copies what is in a directory, with owners, modes and times, and then
// those of the directory itself. Nothing is followed: a link is copied as one.
// Devices and sockets are left out.
func copyTree(from, to *os.File, depth int) error {
	if depth == 0 {
		return unix.ELOOP
	}
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(from, to, e.Name(), depth); err != nil {
			return &os.PathError{Op: "copy", Path: e.Name(), Err: err}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	n := int(to.Fd())
	return errors.Join(unix.Fchown(n, int(st.Uid), int(st.Gid)), unix.Fchmod(n, st.Mode&0o7777), setTimes(n, ".", &st))
}

func copyEntry(from, to *os.File, name string, depth int) error {
	var st unix.Stat_t
	src, dst := int(from.Fd()), int(to.Fd())
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return copyDir(from, to, name, depth)
	case unix.S_IFREG:
		return copyFile(src, dst, name, &st)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), dst, name)
		}
		if err != nil {
			return err
		}
	case unix.S_IFIFO:
		if err := unix.Mknodat(dst, name, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	default:
		return nil
	}
	return errors.Join(unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW), setTimes(dst, name, &st))
}

func openDir(dir *os.File, name string) (*os.File, error) {
	return at.Beneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

func copyDir(from, to *os.File, name string, depth int) error {
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return err
	}
	src, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openDir(to, name)
	if err != nil {
		return err
	}
	defer dst.Close()
	return copyTree(src, dst, depth-1)
}

// copyFile copies a regular file. It may have been replaced since it was looked
// at: what is opened is looked at again.
func copyFile(src, dst int, name string, st *unix.Stat_t) error {
	n, err := unix.Openat(src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(n), name)
	defer from.Close()
	var now unix.Stat_t
	if err := unix.Fstat(n, &now); err != nil || now.Ino != st.Ino || now.Dev != st.Dev {
		return errors.Join(err, unix.ESTALE)
	}
	w, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(w), name)
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return errors.Join(unix.Fchown(w, int(st.Uid), int(st.Gid)), unix.Fchmod(w, st.Mode&0o7777), setTimes(dst, name, st))
}

func setTimes(dir int, name string, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
