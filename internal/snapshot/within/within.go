// Package within copies files into and out of a root file system whose owner is
// hostile and may be changing it meanwhile: symbolic links, renames and mounts
// can come between any two system calls. Nothing is ever run from inside.
//
//   - A name is resolved once, by the kernel, from the root's descriptor
//     (openat2(2), RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS); what is decided
//     and done afterwards is decided and done on the descriptor found. What a
//     container swaps meanwhile changes which of its own files are meant
//     (CVE-2018-15664).
//   - Only regular files are opened for reading; pipes and devices never are.
//   - Nothing is written into a file that is there: it is unlinked and made anew.
//   - Host root's hands do no more than the container's root could do: it may
//     change directories only whose owners its map has (capabilities(7), as
//     in_group and owner checks of the kernel go), so that a directory of the
//     host that was bind-mounted unmapped is not written to on its behalf.
//   - File systems through which the kernel is governed (proc, sysfs, cgroup and
//     so on) are neither read nor written.
package within

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// maxLinks bounds the symbolic links followed for a link's target, as
// path_resolution(7) does.
const maxLinks = 40

// overflowID is whom a container sees as the owner of files that are not
// mapped (user_namespaces(7), "Unmapped user and group IDs").
const overflowID = 65534

// tree is a root file system and the map of the container that uses it.
type tree struct {
	root *os.File // named "/", so that errors show names as the container knows them
	pair idmap.Pair
}

func newTree(root *os.File, pair idmap.Pair) (tree, error) {
	n, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return tree{}, sysx.Fault("open", "/", err)
	}
	return tree{fd.Wrap(n, "/"), pair}, nil
}

// absolute cleans a name as docker does: ".." ends at the root, and a slash or
// "/." at the end is kept, which says that the directory behind a link is meant.
func absolute(unsafeName string) string {
	abs := path.Clean("/" + unsafeName)
	switch {
	case strings.HasSuffix(unsafeName, "/.") || unsafeName == ".":
		return strings.TrimSuffix(abs, "/") + "/."
	case strings.HasSuffix(unsafeName, "/") && abs != "/":
		return abs + "/"
	}
	return abs
}

// open finds a name of the container's; a symbolic link at its end is what is
// meant unless a slash follows it.
func (t tree) open(abs string) (*os.File, error) {
	flags := unix.O_PATH | unix.O_NOFOLLOW
	if strings.HasSuffix(abs, "/") || strings.HasSuffix(abs, "/.") {
		flags = unix.O_PATH | unix.O_DIRECTORY
	}
	f, err := at.InRoot(t.root, abs, flags)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return nil, fault.Say(fault.Invalid, abs+": not a directory")
	case fault.Is(err, fault.NotFound):
		return nil, missing(abs)
	}
	return f, err
}

func missing(abs string) error {
	return fault.New(fault.NotFound, "find", abs, "there is no such file in the container", "")
}

func look(f *os.File) (st unix.Stat_t, err error) {
	return st, sysx.Fault("look at", f.Name(), unix.Fstat(int(f.Fd()), &st))
}

// stat describes what a name was found to be.
func (t tree) stat(abs string, st *unix.Stat_t) record.PathStat {
	out := record.PathStat{Name: path.Base(abs), Size: st.Size, Mode: modeOf(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		out.LinkTarget = t.follow(abs)
	}
	return out
}

// follow is where a symbolic link leads in the end, as far as it leads
// anywhere. It is only told to the client: nothing is opened by it.
func (t tree) follow(abs string) string {
	rest, done := strings.Split(path.Clean(abs), "/"), "/"
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join(done, part)
		target, err := t.readlink(next)
		if err != nil || links == maxLinks {
			done = next
			continue
		}
		links++
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done
}

func (t tree) readlink(abs string) (string, error) {
	f, err := at.InRoot(t.root, abs, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return target(f)
}

// target reads the link that f is (readlinkat(2), "pathname can be an empty string").
func target(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	return string(buf[:max(n, 0)]), sysx.Fault("read link", f.Name(), err)
}

// modeOf is a mode of stat(2) as Go has it.
func modeOf(mode uint32) fs.FileMode {
	out := fs.FileMode(mode & 0o777)
	for _, bit := range []struct {
		is uint32
		as fs.FileMode
	}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}} {
		if mode&bit.is != 0 {
			out |= bit.as
		}
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		out |= fs.ModeDir
	case unix.S_IFLNK:
		out |= fs.ModeSymlink
	case unix.S_IFIFO:
		out |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		out |= fs.ModeSocket
	case unix.S_IFBLK:
		out |= fs.ModeDevice
	case unix.S_IFCHR:
		out |= fs.ModeDevice | fs.ModeCharDevice
	}
	return out
}

// governs reports whether f is on a file system through which the kernel is
// governed. Types are those of statfs(2) and linux/magic.h.
func governs(f *os.File) (bool, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return false, sysx.Fault("look at the file system of", f.Name(), err)
	}
	switch int64(s.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
		unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.BPF_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.HUGETLBFS_MAGIC, unix.AUTOFS_SUPER_MAGIC,
		0x62656570 /* configfs */, 0x19800202 /* mqueue */, 0x65735543 /* fusectl */, 0x67596969 /* rpc_pipefs */ :
		return true, nil
	}
	return false, nil
}

func (t tree) refuseGoverned(f *os.File) error {
	yes, err := governs(f)
	if err == nil && yes {
		err = fault.New(fault.Denied, "copy", f.Name(), "it is a file of the kernel, not of the container", "read it inside: exec cat")
	}
	return err
}

// ours reports whether the container's root may act on a file with this owner.
func (t tree) ours(st *unix.Stat_t) bool {
	if t.pair.IsZero() {
		return true
	}
	_, uid := t.pair.UID.ToInside(idmap.Host(st.Uid))
	_, gid := t.pair.GID.ToInside(idmap.Host(st.Gid))
	return uid && gid
}

// inside is an owner as the container sees it.
func inside(m idmap.Map, id uint32) int {
	if m.IsZero() {
		return int(id)
	}
	if in, ok := m.ToInside(idmap.Host(id)); ok {
		return int(in)
	}
	return overflowID
}

// outside is an owner of the container's as the host knows it.
func outside(m idmap.Map, id int) (uint32, bool) {
	if id < 0 || id > idmap.Max {
		return 0, false
	}
	if m.IsZero() {
		return uint32(id), true
	}
	h, ok := m.ToHost(idmap.Inside(id))
	return uint32(h), ok
}
