package main

import (
	"hash/fnv"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
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
		err = c.makeGroup(tree, name, s.Linux.CgroupsPath != "")
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

// ownGroup is the name of the group of a container that names none. Ids are those
// of a state directory: another one has the same again.
func (c *container) ownGroup() string {
	root := filepath.Dir(c.dir)
	if root == defaultRoot() {
		return c.ID
	}
	h := fnv.New32a()
	h.Write([]byte(root))
	return c.ID + "@" + strconv.FormatUint(uint64(h.Sum32()), 16)
}

// openEmpty opens a group that was there before. One with processes is somebody
// else's: they would be limited, frozen and killed with the container, which in a
// frozen one would never get as far as its program.
func openEmpty(tree *cgroup.Tree, name string) (*os.File, error) {
	pids, err := tree.Pids(name)
	if err != nil {
		return nil, err
	}
	if len(pids) > 0 {
		return nil, fault.New(fault.Conflict, "use cgroup", name, "container's cgroup is not empty: "+strconv.Itoa(len(pids))+" process(es) found", "name another one")
	}
	frozen, err := tree.Frozen(name)
	if err != nil {
		return nil, err
	}
	if frozen {
		return nil, fault.New(fault.Conflict, "use cgroup", name, "container's cgroup unexpectedly frozen", "thaw it, or name another one")
	}
	return tree.Open(name)
}

// groupPath is the path, from the roots of the hierarchies, that cgroupsPath means.
func (c *container) groupPath(s *specs.Spec) (string, error) {
	name := s.Linux.CgroupsPath
	if strings.Contains(name, ":") {
		return "", fault.New(fault.Unsupported, "use cgroup", name, "systemd slices are not paths", "give --systemd-cgroup")
	}
	if name == "" {
		name = ownGroups + "/" + c.ownGroup()
	}
	if name = path.Clean("/" + name); name == "/" {
		return "", fault.New(fault.Invalid, "use cgroup", name, "that is the root", "")
	}
	return name, nil
}

// makeGroup makes the container's group, or takes an empty one that is there, as
// runc does. One that was named is looked for in every hierarchy by whoever named it.
func (c *container) makeGroup(tree *cgroup.Tree, name string, named bool) error {
	dir, err := tree.Create(name)
	if fault.Is(err, fault.Exists) {
		dir, err = openEmpty(tree, name)
	}
	if err != nil {
		return err
	}
	c.Cgroup = name
	dir.Close()
	if named {
		return tree.Spread(name)
	}
	return nil
}

// without says whether a container can do without a group, after an error.
func (c *container) without(s *specs.Spec, err error) error {
	r := s.Linux.Resources
	if c.Cgroup != "" || c.systemd || !limitless(r) || fault.Is(err, fault.Invalid) || fault.Is(err, fault.Conflict) {
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
	rules = slices.Concat(rules, cgroup.OwnDevices())
	err := tree.GuardDevices(name, rules)
	if err == nil {
		err = tree.ListDevices(name, rules)
	}
	if own && (fault.Is(err, fault.Unsupported) || fault.Is(err, fault.Denied)) {
		return nil
	}
	return err
}

// openCgroup gives the container's group to the plan of another process, when it
// has one: the group itself, or one below it that the caller names.
func (c *container) openCgroup(f *files, opt *launch.Options, below []string) error {
	sub, err := subgroup(below)
	if err != nil {
		return err
	}
	if c.Cgroup == "" && sub != "" {
		return fault.New(fault.Invalid, "use cgroup", sub, "the container has none", "leave --cgroup out")
	}
	if c.Cgroup == "" {
		return nil
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return err
	}
	defer tree.Close()
	if sub != "" {
		return joinGroup(tree, f, opt, c.Cgroup, path.Join(c.Cgroup, sub))
	}
	return joinGroup(tree, f, opt, c.Cgroup, c.inner(tree))
}

// subgroup reads --cgroup: a path below the container's group. Paths for single
// controllers of v1 are refused.
func subgroup(list []string) (string, error) {
	switch {
	case len(list) == 0:
		return "", nil
	case len(list) > 1 || strings.Contains(list[0], ":"):
		return "", fault.New(fault.Unsupported, "use cgroup", strings.Join(list, " "), "groups of single controllers are not supported", "name one path")
	case slices.Contains(strings.Split(list[0], "/"), ".."):
		return "", fault.New(fault.Invalid, "use cgroup", list[0], "it leaves the container's", "")
	}
	return strings.TrimPrefix(path.Clean("/"+list[0]), "/"), nil
}

// inner is the group that exec's processes are put in: the container's or, when
// an init in it has given its controllers on and moved down, the one below that
// its first process is in (cgroups(7), "no internal processes" rule).
func (c *container) inner(tree *cgroup.Tree) string {
	if tree.Mode() != cgroup.Unified {
		return c.Cgroup
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/cgroup")
	if err != nil {
		return c.Cgroup
	}
	_, own, _ := strings.Cut(strings.TrimSpace(string(b)), "0::")
	if strings.HasPrefix(own, c.Cgroup+"/") {
		return own
	}
	return c.Cgroup
}

func (c *container) joinCgroup(tree *cgroup.Tree, f *files, opt *launch.Options) error {
	return joinGroup(tree, f, opt, c.Cgroup, c.Cgroup)
}

// joinGroup gives a group to a plan: that of v2, and those of v1 at base, where
// limits lie, and then at name, if there are any below.
func joinGroup(tree *cgroup.Tree, f *files, opt *launch.Options, base, name string) error {
	dir, err := tree.Open(name)
	if err != nil {
		return err
	}
	joins, err := tree.Joins(base)
	if err == nil && name != base {
		var more []*os.File
		more, err = tree.Joins(name)
		joins = append(joins, more...)
	}
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

// removeCgroup kills what is left in the container's group and removes it, waiting
// shortly for the last process to be gone from it.
func (c *container) removeCgroup() {
	if c.Cgroup == "" {
		return
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return
	}
	defer tree.Close()
	tree.Kill(c.Cgroup) // without a pid namespace of its own its first process leaves others behind
	if c.Unit != "" {
		c.stopScope(tree)
	}
	tree.Remove(c.Cgroup)
	tree.Drop() // fails while others are in it
}
