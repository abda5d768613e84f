package unpack

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// replace removes what stands at name and then does what failed because of it.
// parent must come from the cache and stays valid.
func (u *unpacker) replace(parent int, name string, do func() error) error {
	_, base := split(name)
	kind, err := kindOf(parent, base)
	if err != nil {
		return err
	}
	if kind != unix.S_IFDIR {
		if err := again(func() error { return unix.Unlinkat(parent, base, 0) }); err != nil {
			return err
		}
	} else if err := removeTree(parent, base); err != nil {
		return err
	}
	if kind == unix.S_IFDIR || kind == unix.S_IFLNK {
		u.dirs.keepOnly(parent) // names of directories may lead elsewhere now
	}
	return again(do)
}

func kindOf(parent int, base string) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Mode & unix.S_IFMT, err
}

// removeTree removes the directory base of parent and everything below it,
// without following a symlink.
func removeTree(parent int, base string) error {
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), base)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(fd, name, 0)
		if errors.Is(err, unix.EISDIR) {
			err = removeTree(fd, name)
		}
		if err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
}
