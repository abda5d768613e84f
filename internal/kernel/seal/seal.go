// Package seal shows a program of the host in a way in which nobody can write to
// it: whoever runs it can be asked for it by /proc/PID/exe, by processes in a
// container too (CVE-2019-5736).
package seal

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/words/fault"
)

// Program is a view of a program: a read-only mount that is attached nowhere, so
// that nobody can make it writable again or mount it. A process that has been
// started by it keeps the mount for as long as it runs, and so does every
// descriptor got from its /proc/PID/exe: they cannot be opened for writing
// (EROFS), not by the owner of the file, not after its end.
type Program struct {
	dir  *os.File
	name string
}

// lowest is where the descriptor of a view begins: package syscall moves the
// standard streams of a new process over lower ones before it executes
// (golang.org/issue/61751).
const lowest = 16

// Open makes a view of the directory of the program at path: what is started by
// it is the program that has the name then. The caller closes it. Errors are the
// kernel's: without CAP_SYS_ADMIN over the mount namespace there is none.
func Open(path string) (*Program, error) {
	dir, err := mnt.ClonePath(nil, filepath.Dir(path), false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return view(dir, path)
}

// view makes dir, a detached mount, read-only and keeps it. dir stays the
// caller's.
func view(dir *os.File, path string) (*Program, error) {
	if err := mnt.SetAttr(dir, mnt.Attr{Set: mnt.ReadOnly}, true); err != nil {
		return nil, err
	}
	n, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return nil, fault.Wrap(fault.Exhausted, "keep open", path, err, "")
	}
	p := &Program{dir: fd.Wrap(n, filepath.Dir(path)), name: filepath.Base(path)}
	var st unix.Stat_t
	if err := unix.Stat(p.Path(), &st); err != nil {
		p.Close()
		return nil, fault.Wrap(fault.NotFound, "find", path, err, "")
	}
	return p, nil
}

// Path is what this process, and a child of it until execve, executes.
func (p *Program) Path() string {
	return "/proc/self/fd/" + strconv.Itoa(int(p.dir.Fd())) + "/" + p.name
}

// Close ends the view for new processes.
func (p *Program) Close() error { return p.dir.Close() }

// Sealed reports whether this process runs from where nobody can write to its
// program.
func Sealed() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs("/proc/self/exe", &fs); err != nil {
		return false, fault.Wrap(fault.Internal, "look at", "/proc/self/exe", err, "mount /proc")
	}
	return fs.Flags&unix.ST_RDONLY != 0, nil
}
