package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/space"
	"fief/internal/kernel/userns"
	"fief/internal/words/idmap"
)

// System calls younger than the table of x/sys/unix; the numbers are the same
// on all architectures.
const (
	sysStatmount    = 457
	sysOpenTreeAttr = 467
)

var abilities = []ability{
	{"clone3 into a cgroup", "5.7", "a container is born in its cgroup", inCgroup(bornThere)},
	{"cgroup.kill", "5.14", "what is left in a cgroup is killed at once", inCgroup(killAll)},
	{"pidfd_send_signal", "5.1", "signals never meet another process", pidfdSignal},
	{"close_range", "5.9", "no descriptor reaches a container", func(string) error { return unix.CloseRange(1<<20, 1<<20+1, 0) }},
	{"openat2, RESOLVE_IN_ROOT", "5.6", "paths of containers stay inside them", inRoot},
	{"TIOCGPTPEER", "4.13", "terminals are opened without a path", ptPeer},
	{"move_mount onto a descriptor", "5.2", "mounts are attached without a path", ontoDescriptor},
	{"mount_setattr, recursive read-only", "5.12", "`ro` binds cover what is mounted below", recursiveReadOnly},
	{"idmapped mount: ext4", "5.12", "layers, uppers, binds", idmapped},
	{"idmapped mount: tmpfs", "6.3", "a data root on tmpfs", onTmpfs(idmapped)},
	{"overlay: layers by descriptor", "6.13", "no attached mount is needed", overlayByFD},
	{"overlay: `lowerdir+`", "6.7", "not used without descriptors", overlayAppend},
	{"overlay: layers on detached mounts", "6.15", "`way: idmapped`; without it `attached`", overlayDetached},
	{"overlay: `volatile`", "5.10", "`--rm` containers are never synced", overlayVolatile},
	{"open_tree_attr", "6.15", "not used", openTreeAttr},
	{"statmount", "6.8", "not used", statmount},
	{"proc: option `pidns`", "6.18", "proc of a joined pid namespace; without it by a forked child", donor(toldPID)},
	{"proc of a namespace, attached in others", "5.2", "joined pid namespaces", donor(handed("pid", func(f *os.File) (*os.File, error) { return space.Proc(f, "hidepid=invisible") }))},
	{"sysfs of a namespace, attached in others", "5.2", "joined network namespaces", donor(handed("net", space.Sysfs))},
	{"mqueue of a namespace, attached in others", "5.2", "joined ipc namespaces", donor(handed("ipc", space.Mqueue))},
	{"a mount cloned in a mount namespace, attached in others", "5.2", "a joined /dev/shm", donor(handed("mnt", sharedShm))},
	{"the same, of a mount made there", "5.2", "a joined /dev/shm", donor(ownedBelow)},
	{"PR_SET_VMA_ANON_NAME", "5.17", "not used", vmaName},
}

// inCgroup tries something with a cgroup of its own.
func inCgroup(try func(t *cgroup.Tree, name string, dir *os.File) error) func(string) error {
	return func(string) error {
		t, err := cgroup.Open("abilities")
		if err != nil {
			return err
		}
		defer t.Close()
		defer t.Drop()
		dir, err := t.Create("one")
		if err != nil {
			return err
		}
		defer t.Remove("one")
		defer dir.Close()
		return try(t, "one", dir)
	}
}

func bornThere(_ *cgroup.Tree, _ string, dir *os.File) error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd.Run()
}

func killAll(t *cgroup.Tree, name string, _ *os.File) error { return t.Kill(name) }

func pidfdSignal(string) error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.PidfdSendSignal(fd, 0, nil, 0)
}

func inRoot(dir string) error {
	root, err := unix.Open(dir, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, "/../..", &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func ptPeer(string) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(master)
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// clone returns a detached clone of what is mounted at dir.
func clone(dir string, flags uint) (int, error) {
	return unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
}

func ontoDescriptor(dir string) error {
	tree, err := clone(dir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	on, err := unix.Open(dir, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(on)
	if err := unix.MoveMount(tree, "", on, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

func recursiveReadOnly(string) error {
	tree, err := clone("/dev", unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

func idmapped(dir string) error {
	tree, err := idmappedTree(dir)
	if err == nil {
		unix.Close(tree)
	}
	return err
}

// idmappedTree returns a detached idmapped clone of dir.
func idmappedTree(dir string) (int, error) {
	pair, err := idmap.Range(1<<30, 1<<16)
	if err != nil {
		return -1, err
	}
	ns, err := userns.New(pair)
	if err != nil {
		return -1, err
	}
	defer ns.Close()
	tree, err := clone(dir, 0)
	if err != nil {
		return -1, err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

func onTmpfs(try func(string) error) func(string) error {
	return func(dir string) error {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return err
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		return try(dir)
	}
}

// layers makes two empty layers and returns their names.
func layers(dir string) ([]string, error) {
	names := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for _, name := range names {
		if err := os.Mkdir(name, 0o755); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// overlay mounts, detached, what configure asks for.
func overlay(configure func(ctx int) error) error {
	ctx, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(ctx)
	if err := configure(ctx); err != nil {
		return err
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return err
	}
	fd, err := unix.Fsmount(ctx, 0, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func overlayByFD(dir string) error {
	names, err := layers(dir)
	if err != nil {
		return err
	}
	return overlay(func(ctx int) error {
		for _, name := range names {
			fd, err := unix.Open(name, unix.O_PATH, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.FsconfigSetFd(ctx, "lowerdir+", fd); err != nil {
				return err
			}
		}
		return nil
	})
}

func overlayAppend(dir string) error {
	names, err := layers(dir)
	if err != nil {
		return err
	}
	return overlay(func(ctx int) error {
		for _, name := range names {
			if err := unix.FsconfigSetString(ctx, "lowerdir+", name); err != nil {
				return err
			}
		}
		return nil
	})
}

func overlayDetached(dir string) error {
	names, err := layers(dir)
	if err != nil {
		return err
	}
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	return overlay(func(ctx int) error {
		for _, name := range names {
			fd, err := clone(name, 0)
			if err != nil {
				return err
			}
			open = append(open, fd)
			if err := unix.FsconfigSetFd(ctx, "lowerdir+", fd); err != nil {
				return err
			}
		}
		return nil
	})
}

func overlayVolatile(dir string) error {
	for _, sub := range []string{"lower", "upper", "work", "on"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	on := filepath.Join(dir, "on")
	data := strings.ReplaceAll("volatile,lowerdir=D/lower,upperdir=D/upper,workdir=D/work", "D", dir)
	if err := unix.Mount("overlay", on, "overlay", 0, data); err != nil {
		return err
	}
	return unix.Unmount(on, unix.MNT_DETACH)
}

func openTreeAttr(dir string) error {
	at, attr := unix.AT_FDCWD, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	path, err := unix.BytePtrFromString(dir)
	if err != nil {
		return err
	}
	fd, _, errno := unix.Syscall6(sysOpenTreeAttr, uintptr(at), uintptr(unsafe.Pointer(path)),
		unix.OPEN_TREE_CLONE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// statmount asks with an impossible size: EINVAL says that the call is there.
func statmount(string) error {
	_, _, errno := unix.Syscall6(sysStatmount, 0, 0, 0, 0, 0, 0)
	if errno == unix.ENOSYS {
		return errno
	}
	return nil
}

func vmaName(string) error {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	name, err := unix.BytePtrFromString("fief")
	if err != nil {
		return err
	}
	err = unix.Prctl(unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(name)))
	if err != nil {
		return fmt.Errorf("name memory: %w", err)
	}
	return nil
}
