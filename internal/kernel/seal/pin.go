package seal

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/space"
	"fief/internal/kernel/sysx"
)

// Pin is Open of the file that path names now: what is started is that one until
// Close, also when another has got its name, or nobody has. A package manager
// replaces programs some time before it restarts who uses them.
//
// The view is a directory of its own with the file bound into it: executed by a
// descriptor of the file alone, a process would have that descriptor's number for
// its name (comm, proc(5)) and / for its program.
func Pin(path string) (*Program, error) {
	file, err := mnt.ClonePath(nil, path, false)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var tree *os.File
	err = space.OnSpareThread(func() error {
		tree, err = bound(file, filepath.Base(path))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	return view(tree, path)
}

// bound makes a detached tree of a directory with file, a detached mount, in it
// as name.
// Until Linux 6.15 mounts can be attached only to what is in the thread's mount
// namespace (move_mount(2)): it gets one of its own, which nobody sees and which
// ends with it.
func bound(file *os.File, name string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, sysx.Fault("make a mount namespace for", name, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil { // else it would be seen
		return nil, sysx.Fault("make private", "/", err)
	}
	dir, err := mnt.NewFS("tmpfs").Set("size", "4k").Set("mode", "755").Mount(mnt.NoSuid | mnt.NoDev)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := mnt.AttachPath(dir, "/"); err != nil {
		return nil, err
	}
	n, err := unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return nil, sysx.Fault("make", name, err)
	}
	target := fd.Wrap(n, name)
	defer target.Close()
	if err := mnt.Attach(file, target); err != nil {
		return nil, err
	}
	return mnt.Clone(dir, true)
}
