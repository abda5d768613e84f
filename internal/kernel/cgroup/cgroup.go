// Package cgroup makes and removes the control groups of containers, and puts
// limits into them: one directory each, below one of fief's own, in the cgroup
// v2 hierarchy. It touches nothing else in that file system. A process is born
// in its group by CLONE_INTO_CGROUP, since a write to cgroup.procs waits for an
// RCU grace period (5 ms and more) and a clone does not.
//
// Where controllers are still in v1 hierarchies, a container has a group of the
// same name in those that its limits need and in no others, as they can only be
// entered by such a write.
package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Mode says which cgroup v2 hierarchy there is.
type Mode uint8

// The modes. Hybrid hosts have v2 beside the v1 controllers, in
// /sys/fs/cgroup/unified; None have none that can be written, and their
// containers run in the cgroup of who starts them.
const (
	None Mode = iota
	Hybrid
	Unified
)

// String is the mode as `fief info` shows it: the version Docker reports.
func (m Mode) String() string {
	switch m {
	case Hybrid:
		return "1"
	case Unified:
		return "2"
	}
	return "none"
}

// defaultParent is the directory the daemon makes its containers' groups in.
const defaultParent = "fief"

// Tree is the directory of one daemon or test. Its methods may be called at
// the same time; they fail with Unsupported in mode None.
type Tree struct {
	mode   Mode
	why    string
	mount  *os.File // root of the hierarchy, O_PATH
	parent string
	v1     []hierarchy

	mu      sync.Mutex
	enabled map[string]bool // guarded by mu: "directory controller" whose children have it
}

// Detect finds the hierarchy of this host. Nothing is made in it yet.
func Detect() (*Tree, error) { return Open(defaultParent) }

// Open is Detect with another name for the directory that holds the groups,
// relative to the root of the hierarchy. The caller closes the tree.
func Open(parent string) (*Tree, error) { return open("/sys/fs/cgroup", parent) }

func open(root, parent string) (*Tree, error) {
	for _, name := range strings.Split(parent, "/") {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	t := &Tree{parent: parent, enabled: map[string]bool{}, why: "no cgroup v2 hierarchy is mounted at " + root + " or " + root + "/unified"}
	for _, try := range []struct {
		dir  string
		mode Mode
	}{{root, Unified}, {root + "/unified", Hybrid}} {
		var fs unix.Statfs_t
		if err := unix.Statfs(try.dir, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		if err := unix.Access(try.dir, unix.W_OK); err != nil {
			t.why = try.dir + " cannot be written: " + err.Error()
			continue
		}
		mount, err := os.OpenFile(try.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "open", try.dir, err, "")
		}
		t.mode, t.mount, t.why = try.mode, mount, ""
		if try.mode == Hybrid {
			t.v1, err = hierarchies("/proc/self/mountinfo")
		}
		return t, err
	}
	return t, nil
}

// Close releases the tree; the groups stay.
func (t *Tree) Close() error {
	for _, h := range t.v1 {
		h.mount.Close()
	}
	if t.mount == nil {
		return nil
	}
	return t.mount.Close()
}

// Mode is the kind of hierarchy that was found.
func (t *Tree) Mode() Mode { return t.mode }

// Why says why there is no hierarchy; empty when there is.
func (t *Tree) Why() string { return t.why }

// Path is a group's path from the root of the hierarchy, as the OCI field
// cgroupsPath has it; empty in mode None.
func (t *Tree) Path(name string) string {
	if t.mode == None {
		return ""
	}
	return "/" + t.dir(name)
}

// Create makes the group name and returns an O_PATH descriptor of it, for
// CLONE_INTO_CGROUP, which the caller closes. A group of that name is an
// Exists fault and left alone.
//
// A name is that of one directory below the tree's own or, when it begins with a
// slash, a path from the root of the hierarchy, whose missing directories are
// made and stay.
func (t *Tree) Create(name string) (*os.File, error) {
	if err := t.usable(name); err != nil {
		return nil, err
	}
	dir := t.dir(name)
	for {
		made, err := makeParents(t.fd(), dir)
		if err != nil {
			return nil, err
		}
		if made { // anew: another daemon has removed it when it was empty
			t.Forget()
		}
		if t.mode == Unified {
			t.enable(path.Dir(dir), "memory", "cpu", "io", "pids") // what statistics are read from
		}
		err = unix.Mkdirat(t.fd(), dir, 0o755)
		if err == nil {
			break
		}
		if err != unix.ENOENT {
			return nil, t.failed("make cgroup", dir, err)
		}
	}
	f, err := t.Open(name)
	if err != nil {
		return nil, errors.Join(err, t.Remove(name))
	}
	return f, nil
}

// Open returns an O_PATH descriptor of a group that exists, for
// CLONE_INTO_CGROUP, which the caller closes.
func (t *Tree) Open(name string) (*os.File, error) {
	if err := t.usable(name); err != nil {
		return nil, err
	}
	dir := t.dir(name)
	fd, err := unix.Openat(t.fd(), dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, t.failed("open cgroup", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Has reports whether there is a group of that name.
func (t *Tree) Has(name string) bool {
	return t.usable(name) == nil && unix.Faccessat(t.fd(), t.dir(name), unix.F_OK, 0) == nil
}

// Gather moves the processes that are in the group name itself into child, a group
// in it that is made when it is not there, so that others can be made beside it.
func (t *Tree) Gather(name, child string) error {
	if err := errors.Join(t.usable(name), checkName(child)); err != nil {
		return err
	}
	to := t.dir(name) + "/" + child
	if err := unix.Mkdirat(t.fd(), to, 0o755); err != nil && err != unix.EEXIST {
		return t.failed("make cgroup", to, err)
	}
	procs, err := read(t.fd(), t.dir(name)+"/cgroup.procs")
	if err != nil {
		return t.failed("read the processes of cgroup", t.dir(name), err)
	}
	for _, pid := range strings.Fields(procs) {
		if err := write(t.fd(), to+"/cgroup.procs", pid); err != nil && err != unix.ESRCH {
			return t.failed("move a process into cgroup", to, err)
		}
	}
	return nil
}

// Forget has the tree look again which controllers groups give to those in them,
// after another has made groups above its own.
func (t *Tree) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.enabled)
}

// makeParents makes the directories above dir that are missing; made tells that
// there were any.
func makeParents(root int, dir string) (made bool, err error) {
	var missing []string
	for at := path.Dir(dir); at != "."; at = path.Dir(at) {
		err := unix.Mkdirat(root, at, 0o755)
		if err == nil {
			made = true
			break
		}
		if err == unix.EEXIST {
			break
		}
		if err != unix.ENOENT {
			return made, (*Tree)(nil).failed("make cgroup", at, err)
		}
		missing = append(missing, at)
	}
	for _, at := range slices.Backward(missing) {
		if err := unix.Mkdirat(root, at, 0o755); err != nil && err != unix.EEXIST {
			return made, (*Tree)(nil).failed("make cgroup", at, err)
		}
		made = true
	}
	return made, nil
}

// List names the groups below the tree's directory, sorted. Other daemons that
// use the same directory have theirs in it, too.
func (t *Tree) List() ([]string, error) {
	if t.mode == None {
		return nil, nil
	}
	names, err := children(t.fd(), t.parent)
	if err == unix.ENOENT {
		return nil, nil
	}
	slices.Sort(names)
	return names, t.failed("list cgroups in", t.parent, err)
}

// Drop removes the tree's directory itself if it is empty: for tests, and for
// a daemon that is being uninstalled.
func (t *Tree) Drop() error {
	if t.mode == None {
		return nil
	}
	for _, root := range t.roots() {
		if err := unix.Unlinkat(root, t.parent, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
			return t.failed("remove cgroup", t.parent, err)
		}
	}
	return nil
}

// children are the names of the directories in dir, or a plain errno.
func children(root int, dir string) ([]string, error) {
	fd, err := unix.Openat(root, dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return nil, errno
	}
	return names, err
}

// dir is where a group is, from the root of each hierarchy.
func (t *Tree) dir(name string) string {
	if rooted, ok := strings.CutPrefix(name, "/"); ok {
		return rooted
	}
	return t.parent + "/" + name
}

func (t *Tree) fd() int { return int(t.mount.Fd()) }

func (t *Tree) usable(name string) error {
	if t.mode == None {
		return fault.New(fault.Unsupported, "use cgroup", name, t.why, "mount cgroup2 at /sys/fs/cgroup")
	}
	rooted, ok := strings.CutPrefix(name, "/")
	if !ok {
		return checkName(name)
	}
	for part := range strings.SplitSeq(rooted, "/") {
		if err := checkName(part); err != nil {
			return err
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > unix.NAME_MAX || strings.ContainsAny(name, "/\x00\n") {
		return fault.New(fault.Invalid, "use cgroup name", name, "it is not one file name", "")
	}
	return nil
}

// failed gives an errno its class; nil stays nil.
func (*Tree) failed(op, dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fault.Wrap(fault.NotFound, op, dir, err, "")
	case errors.Is(err, unix.EEXIST):
		return fault.Wrap(fault.Exists, op, dir, err, "")
	case errors.Is(err, unix.EBUSY):
		return fault.Wrap(fault.Busy, op, dir, err, "a process is left in it")
	case errors.Is(err, unix.EAGAIN):
		return fault.Wrap(fault.Exhausted, op, dir, err, "raise cgroup.max.descendants or cgroup.max.depth of the groups above")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		return fault.Wrap(fault.Denied, op, dir, err, "")
	}
	return fault.Wrap(fault.Internal, op, dir, err, "")
}
