// Package pack reads what a container has written: as a list of changes, as
// the tar of an image layer, and joined with its layers as the tar of a whole
// root file system. Nothing is mounted: the rules by which overlayfs joins
// directories are applied to the directories themselves
// (Documentation/filesystems/overlayfs.rst), so that it works while the overlay
// is in use.
//
// The trees are hostile and may change while they are read. Every step is one
// component below a descriptor and follows no link. What vanishes is left out,
// what grows is cut at the size it had, what shrinks is filled up with zeroes.
// One descriptor for each directory level and layer is held, and the names of
// one directory for each level.
package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Source is what a root file system is made of. The directories stay the
// caller's.
type Source struct {
	Upper  *os.File   // what the container wrote; nil: nothing
	Lowers []*os.File // its layers, topmost first
	Owners Owners     // who owns what is in Upper; files in Lowers have inside ids
}

// Owners turns owners of files in an upper, as stored, into inside ids. False
// is an id that nobody in the container has. Nil: they are inside ids.
type Owners struct {
	UID, GID func(stored uint32) (inside uint32, ok bool)
}

// maxName bounds the path of a file: what no tar of a layer may hold, and what
// no container can open by its name (PATH_MAX).
const maxName = 4095

// tree is a directory of the upper or of a layer.
type tree struct {
	dir   *os.File
	upper bool
}

// top opens the source's directories for reading, topmost first. The caller
// closes them with shut.
func (s Source) top() ([]tree, error) {
	var out []tree
	add := func(dir *os.File, upper bool) error {
		f, err := openDir(dir, ".")
		if err == nil {
			out = append(out, tree{f, upper})
		}
		return err
	}
	var err error
	if s.Upper != nil {
		err = add(s.Upper, true)
	}
	for _, l := range s.Lowers {
		if err == nil {
			err = add(l, false)
		}
	}
	if err != nil {
		shut(out)
		return nil, err
	}
	return out, nil
}

func shut(trees []tree) {
	for _, t := range trees {
		t.dir.Close()
	}
}

// openDir opens one directory right below dir. The file does not get its path
// for a name, which grows without bound.
func openDir(dir *os.File, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	n, err := unix.Openat(int(dir.Fd()), name, flags, 0)
	if err != nil {
		return nil, sysx.Fault("open directory", name, err)
	}
	return fd.Wrap(n, name), nil
}

// gone reports whether an error says that somebody removed or replaced what was
// there a moment before.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// names lists a directory in order.
func names(dir *os.File) ([]string, error) {
	list, err := dir.Readdirnames(-1)
	slices.Sort(list)
	return list, sysx.Fault("list", dir.Name(), err)
}

// stat looks at a name; nil when nothing is there.
func stat(dir *os.File, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if gone(err) {
		return nil, nil
	}
	return &st, sysx.Fault("look at", name, err)
}

func kind(st *unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

func isDir(st *unix.Stat_t) bool { return st != nil && kind(st) == unix.S_IFDIR }

// whiteout reports whether a name hides what layers below have at it: a
// character device 0:0, or an empty file with a mark (overlayfs.rst, "whiteouts
// and opaque directories", Linux 6.8). The mark in user.* is nothing here: it
// is for overlays that a user mounted, and any process could set it.
func whiteout(dir *os.File, name string, st *unix.Stat_t) bool {
	switch kind(st) {
	case unix.S_IFCHR:
		return st.Rdev == 0
	case unix.S_IFREG:
		if st.Size != 0 {
			return false
		}
		_, err := unix.Lgetxattr(fd.Path(dir)+"/"+name, "trusted.overlay.whiteout", nil)
		return err == nil
	}
	return false
}

// opaque reports whether a directory hides what layers below have at its name.
// The mark "x" is another one: there are marked whiteouts in it.
func opaque(dir *os.File) bool {
	value, err := at.Xattr(fd.Path(dir)+"/.", "trusted.overlay.opaque")
	return err == nil && string(value) == "y"
}

// found is what a stack of directories shows at a name.
type found struct {
	st   *unix.Stat_t // nil: nothing
	in   tree         // the directory of the stack that has it
	dirs []tree       // when it is a directory: those that make it up, topmost first
}

// find looks a name up in directories that are joined. The caller shuts
// found.dirs.
func find(stack []tree, name string) (f found, err error) {
	defer func() {
		if err != nil {
			shut(f.dirs)
		}
	}()
	for _, t := range stack {
		st, err := stat(t.dir, name)
		switch {
		case err != nil:
			return f, err
		case st == nil:
			continue
		case whiteout(t.dir, name, st):
			return f, nil
		case kind(st) != unix.S_IFDIR:
			if f.st == nil {
				f.st, f.in = st, t
			}
			return f, nil
		}
		dir, err := openDir(t.dir, name)
		if gone(err) {
			continue
		}
		if err != nil {
			return f, err
		}
		if f.st == nil {
			f.st, f.in = st, t
		}
		f.dirs = append(f.dirs, tree{dir, t.upper})
		if opaque(dir) {
			return f, nil
		}
	}
	return f, nil
}

// owner returns the inside ids of an object.
func (s Source) owner(t tree, st *unix.Stat_t, path string) (uid, gid int, err error) {
	if !t.upper || s.Owners.UID == nil {
		return int(st.Uid), int(st.Gid), nil
	}
	u, ok := s.Owners.UID(st.Uid)
	if !ok {
		return 0, 0, stranger(path, "user", st.Uid)
	}
	g, ok := s.Owners.GID(st.Gid)
	if !ok {
		return 0, 0, stranger(path, "group", st.Gid)
	}
	return int(u), int(g), nil
}

func stranger(path, what string, id uint32) error {
	return fault.New(fault.Conflict, "read", quote(path), fmt.Sprintf("its %s is host id %d, which is not in the container's map", what, id),
		"give the file to somebody in the container, or delete it")
}

// refused is a file that a tar cannot hold as it is.
func refused(path, why, hint string) error {
	return fault.New(fault.Invalid, "archive", quote(path), why, hint)
}

// quote makes a hostile name printable and short.
func quote(name string) string {
	if len(name) > 200 {
		name = name[:197] + "..."
	}
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}

func canceled(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.Wrap(fault.Canceled, "read", "root file system", ctx.Err(), "")
}

// join makes a path relative to the root, which is "".
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// placeholders are the places of mounts that every container has. The runtime
// makes what an image lacks; Docker keeps them in a layer of their own, so that
// neither diff nor commit shows them.
var placeholders = [...]string{"dev", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "sys"}

// placeholder reports whether a name that no layer has is but a place for one of
// these mounts: an empty file or directory.
func placeholder(dir *os.File, name, path string, st *unix.Stat_t) bool {
	if !slices.Contains(placeholders[:], path) {
		return false
	}
	if !isDir(st) {
		return kind(st) == unix.S_IFREG && st.Size == 0
	}
	sub, err := openDir(dir, name)
	if err != nil {
		return false
	}
	defer sub.Close()
	list, err := sub.Readdirnames(1)
	return len(list) == 0 && err != nil
}
