// Package at walks and changes directory trees by descriptor. A name that
// comes from outside (an image, a request, a symbolic link) is unsafeName
// until a function here has turned it into a descriptor; there is no way back
// from descriptor to path.
package at

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
)

const (
	// dirFlags opens a directory as an anchor: nothing is read through it.
	dirFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// tries bounds the retries of openat2(2): EAGAIN says that a rename or a
	// mount somewhere made the kernel unsure whether ".." stayed inside.
	tries = 128
)

// Dir opens a directory of fief's own by path, as O_PATH. Symbolic links are
// followed: the path is the administrator's. The caller closes it.
func Dir(path string) (*os.File, error) {
	n, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, sysx.Fault("open directory", path, err)
	}
	return fd.Wrap(n, path), nil
}

// Beneath opens unsafeName below dir. No symbolic link is followed, no mount
// is crossed, and ".." or an absolute name cannot leave dir (openat2(2)). flags
// are those of open(2); O_CLOEXEC is added. The caller closes the result.
func Beneath(dir *os.File, unsafeName string, flags int) (*os.File, error) {
	const how = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	return resolve(dir, unsafeName, flags, how)
}

// InRoot opens unsafeName as a process whose root directory is dir would see
// it: absolute names and symbolic links start again at dir, and ".." stops
// there (openat2(2), RESOLVE_IN_ROOT, Linux 5.6). The links of /proc that leave
// the tree are refused. The caller closes the result.
func InRoot(dir *os.File, unsafeName string, flags int) (*os.File, error) {
	return resolve(dir, unsafeName, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// Below opens unsafeName below dir as Beneath does, but also on the far side of
// mounts. The caller closes the result.
func Below(dir *os.File, unsafeName string, flags int) (*os.File, error) {
	return resolve(dir, unsafeName, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

// SubDir opens the directory name below dir as an anchor, as Beneath does.
func SubDir(dir *os.File, name string) (*os.File, error) {
	return Beneath(dir, name, dirFlags)
}

// Descend opens unsafeName below dir, across mounts and along symbolic links that
// stay below dir; what leads out of it is EXDEV, absolute names and links too
// (openat2(2), RESOLVE_BENEATH). The caller closes the result.
func Descend(dir *os.File, unsafeName string, flags int) (*os.File, error) {
	return resolve(dir, unsafeName, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
}

func resolve(dir *os.File, unsafeName string, flags int, how uint64) (*os.File, error) {
	open := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: how}
	for i := 0; ; i++ {
		n, err := unix.Openat2(int(dir.Fd()), unsafeName, &open)
		if err == nil {
			return fd.Wrap(n, filepath.Join(dir.Name(), unsafeName)), nil
		}
		if i < tries && (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) {
			continue
		}
		return nil, sysx.Fault("open", filepath.Join(dir.Name(), unsafeName), err)
	}
}

// MakeDir makes the directory name below dir, a name fief chose, with exactly this
// mode, whatever the umask, owned by the caller. An existing one is left as it
// is and reported as a fault of class Exists.
func MakeDir(dir *os.File, name string, mode uint32) error {
	object := filepath.Join(dir.Name(), name)
	if err := unix.Mkdirat(int(dir.Fd()), name, mode); err != nil {
		return sysx.Fault("make directory", object, err)
	}
	// fchmodat(2) follows links, but nobody else writes to fief's directories.
	return sysx.Fault("set mode of", object, unix.Fchmodat(int(dir.Fd()), name, mode, 0))
}

// EnsureDir makes the directory name below dir with mode 0700 when it is
// missing, sets mode and owner (root) when they differ, and opens it. The
// caller closes it.
func EnsureDir(dir *os.File, name string) (*os.File, error) {
	object := filepath.Join(dir.Name(), name)
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, sysx.Fault("make directory", object, err)
	}
	f, err := SubDir(dir, name)
	if err != nil {
		return nil, err
	}
	if err := private(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// private makes an O_PATH directory root's own, mode 0700. chmod(2) on an
// O_PATH descriptor goes through /proc (open(2)).
func private(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return sysx.Fault("look at", f.Name(), err)
	}
	if st.Uid != 0 || st.Gid != 0 {
		if err := unix.Fchownat(int(f.Fd()), "", 0, 0, unix.AT_EMPTY_PATH); err != nil {
			return sysx.Fault("give to root", f.Name(), err)
		}
	}
	if st.Mode&0o7777 == 0o700 {
		return nil
	}
	return sysx.Fault("set mode of", f.Name(), unix.Chmod(fd.Path(f), 0o700))
}

// Rename moves name from one directory to another and refuses to replace what
// is there (renameat2(2), RENAME_NOREPLACE): class Exists.
func Rename(from *os.File, name string, to *os.File, newName string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	return sysx.Fault("move "+filepath.Join(from.Name(), name)+" to", filepath.Join(to.Name(), newName), err)
}

// Exchange makes two entries change places, both of which must exist
// (renameat2(2), RENAME_EXCHANGE): nobody sees either name missing.
func Exchange(a *os.File, name string, b *os.File, other string) error {
	err := unix.Renameat2(int(a.Fd()), name, int(b.Fd()), other, unix.RENAME_EXCHANGE)
	return sysx.Fault("exchange "+filepath.Join(a.Name(), name)+" with", filepath.Join(b.Name(), other), err)
}

// Exists reports whether dir has an entry name.
func Exists(dir *os.File, name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, sysx.Fault("look at", filepath.Join(dir.Name(), name), err)
}

// Names lists the entries of dir, which may be an O_PATH descriptor.
func Names(dir *os.File) ([]string, error) {
	f, err := Beneath(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return names, sysx.Fault("list", dir.Name(), err)
}

// SyncDir makes the entries of dir durable (fsync(2)); dir may be O_PATH.
func SyncDir(dir *os.File) error { return synced(dir, unix.Fsync, "sync directory") }

// SyncFS makes everything written to dir's file system durable. Since Linux
// 5.8 it also reports earlier write errors (syncfs(2)). dir may be O_PATH.
func SyncFS(dir *os.File) error { return synced(dir, unix.Syncfs, "sync the file system of") }

func synced(dir *os.File, sync func(int) error, op string) error {
	f, err := Beneath(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	return sysx.Fault(op, dir.Name(), sync(int(f.Fd())))
}
