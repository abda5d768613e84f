package main

import (
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/launch"
	"fief/internal/words/fault"
)

// ownGroups is the cgroup that containers are put in which name none.
const ownGroups = "fief-oci"

// enterCgroup makes the container's group with its limits and the guard of its
// devices, and gives it to the plan. It leaves the options as they are when there
// is no v2 hierarchy, or it may not be written, and the container asks for no
// limit.
func (c *container) enterCgroup(s *specs.Spec, f *files, opt *launch.Options) error {
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return err
	}
	defer tree.Close()
	if c.systemd {
		err = c.makeScope(tree, s, f)
	} else {
		var name string
		if name, err = c.groupPath(s); err != nil {
			return err
		}
		err = c.makeGroup(tree, name)
	}
	if err == nil {
		err = tree.Limit(c.Cgroup, s.Linux.Resources)
	}
	if err != nil {
		return c.without(s, err)
	}
	if err := guard(tree, c.Cgroup, s); err != nil {
		return err
	}
	return c.joinCgroup(tree, f, opt)
}

// groupPath is the path, from the roots of the hierarchies, that cgroupsPath means.
func (c *container) groupPath(s *specs.Spec) (string, error) {
	name := s.Linux.CgroupsPath
	if strings.Contains(name, ":") {
		return "", fault.New(fault.Unsupported, "use cgroup", name, "systemd slices are not paths", "give --systemd-cgroup")
	}
	if name == "" {
		name = ownGroups + "/" + c.ID
	}
	if name = path.Clean("/" + name); name == "/" {
		return "", fault.New(fault.Invalid, "use cgroup", name, "that is the root", "")
	}
	return name, nil
}

// makeGroup makes the container's group, or takes the one that is there, as runc
// does.
func (c *container) makeGroup(tree *cgroup.Tree, name string) error {
	dir, err := tree.Create(name)
	if fault.Is(err, fault.Exists) {
		dir, err = tree.Open(name)
	}
	if err != nil {
		return err
	}
	c.Cgroup = name
	return dir.Close()
}

// without says whether a container can do without a group, after an error.
func (c *container) without(s *specs.Spec, err error) error {
	r := s.Linux.Resources
	if c.Cgroup != "" || c.systemd || !limitless(r) || fault.Is(err, fault.Invalid) {
		return err
	}
	return mayRun(s)
}

// limitless: only device rules, which a user namespace does without.
func limitless(r *specs.LinuxResources) bool {
	return r == nil || r.Memory == nil && r.CPU == nil && r.Pids == nil && r.BlockIO == nil && r.Network == nil && len(r.HugepageLimits)+len(r.Rdma)+len(r.Unified) == 0
}

// guard puts the device rules into force. In a user namespace a container can
// open only nodes that were given to it, and whoever runs this may not have the
// right: there it does without.
func guard(tree *cgroup.Tree, name string, s *specs.Spec) error {
	var rules []specs.LinuxDeviceCgroup
	if s.Linux.Resources != nil {
		rules = s.Linux.Resources.Devices
	}
	own := ownUserns(s)
	if own && len(rules) == 0 {
		return nil
	}
	err := tree.GuardDevices(name, slices.Concat(rules, cgroup.OwnDevices()))
	if own && (fault.Is(err, fault.Unsupported) || fault.Is(err, fault.Denied)) {
		return nil
	}
	return err
}

// openCgroup gives the container's group to a plan, when it has one.
func (c *container) openCgroup(f *files, opt *launch.Options) error {
	if c.Cgroup == "" {
		return nil
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return err
	}
	defer tree.Close()
	return c.joinCgroup(tree, f, opt)
}

func (c *container) joinCgroup(tree *cgroup.Tree, f *files, opt *launch.Options) error {
	dir, err := tree.Open(c.Cgroup)
	if err != nil {
		return err
	}
	joins, err := tree.Joins(c.Cgroup)
	opt.Cgroup, opt.Groups = true, len(joins)
	for i, file := range append([]*os.File{dir}, joins...) {
		name := "cgroup"
		if i > 0 {
			name = launch.GroupName(i - 1)
		}
		fd, dupErr := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		file.Close()
		if dupErr != nil {
			return fault.Wrap(fault.Internal, "duplicate", name, dupErr, "")
		}
		f.give(name, fd)
	}
	return err
}

// removeCgroup removes the container's group, waiting shortly for the last
// process to be gone from it.
func (c *container) removeCgroup() {
	if c.Cgroup == "" {
		return
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return
	}
	defer tree.Close()
	if c.Unit != "" {
		c.stopScope(tree)
	}
	tree.Remove(c.Cgroup)
	tree.Drop() // fails while others are in it
}
