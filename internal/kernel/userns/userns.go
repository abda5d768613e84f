// Package userns makes user namespaces that exist only for the map they hold:
// the descriptor that mount_setattr(2) wants with MOUNT_ATTR_IDMAP. No program
// runs in them.
package userns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

const op = "make user namespace"

// New makes a user namespace with these maps and returns a descriptor of it,
// which the caller closes. The namespace, and what was idmapped with it, lives
// on without a process. It costs one fork of the calling process and its end.
//
// A map without entries and one the kernel has no room for are Invalid; a
// missing privilege (CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, and CAP_SETFCAP
// when host id 0 is mapped) is Denied; the limit of user namespaces is
// Exhausted. On failure nothing is left behind. It may be called from any
// goroutine, several at once.
func New(pair idmap.Pair) (*os.File, error) {
	if err := check(pair); err != nil {
		return nil, err
	}
	// The child asks for a SIGKILL at the death of its parent, and to the kernel
	// the parent is the thread that cloned it (PR_SET_PDEATHSIG(2const)): the
	// thread may not end before the child has been reaped.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	pid, pidfd, errno := clonePaused()
	if errno != 0 {
		return nil, cloneFault(pair, errno)
	}
	child := process{pid, os.NewFile(uintptr(pidfd), "pidfd")}
	defer child.end()
	if err := child.write("uid_map", pair.UID); err != nil {
		return nil, err
	}
	if err := child.write("gid_map", pair.GID); err != nil {
		return nil, err
	}
	ns, err := os.Open(child.path("ns/user"))
	return ns, fault.Wrap(fault.Internal, op, name(pair), err, "")
}

// check finds what the kernel would answer with a bare EINVAL, to the write of
// the map or only to the later mount_setattr(2).
func check(pair idmap.Pair) error {
	if pair.UID.IsZero() || pair.GID.IsZero() {
		return fault.New(fault.Invalid, op, name(pair), "a map without entries cannot shift files",
			"give both a uid map and a gid map")
	}
	return nil
}

// process is a paused child. It is not reaped before end, so that its number,
// and with it its directory in /proc, cannot become another process's.
type process struct {
	pid   int
	pidfd *os.File
}

func (c process) path(name string) string { return fmt.Sprintf("/proc/%d/%s", c.pid, name) }

// write gives the child's namespace one of its maps, by the single write at
// offset 0 that user_namespaces(7) allows.
func (c process) write(kind string, m idmap.Map) error {
	f, err := os.OpenFile(c.path(kind), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(m.String())
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		return nil
	}
	const what = "write"
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fault.Wrap(fault.Denied, what, kind+" "+m.List(), err,
			"run as root with CAP_SETUID, CAP_SETGID and, to map host id 0, CAP_SETFCAP; inside a user namespace only its own ids can be mapped")
	case errors.Is(err, unix.EINVAL):
		return fault.Wrap(fault.Invalid, what, kind+" "+m.List(), err, "")
	}
	return fault.Wrap(fault.Internal, what, kind+" "+m.List(), err, "")
}

// end kills the child and waits until it is gone. Nothing can be done about a
// failure: the child would be killed with this thread.
func (c process) end() {
	_ = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	for {
		// __WALL: the child has no exit signal, which makes it a "clone" child
		// to wait(2).
		err := unix.Waitid(unix.P_PIDFD, int(c.pidfd.Fd()), nil, unix.WEXITED|unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	c.pidfd.Close()
}

func name(pair idmap.Pair) string {
	if pair.UID.Equal(pair.GID) {
		return pair.UID.List()
	}
	return pair.UID.List() + " / " + pair.GID.List()
}

func cloneFault(pair idmap.Pair, errno error) error {
	class, hint := fault.Internal, ""
	switch {
	case errors.Is(errno, unix.ENOSPC), errors.Is(errno, unix.EUSERS):
		class, hint = fault.Exhausted, "raise user.max_user_namespaces, or nest user namespaces less deeply"
	case errors.Is(errno, unix.EAGAIN), errors.Is(errno, unix.ENOMEM):
		class, hint = fault.Exhausted, "raise the daemon's limit of processes or free memory"
	case errors.Is(errno, unix.EPERM):
		class, hint = fault.Denied, "user namespaces are switched off, or this process is in a chroot"
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL):
		class, hint = fault.Unsupported, "clone3 with CLONE_NEWUSER needs Linux 5.5, CONFIG_USER_NS and a seccomp filter that lets it pass"
	}
	return fault.Wrap(class, op, name(pair), errno, hint)
}
