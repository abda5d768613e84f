// Package space makes mounts that show a namespace, for namespaces that the
// caller is not in: a container that is not allowed to make them itself is
// handed them detached. The caller closes what is returned, which is attached to
// nothing, and may be called from any goroutine.
//
// All mounts are nosuid, nodev and noexec; what else they are to be is the
// business of who attaches them. Whoever has CAP_SYS_ADMIN in the mount namespace
// they end up in can change that again: the kernel locks only mounts that a
// namespace is born with (mount_namespaces(7)). What keeps a container from
// writing is that files belong to the root of the user namespace that owns the
// namespace shown, or to the host's.
package space

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

const attributes = mnt.NoSuid | mnt.NoDev | mnt.NoExec

// Sysfs makes a sysfs that shows the devices of a network namespace; nil: the
// caller's. CAP_SYS_ADMIN over the namespace is needed (Denied).
func Sysfs(netns *os.File) (*os.File, error) { return fresh("sysfs", netns, unix.CLONE_NEWNET) }

// Mqueue makes an mqueue that shows the POSIX message queues of an ipc
// namespace; nil: the caller's.
func Mqueue(ipcns *os.File) (*os.File, error) { return fresh("mqueue", ipcns, unix.CLONE_NEWIPC) }

// Cgroup2 makes a cgroup2 whose root is that of a cgroup namespace; nil: the
// caller's.
func Cgroup2(cgroupns *os.File) (*os.File, error) {
	return fresh("cgroup2", cgroupns, unix.CLONE_NEWCGROUP)
}

// fresh makes a file system in a namespace. The namespace shown is that of the
// thread that begins to configure it (the init_fs_context of each).
func fresh(kind string, ns *os.File, flag int) (f *os.File, err error) {
	err = visit(ns, flag, func() error {
		f, err = mnt.NewFS(kind).Set("source", kind).Mount(attributes)
		return err
	})
	return f, err
}

// Proc makes a proc that shows the processes of a pid namespace; nil: the
// caller's. options are the file system's, such as "hidepid=invisible" (proc(5)).
// A namespace without any process left is an error.
//
// Linux v6.18 and later can be told the namespace (procfs: add "pidns" mount
// option); before, the one shown is that of the process that begins to configure
// the file system, and a thread cannot enter a pid namespace itself: a forked
// child does it.
func Proc(pidns *os.File, options ...string) (*os.File, error) {
	if pidns == nil {
		return configure(mnt.NewFS("proc"), options)
	}
	if err := isKind(pidns, unix.CLONE_NEWPID); err != nil {
		return nil, err
	}
	told := mnt.NewFS("proc").FD("pidns", pidns)
	if err := told.Err(); err == nil {
		return configure(told, options)
	}
	told.Close()
	begun, err := procBegunIn(pidns)
	if err != nil {
		return nil, err
	}
	return configure(begun, options)
}

func configure(f *mnt.FS, options []string) (*os.File, error) {
	f.Set("source", "proc")
	for _, o := range options {
		if key, value, has := strings.Cut(o, "="); has {
			f.Set(key, value)
		} else {
			f.Flag(o)
		}
	}
	return f.Mount(attributes)
}

// isKind checks that ns is a namespace of the kind CLONE_NEW… flag.
func isKind(ns *os.File, flag int) error {
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind != flag {
		err = unix.EINVAL
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, "enter namespace", ns.Name(), err, "it is not a namespace of the kind needed")
	}
	return nil
}

// Clone makes a copy of the tmpfs mounted at path in another mount namespace,
// without what is mounted below it: a container shares the /dev/shm of another
// this way. path is looked up in that namespace's root, and nothing that its
// owner may have put there leads elsewhere: links are refused, of whatever kind
// (Invalid), and what is not the root of a mounted tmpfs is too.
func Clone(mntns *os.File, path string) (*os.File, error) {
	if err := isKind(mntns, unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	var f *os.File
	err := OnSpareThread(func() error {
		// A thread that shares its working directory and root with others may not
		// enter a mount namespace (setns(2)). The kernel gives it both of that one.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return sysx.Fault("unshare", "working directory", err)
		}
		if err := unix.Setns(int(mntns.Fd()), unix.CLONE_NEWNS); err != nil {
			return sysx.Fault("enter mount namespace", mntns.Name(), err)
		}
		at, err := lookup(path)
		if err != nil {
			return err
		}
		defer at.Close()
		f, err = mnt.Clone(at, false)
		return err
	})
	return f, err
}

// lookup opens the root of the tmpfs at path, as the calling thread sees it.
func lookup(path string) (*os.File, error) {
	const op = "share"
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, sysx.Fault(op, path, err)
	}
	defer unix.Close(root)
	n, err := unix.Openat2(root, path, &how)
	for tries := 0; errors.Is(err, unix.EAGAIN) && tries < maxTries; tries++ {
		n, err = unix.Openat2(root, path, &how) // a rename meanwhile (openat2(2))
	}
	if err != nil {
		return nil, sysx.Fault(op, path, err)
	}
	f := os.NewFile(uintptr(n), path)
	var stx unix.Statx_t
	var fs unix.Statfs_t
	err = errors.Join(unix.Statx(n, "", unix.AT_EMPTY_PATH, 0, &stx), unix.Fstatfs(n, &fs))
	if err == nil && (stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 || int64(fs.Type) != unix.TMPFS_MAGIC) {
		err = fault.New(fault.Invalid, op, path, "it is not where a tmpfs is mounted", "")
	}
	if err != nil {
		f.Close()
		return nil, sysx.Fault(op, path, err)
	}
	return f, nil
}

const maxTries = 64
