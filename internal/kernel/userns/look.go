package userns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

const opMaps = "read the maps of user namespace"

// MapsOf returns the maps of the user namespace that ns is a descriptor of,
// which stays the caller's. Nothing but a process in a namespace shows its maps
// (user_namespaces(7), /proc/PID/uid_map), so one is sent there: it ends at once,
// and is looked at before it is reaped.
//
// A descriptor of anything else, one of the caller's own user namespace or of
// the initial one, and a namespace that lacks a map or maps ids that the caller
// does not know, are Invalid. A namespace that the caller may not enter (it needs
// CAP_SYS_ADMIN there) is Denied. It may be called from any goroutine.
func MapsOf(ns *os.File) (idmap.Pair, error) {
	if err := checkJoinable(ns); err != nil {
		return idmap.Pair{}, err
	}
	pid, pidfd, errno := cloneInto(int(ns.Fd()))
	if errno != 0 {
		return idmap.Pair{}, sysx.Fault(opMaps, ns.Name(), errno)
	}
	child := process{pid, os.NewFile(uintptr(pidfd), "pidfd")}
	defer child.end()
	if err := child.entered(ns.Name()); err != nil {
		return idmap.Pair{}, err
	}
	var pair idmap.Pair
	for _, m := range []struct {
		file string
		to   *idmap.Map
	}{{"uid_map", &pair.UID}, {"gid_map", &pair.GID}} {
		text, err := os.ReadFile(child.path(m.file))
		if err == nil {
			*m.to, err = idmap.ParseKernel(text)
		}
		switch {
		case err != nil:
			return idmap.Pair{}, fault.Wrap(fault.Invalid, opMaps, ns.Name(), err, "")
		case m.to.IsZero():
			return idmap.Pair{}, fault.New(fault.Invalid, opMaps, ns.Name(), "it has no "+m.file+" yet", "join the namespace of a container that runs")
		case bytes.Contains(text, []byte(unknownID)):
			return idmap.Pair{}, fault.New(fault.Invalid, opMaps, ns.Name(), "its "+m.file+" has ids that do not exist here", "")
		}
	}
	return pair, nil
}

// unknownID is how a map shows ids outside that the reader's user namespace does
// not have; an id inside is never this one, and a size is at a line's end.
const unknownID = " 4294967295 "

// initialInode is that of the initial user namespace, everywhere
// (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const initialInode = 0xEFFFFFFD

// checkJoinable refuses what is no user namespace to join.
func checkJoinable(ns *os.File) error {
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWUSER {
		return fault.New(fault.Invalid, "join user namespace", ns.Name(), "it is not a user namespace", "name a file such as /proc/PID/ns/user")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return sysx.Fault("join user namespace", ns.Name(), err)
	}
	own, err := os.Open("/proc/thread-self/ns/user")
	if err != nil {
		return sysx.Fault("join user namespace", ns.Name(), err)
	}
	defer own.Close()
	same, err := Same(ns, own)
	if err != nil {
		return err
	}
	if same || st.Ino == initialInode {
		return fault.New(fault.Invalid, "join user namespace", ns.Name(), "it is the host's", "leave the user namespace out to be in the host's")
	}
	return nil
}

// entered waits for the end of a child made by cloneInto, which stays to be
// reaped.
func (c process) entered(name string) error {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, int(c.pidfd.Fd()), &info, unix.WEXITED|unix.WALL|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return sysx.Fault(opMaps, name, err)
		}
	}
	// si_status follows three numbers, padding, si_pid and si_uid (sigaction(2),
	// 64-bit machines).
	const statusAt, exited = 24, 1 // CLD_EXITED
	status := *(*int32)(unsafe.Add(unsafe.Pointer(&info), statusAt))
	switch {
	case info.Code != exited:
		return fault.New(fault.Unavailable, opMaps, name, fmt.Sprintf("the process sent there was killed by signal %d", status), "")
	case status != 0:
		return sysx.Fault(opMaps, name, unix.Errno(status))
	}
	return nil
}

// OwnerOf returns a descriptor of the user namespace that owns the namespace ns,
// of any kind (ioctl_nsfs(2), NS_GET_USERNS); the caller closes it. An owner
// outside the caller's user namespace is Denied.
func OwnerOf(ns *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, sysx.Fault("find owner of namespace", ns.Name(), err)
	}
	return fd.Wrap(n, "owner of "+ns.Name()), nil
}

// Same reports whether two namespace descriptors are of one namespace: device
// and inode tell (namespaces(7)).
func Same(a, b *os.File) (bool, error) {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &x), unix.Fstat(int(b.Fd()), &y)); err != nil {
		return false, fault.Wrap(fault.Internal, "compare namespaces", a.Name(), err, "")
	}
	return x.Dev == y.Dev && x.Ino == y.Ino, nil
}
