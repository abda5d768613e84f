package cgroup

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// hierarchy is one v1 hierarchy: a tree of groups of its own.
type hierarchy struct {
	controllers []string
	mount       *os.File // its root, O_PATH
}

// hierarchies finds the v1 hierarchies in a mountinfo file (proc(5)). Those that
// have no controller (name=systemd) or cannot be written are left out, and so are
// mounts that show a part of one.
func hierarchies(file string) ([]hierarchy, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open", file, err, "")
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "read", file, err, "")
	}
	var out []hierarchy
	for _, m := range mounts {
		var h hierarchy
		for o := range strings.SplitSeq(m.VFSOptions, ",") {
			if slices.Contains(knownV1, o) {
				h.controllers = append(h.controllers, o)
			}
		}
		again := slices.ContainsFunc(out, func(o hierarchy) bool { return slices.Equal(o.controllers, h.controllers) })
		if len(h.controllers) == 0 || m.Root != "/" || again || unix.Access(m.Mountpoint, unix.W_OK) != nil {
			continue
		}
		if h.mount, err = os.OpenFile(m.Mountpoint, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return nil, fault.Wrap(fault.Internal, "open", m.Mountpoint, err, "")
		}
		out = append(out, h)
	}
	return out, nil
}

// knownV1 are the controllers of v1 as mount options (cgroups(7)).
var knownV1 = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "net_cls", "net_prio", "blkio", "perf_event", "hugetlb", "pids", "rdma", "misc"}

func (h hierarchy) fd() int { return int(h.mount.Fd()) }

// in finds the v1 hierarchy of a controller.
func (t *Tree) in(controller string) (hierarchy, bool) {
	i := slices.IndexFunc(t.v1, func(h hierarchy) bool { return slices.Contains(h.controllers, controller) })
	if i < 0 {
		return hierarchy{}, false
	}
	return t.v1[i], true
}

// roots are the descriptors of all hierarchies' roots.
func (t *Tree) roots() []int {
	out := []int{t.fd()}
	for _, h := range t.v1 {
		out = append(out, h.fd())
	}
	return out
}

// makeV1 makes a group in a v1 hierarchy; made is false when it was there.
func (t *Tree) makeV1(h hierarchy, dir string) (made bool, err error) {
	if _, err := makeParents(h.fd(), dir); err != nil {
		return false, err
	}
	err = unix.Mkdirat(h.fd(), dir, 0o755)
	if err != nil && err != unix.EEXIST {
		return false, t.failed("make cgroup", dir, err)
	}
	made = err == nil
	if !slices.Contains(h.controllers, "cpuset") {
		return made, nil
	}
	return made, t.inheritCPUs(h, dir)
}

// inheritCPUs gives a cpuset group, and those above it, the processors and memory
// nodes of the one above as far as they have none: no process can enter a group
// that has none (cpuset(7)).
func (t *Tree) inheritCPUs(h hierarchy, dir string) error {
	if above := path.Dir(dir); above != "." {
		if err := t.inheritCPUs(h, above); err != nil {
			return err
		}
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := read(h.fd(), dir+"/"+file)
		if err != nil {
			return t.failed("read", dir+"/"+file, err)
		}
		if own != "" {
			continue
		}
		above, err := read(h.fd(), path.Join(path.Dir(dir), file))
		if err == nil {
			err = write(h.fd(), dir+"/"+file, above)
		}
		if err != nil {
			return t.failed("set", dir+"/"+file, err)
		}
	}
	return nil
}

// removeV1 removes a group from every v1 hierarchy that has it.
func (t *Tree) removeV1(dir string, until time.Time) error {
	for _, h := range t.v1 {
		if err := t.removeIn(h, dir, until); err != nil {
			return err
		}
	}
	return nil
}

// removeIn removes a group of a v1 hierarchy and those below it. Nothing tells
// when the last process has left it, so it is tried again until then.
func (t *Tree) removeIn(h hierarchy, dir string, until time.Time) error {
	for {
		err := unix.Unlinkat(h.fd(), dir, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || time.Now().After(until) {
			return t.failed("remove cgroup", dir, err)
		}
		below, err := children(h.fd(), dir)
		if err != nil && err != unix.ENOENT {
			return t.failed("list cgroups in", dir, err)
		}
		for _, child := range below {
			if err := t.removeIn(h, dir+"/"+child, until); err != nil {
				return err
			}
		}
		if len(below) == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// Joins opens, for writing, the files by which a process enters the v1 groups of
// that name: the first process of a container writes "0" to each before anything
// else of it runs. There are none where no limit has needed a v1 hierarchy. The
// caller closes them.
func (t *Tree) Joins(name string) (out []*os.File, err error) {
	for _, h := range t.v1 {
		fd, err := unix.Openat(h.fd(), t.dir(name)+"/cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			for _, f := range out {
				f.Close()
			}
			return nil, t.failed("open", t.dir(name)+"/cgroup.procs", err)
		}
		out = append(out, os.NewFile(uintptr(fd), "cgroup.procs"))
	}
	return out, nil
}

// moveAll moves every process of the v2 group into a v1 group. What is forked
// meanwhile by a process that was not moved yet is found by looking again.
func (t *Tree) moveAll(h hierarchy, name string) error {
	procs, err := unix.Openat(h.fd(), t.dir(name)+"/cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return t.failed("open", t.dir(name)+"/cgroup.procs", err)
	}
	defer unix.Close(procs)
	moved := map[int]bool{}
	for {
		pids, err := t.Pids(name)
		if err != nil {
			return err
		}
		again := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			moved[pid], again = true, true
			if err := writeInt(procs, pid); err != nil && !errors.Is(err, unix.ESRCH) {
				return t.failed("move a process into cgroup", t.dir(name), err)
			}
		}
		if !again {
			return nil
		}
	}
}

// Spread makes the group in every v1 hierarchy, as runc does: engines that have
// named a group look for it in all of them. Processes that it has are not moved.
func (t *Tree) Spread(name string) error {
	if err := t.usable(name); err != nil {
		return err
	}
	for _, h := range t.v1 {
		if _, err := t.makeV1(h, t.dir(name)); err != nil {
			return err
		}
	}
	return nil
}
