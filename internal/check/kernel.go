package check

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/proc"
	"fief/internal/kernel/userns"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// newKernel is the advice where a system call is missing.
const newKernel = "boot a newer kernel; in a container or virtual machine, let its seccomp filter pass the call"

func kernel() []record.Check {
	const needed = "containers cannot be started without it"
	return tryAll(Kernel, []trial{
		{name: "clone3", worst: record.CheckFail, do: clone3, why: needed, fix: newKernel},
		{name: "pidfd", worst: record.CheckFail, do: pidfd, why: "processes are watched and killed by it", fix: newKernel},
		{name: "openat2", worst: record.CheckFail, do: openat2, why: "files of containers are only opened with it", fix: newKernel},
		{name: "close_range", worst: record.CheckFail, do: closeRange, why: needed, fix: newKernel},
		{name: "mounts by descriptor (fsopen, open_tree)", worst: record.CheckFail, root: true, do: newMounts, why: needed, fix: newKernel},
		{name: "move_mount", worst: record.CheckFail, root: true, do: moveMount, why: needed, fix: newKernel},
		{name: "mount_setattr", worst: record.CheckFail, root: true, do: mountSetattr, why: needed, fix: newKernel},
		{name: "open_tree_attr", worst: record.CheckInfo, do: openTreeAttr, why: "mounts that are idmapped already cannot be mapped anew (Linux 6.15)"},
		{name: "proc for a given pid namespace", worst: record.CheckInfo, root: true, do: procPidns, why: "the proc of a pid namespace that is joined is begun by a process sent there (Linux 6.18 has pidns=)"},
		{name: "seccomp filters", worst: record.CheckFail, do: seccompFilter, why: "containers are refused rather than run without a filter", fix: "build the kernel with CONFIG_SECCOMP_FILTER"},
		{name: "seccomp actions", worst: record.CheckWarn, do: seccompActions, why: "profiles that use these actions are refused", fix: newKernel},
		{name: "overlayfs", worst: record.CheckFail, root: true, do: overlay, why: "root file systems are made of it", fix: "modprobe overlay"},
		{name: "programs of other processors (binfmt_misc)", worst: record.CheckInfo, do: binfmt, why: "images of other platforms cannot run", fix: "mount binfmt_misc and install qemu-user-static"},
	})
}

// clone3 asks for a child with a structure of no size: EINVAL where there is
// such a call, and no child.
func clone3() error {
	_, _, errno := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0)
	return there(errno)
}

func pidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, 0, nil, 0)
}

func openat2() error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// closeRange closes descriptors above all that there can be.
func closeRange() error { return unix.CloseRange(1<<31, 1<<31, 0) }

func newMounts() error {
	fs, err := mnt.NewFS("tmpfs").Mount(0)
	if err != nil {
		return err
	}
	fs.Close()
	tree, err := mnt.ClonePath(nil, "/", false)
	if err == nil {
		tree.Close()
	}
	return err
}

func mountSetattr() error {
	fs, err := mnt.NewFS("tmpfs").Mount(0)
	if err != nil {
		return err
	}
	defer fs.Close()
	return mnt.SetAttr(fs, mnt.Attr{Set: mnt.ReadOnly}, false)
}

// moveMount attaches a file system in a mount namespace of a thread that ends
// with it.
func moveMount() error {
	return thread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		fs, err := mnt.NewFS("tmpfs").Mount(0)
		if err != nil {
			return err
		}
		defer fs.Close()
		return mnt.AttachPath(fs, "/proc")
	})
}

// thread does something on a thread that nothing else will ever run on. The
// process's first thread is not taken: it cannot end, and /proc/self is its.
func thread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			err := thread(do) // on another, as this one is taken
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

func openTreeAttr() error {
	const openTreeAttr = 467 // on every architecture that Go runs on (v6.15)
	_, _, errno := unix.Syscall6(openTreeAttr, ^uintptr(0), 0, ^uintptr(0), 0, 0, 0)
	return there(errno)
}

func procPidns() error {
	ns, err := os.Open("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	defer ns.Close()
	fs, err := mnt.NewFS("proc").FD("pidns", ns).Mount(0)
	if err == nil {
		fs.Close()
	}
	return err
}

// seccompFilter gives a thread of its own a filter that allows everything.
func seccompFilter() error {
	return thread(func() error {
		allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		program := unix.SockFprog{Len: 1, Filter: &allow}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
		runtime.KeepAlive(&program)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

func seccompActions() error {
	var missing []string
	for _, a := range []struct {
		name   string
		action uint32
	}{
		{"KILL_PROCESS", unix.SECCOMP_RET_KILL_PROCESS}, {"KILL_THREAD", unix.SECCOMP_RET_KILL_THREAD}, {"TRAP", unix.SECCOMP_RET_TRAP},
		{"ERRNO", unix.SECCOMP_RET_ERRNO}, {"NOTIFY", unix.SECCOMP_RET_USER_NOTIF}, {"TRACE", unix.SECCOMP_RET_TRACE},
		{"LOG", unix.SECCOMP_RET_LOG}, {"ALLOW", unix.SECCOMP_RET_ALLOW},
	} {
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&a.action))); errno != 0 {
			missing = append(missing, a.name)
		}
	}
	if missing == nil {
		return nil
	}
	return errors.New("not available: " + strings.Join(missing, ", "))
}

// overlay begins to configure one: the kernel loads the module for it.
func overlay() error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func binfmt() error {
	status, err := os.ReadFile("/proc/sys/fs/binfmt_misc/status")
	if err != nil {
		return errors.New("/proc/sys/fs/binfmt_misc is not mounted")
	}
	if strings.TrimSpace(string(status)) != "enabled" {
		return errors.New("it is " + strings.TrimSpace(string(status)))
	}
	return nil
}

// namespaces tries whether user namespaces can be made, and looks for what an
// administrator or a distribution has switched off.
func namespaces(o Options) []record.Check {
	c := record.Check{Group: Namespaces, Name: "user namespaces with a range of ids", State: record.CheckOK}
	if os.Geteuid() == 0 {
		c = trial{name: c.Name, worst: record.CheckFail, do: ranged, why: "no container can have ids of its own"}.run(Namespaces)
	} else {
		c = trial{name: "user namespaces of ordinary users", worst: record.CheckFail, do: ordinary, why: "nothing can be isolated without root"}.run(Namespaces)
	}
	out := []record.Check{c, known()}
	out = append(out, switches(o, c.State != record.CheckOK)...)
	return append(out, limitsOfNamespaces(o)...)
}

func ranged() error { return mapped(func(*os.File) error { return nil }) }

// mapped does something with a user namespace whose maps are the last ids that
// this process knows: a range of a container, or what there is.
func mapped(do func(ns *os.File) error) error {
	own, err := proc.IDMaps(os.Getpid())
	if err != nil {
		return err
	}
	uid, err := lastIDs(own.UID)
	if err != nil {
		return err
	}
	gid, err := lastIDs(own.GID)
	if err != nil {
		return err
	}
	ns, err := userns.New(idmap.Pair{UID: uid, GID: gid})
	if err != nil {
		return err
	}
	defer ns.Close()
	return do(ns)
}

// lastIDs maps a range to the last ids of m, in which this process itself lives:
// what it knows as ids are those inside. No process of a usual host has ids
// below 2^31 that are that high.
func lastIDs(m idmap.Map) (idmap.Map, error) {
	spans := m.Spans()
	if len(spans) == 0 {
		return idmap.Map{}, errors.New("this process knows no ids")
	}
	last := spans[len(spans)-1]
	end := min(uint64(last.In)+uint64(last.N), signed)
	n := min(end-uint64(last.In), rangeIDs)
	return idmap.New(idmap.Span{In: 0, Out: idmap.Host(end - n), N: uint32(n)})
}

// known says how many ids there are to give to containers: outside of user
// namespaces all of them.
func known() record.Check {
	c := record.Check{Group: Namespaces, Name: "ids that can be given to containers", State: record.CheckOK, Found: "all"}
	own, err := proc.IDMaps(os.Getpid())
	if err != nil {
		c.State, c.Found, c.Fix = record.CheckFail, err.Error(), "mount /proc"
		return c
	}
	n := min(count(own.UID), count(own.GID))
	if n >= idmap.Max {
		return c
	}
	c.State, c.Found = record.CheckInfo, fmt.Sprintf("%d: this is a user namespace", n)
	if n <= rangeIDs { // one is the daemon's own
		c.State, c.Why = record.CheckFail, "no container can have 65536 ids of its own"
		c.Fix = "run it outside of user namespaces, or in one with more ids: newuidmap, or podman --uidmap and --gidmap"
	}
	return c
}

func count(m idmap.Map) (n uint64) {
	for _, s := range m.Spans() {
		n += uint64(s.N)
	}
	return n
}

// ordinary starts this program in a namespace with one id, which needs no
// privilege.
func ordinary() error {
	return start(&syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
}

// start starts this program to print its version, in these namespaces and
// groups, and waits for its end. How it ends does not matter.
func start(attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe", "--version")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = cmd.Wait()
	return nil
}

// switches are the reasons for which user namespaces may be refused. The file
// of each exists only where kernel or distribution has the switch.
func switches(o Options, refused bool) (out []record.Check) {
	state := record.CheckInfo
	if refused {
		state = record.CheckFail
	}
	for _, s := range []struct{ key, bad, why string }{
		{"kernel.unprivileged_userns_clone", "0", "ordinary users may not make user namespaces"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "AppArmor takes the capabilities away from user namespaces of ordinary users"},
		{"user.max_user_namespaces", "0", "nobody may make user namespaces"},
	} {
		value, err := sysctl(o, s.key)
		if err != nil || value != s.bad {
			continue
		}
		out = append(out, record.Check{
			Group: Namespaces, Name: s.key, State: state, Found: value, Why: s.why,
			Fix: fmt.Sprintf("sysctl -w %s=%s", s.key, map[string]string{"0": "1", "1": "0"}[s.bad]),
		})
	}
	return out
}

// cgroups looks for the hierarchy and starts a process in a group of it.
func cgroups() []record.Check {
	c := record.Check{Group: Cgroups, Name: "cgroup v2", State: record.CheckOK}
	tree, err := cgroup.Open(fmt.Sprintf("fief-check-%d", os.Getpid()))
	if err != nil {
		c.State, c.Found = record.CheckFail, err.Error()
		return []record.Check{c}
	}
	defer tree.Close()
	switch tree.Mode() {
	case cgroup.None:
		c.State, c.Found, c.Why = record.CheckWarn, tree.Why(), "containers run in the daemon's cgroup, without limits of their own"
		c.Fix = "mount cgroup2 at /sys/fs/cgroup, or run the daemon as root"
		return []record.Check{c}
	case cgroup.Hybrid:
		c.State, c.Found, c.Why = record.CheckWarn, "hybrid", "the controllers of memory, cpu and pids are in cgroup v1: a start with such limits waits some milliseconds for the kernel"
		c.Fix = "boot with systemd.unified_cgroup_hierarchy=1"
	default:
		c.Found = "unified"
	}
	into := trial{
		name: "processes born in their cgroup (CLONE_INTO_CGROUP)", worst: record.CheckFail, root: true, do: func() error { return intoGroup(tree) },
		why: "containers cannot be started", fix: newKernel,
	}
	return []record.Check{c, into.run(Cgroups)}
}

func intoGroup(tree *cgroup.Tree) (err error) {
	const name = "trial"
	dir, err := tree.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		dir.Close()
		err = errors.Join(err, tree.Remove(name), tree.Drop())
	}()
	err = start(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())})
	return fault.Wrap(fault.Unsupported, "start a process in", "a cgroup", err, "")
}
