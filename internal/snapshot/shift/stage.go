package shift

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Stage mounts overlays whose layers are given by path, for kernels before
// 6.15. The paths lie in a mount namespace of its own: one locked thread whose
// root is an empty tmpfs, on which trees are attached. Nothing of the host is
// kept busy by it, and nothing on it can be seen from the host.
//
// v5.19: overlayfs takes idmapped layers. Before 6.13 layers are known only
// by path, and the options of mount(2) are one page, hence the links with
// one- to three-digit names to the layers.
type Stage struct {
	calls chan func()
	quit  chan struct{}
	root  *os.File // the tmpfs; the thread's working directory between calls
	trees int      // trees planted so far; used on the thread only
	made  int      // overlays mounted so far; used on the thread only
}

const mountPoint = "mnt"

// NewStage starts the thread. anchor is the path of any directory; the stage
// is mounted over it in the thread's namespace only.
func NewStage(anchor string) (*Stage, error) {
	s := &Stage{calls: make(chan func()), quit: make(chan struct{})}
	ready := make(chan error)
	go s.begin(anchor, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return s, nil
}

// begin serves on a thread that is not the process's first: /proc/self shows
// that one's root, mounts and namespaces as the whole process's.
func (s *Stage) begin(anchor string, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		s.serve(anchor, ready)
		return
	}
	defer runtime.UnlockOSThread()
	other := make(chan struct{})
	go func() { // on another thread, as this one is held until it has begun
		runtime.LockOSThread()
		close(other)
		s.serve(anchor, ready)
	}()
	<-other
}

// serve never unlocks its thread: it ends with the goroutine, and so does the
// namespace.
func (s *Stage) serve(anchor string, ready chan<- error) {
	root, err := enter(anchor)
	s.root = root
	ready <- err
	if err != nil {
		return
	}
	defer root.Close()
	for {
		select {
		case call := <-s.calls:
			call()
		case <-s.quit:
			return
		}
	}
}

// enter gives the calling thread a mount namespace with nothing but a tmpfs,
// which becomes its working directory.
func enter(anchor string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, sysx.Fault("make mount namespace for", "the storage thread", err)
	}
	// Without this the tmpfs would appear on the host where / is shared.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, sysx.Fault("make private the mounts of", "the storage thread", err)
	}
	tmp, err := mnt.NewFS("tmpfs").Set("mode", "700").Mount(mnt.NoSuid | mnt.NoDev | mnt.NoExec)
	if err != nil {
		return nil, err
	}
	if err := settle(tmp, anchor); err != nil {
		tmp.Close()
		return nil, err
	}
	return tmp, nil
}

func settle(tmp *os.File, anchor string) error {
	if err := mnt.AttachPath(tmp, anchor); err != nil {
		return err
	}
	if err := unix.Fchdir(int(tmp.Fd())); err != nil {
		return sysx.Fault("enter", tmp.Name(), err)
	}
	if err := leaveHost(); err != nil {
		return err
	}
	return sysx.Fault("make directory", mountPoint, unix.Mkdir(mountPoint, 0o700))
}

// leaveHost makes the working directory the root and lets go of all other
// mounts. EINVAL means that the root is the initial ramfs, which cannot be
// pivoted away from (pivot_root(2)): the stage works over it as well.
func leaveHost() error {
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return sysx.Fault("change root of", "the storage thread", err)
	}
	return sysx.Fault("detach old root of", "the storage thread", unix.Unmount(".", unix.MNT_DETACH))
}

// do runs call on the thread.
func (s *Stage) do(call func() error) error {
	done := make(chan error, 1)
	select {
	case s.calls <- func() { done <- call() }:
		return <-done
	case <-s.quit:
		return fault.New(fault.Internal, "mount", "overlay", "the storage thread has ended", "")
	}
}

// Close ends the thread, and with it what is attached on the stage.
func (s *Stage) Close() { close(s.quit) }

// Plant attaches root. A directory that is on an attached mount is cloned
// first, in the mount namespace it belongs to: moving it is refused with EINVAL
// (move_mount(2)), and so is cloning it on the stage's thread (open_tree(2)).
func (s *Stage) Plant(root *os.File) (*Tree, error) {
	t := &Tree{Root: root}
	err := s.attach(t, root)
	if errors.Is(err, unix.EINVAL) {
		err = s.attachClone(t, root)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	t.stop = func() { s.do(func() error { return uproot(t.name) }) }
	return t, nil
}

func (s *Stage) attachClone(t *Tree, root *os.File) error {
	clone, err := mnt.Clone(root, false)
	if err != nil {
		return err
	}
	defer clone.Close()
	return s.attach(t, clone)
}

func (s *Stage) attach(t *Tree, mount *os.File) error {
	return s.do(func() error {
		s.trees++
		t.name = "t" + strconv.Itoa(s.trees)
		if err := unix.Mkdir(t.name, 0o700); err != nil {
			return sysx.Fault("make directory", t.name, err)
		}
		if err := mnt.AttachPath(mount, t.name); err != nil {
			unix.Rmdir(t.name)
			return err
		}
		return nil
	})
}

func uproot(name string) error {
	if err := mnt.Detach(name); err != nil {
		return err
	}
	return sysx.Fault("remove directory", name, unix.Rmdir(name))
}

// Mount mounts on the stage, takes a detached clone, and clears up.
func (s *Stage) Mount(o Overlay) (*os.File, error) {
	if len(o.Data) > 0 {
		return nil, fault.New(fault.Unsupported, "mount", "overlay", "a data layer is given by descriptor only", "")
	}
	var root *os.File
	err := s.do(func() error {
		s.made++
		dir := "o" + strconv.Itoa(s.made)
		if err := unix.Mkdir(dir, 0o700); err != nil {
			return sysx.Fault("make directory", dir, err)
		}
		defer s.sweep(dir, len(o.Lowers))
		data, err := links(dir, o)
		if err != nil {
			return err
		}
		root, err = overlayAt(data)
		return err
	})
	return root, err
}

// links makes dir/0, dir/1 … links to the layers, and returns the options
// that name them relative to dir. dir becomes the working directory.
func links(dir string, o Overlay) (string, error) {
	if err := unix.Chdir(dir); err != nil {
		return "", sysx.Fault("enter", dir, err)
	}
	var opts strings.Builder
	opts.WriteString("lowerdir=")
	for i, lower := range o.Lowers {
		name := strconv.Itoa(i)
		if err := unix.Symlink("../"+lower.path(), name); err != nil {
			return "", sysx.Fault("link to layer", lower.path(), err)
		}
		if i > 0 {
			opts.WriteByte(':')
		}
		opts.WriteString(name)
	}
	if o.writable() {
		up := "../" + o.Upper.path()
		opts.WriteString(",upperdir=" + up + "/fs,workdir=" + up + "/work")
	}
	for _, kv := range options {
		opts.WriteString("," + kv[0] + "=" + kv[1])
	}
	if o.Volatile && o.writable() {
		opts.WriteString(",volatile")
	}
	return opts.String(), nil
}

// path names d on the stage.
func (d Dir) path() string { return d.Tree.name + "/" + d.Name }

func overlayAt(data string) (*os.File, error) {
	const target = "../" + mountPoint
	if err := unix.Mount("overlay", target, "overlay", unix.MS_NODEV, data); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
			return nil, fault.Wrap(fault.Unsupported, "mount", "overlay", err, "the kernel's log says more")
		}
		return nil, sysx.Fault("mount", "overlay", err)
	}
	n, err := unix.OpenTree(unix.AT_FDCWD, target, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		err = sysx.Fault("clone", "overlay", err)
	}
	if e := mnt.Detach(target); e != nil && err == nil {
		unix.Close(n)
		err = e
	}
	if err != nil {
		return nil, err
	}
	return fd.Wrap(n, "overlay"), nil
}

// sweep removes the links again; what fails to go is a few bytes of tmpfs.
func (s *Stage) sweep(dir string, links int) {
	unix.Fchdir(int(s.root.Fd()))
	for i := range links {
		unix.Unlink(dir + "/" + strconv.Itoa(i))
	}
	unix.Rmdir(dir)
}
