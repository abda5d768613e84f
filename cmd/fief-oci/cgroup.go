package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// cgroupRoot is where the v2 hierarchy is mounted, empty when it is not.
func cgroupRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}

// enterCgroup makes the container's cgroup with its limits; the plan is then
// given the directory as "cgroup". It reports false when there is no v2
// hierarchy, or it may not be written, and the container asks for no limit.
func (c *container) enterCgroup(s *specs.Spec, f *files) (bool, error) {
	path := s.Linux.CgroupsPath
	if strings.Contains(path, ":") {
		return false, fault.New(fault.Unsupported, "use cgroup", path, "systemd slices are not supported", "use the cgroupfs manager")
	}
	if path == "" {
		path = "fief-oci/" + c.ID
	}
	limits, err := cgroupLimits(s.Linux.Resources)
	if err != nil {
		return false, err
	}
	root := cgroupRoot()
	if root == "" {
		return false, needNone(limits, "no cgroup v2 hierarchy is mounted")
	}
	dir := filepath.Join(root, filepath.Clean("/"+path))
	if dir == root {
		return false, fault.New(fault.Invalid, "use cgroup", path, "that is the root", "")
	}
	if err := makeCgroup(root, dir, limits); err != nil {
		return false, needNone(limits, err.Error())
	}
	c.Cgroup = dir
	for _, l := range limits {
		if err := os.WriteFile(filepath.Join(dir, l.file), []byte(l.value), 0); err != nil {
			return false, fault.Wrap(fault.Unsupported, "set limit", l.file, err, "the controller is not enabled in "+dir)
		}
	}
	return c.openCgroup(f)
}

// openCgroup gives the container's cgroup to the plan, when it has one.
func (c *container) openCgroup(f *files) (bool, error) {
	if c.Cgroup == "" {
		return false, nil
	}
	fd, err := openNamed(c.Cgroup, unix.O_PATH|unix.O_DIRECTORY, "open cgroup")
	if err != nil {
		return false, err
	}
	f.give("cgroup", fd)
	return true, nil
}

type limit struct{ file, value string }

func needNone(limits []limit, why string) error {
	if len(limits) == 0 {
		return nil
	}
	return fault.New(fault.Unsupported, "limit resources", limits[0].file, why, "run without limits")
}

// makeCgroup makes dir and enables, on the way to it, the controllers of the
// limits and no others: enabling is seen by the whole machine. One that cannot
// be enabled is found missing when its limit is written.
func makeCgroup(root, dir string, limits []limit) error {
	relative, err := filepath.Rel(root, dir)
	if err != nil {
		return err
	}
	at := root
	for _, name := range strings.Split(relative, "/") {
		for _, l := range limits {
			controller, _, _ := strings.Cut(l.file, ".")
			os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		at = filepath.Join(at, name)
		if err := os.Mkdir(at, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// cgroupLimits translates the limits that fief-oci can set to files of cgroup
// v2 and refuses the others. Device rules are left out: nodes of a container
// are bound or guarded otherwise.
func cgroupLimits(r *specs.LinuxResources) ([]limit, error) {
	if r == nil {
		return nil, nil
	}
	var out []limit
	set := func(file string, n *int64) {
		switch {
		case n == nil || *n == 0:
		case *n < 0:
			out = append(out, limit{file, "max"})
		default:
			out = append(out, limit{file, strconv.FormatInt(*n, 10)})
		}
	}
	if r.Pids != nil {
		set("pids.max", r.Pids.Limit)
	}
	if m := r.Memory; m != nil {
		set("memory.max", m.Limit)
		set("memory.low", m.Reservation)
		if m.Swap != nil && m.Limit != nil && *m.Swap > 0 { // v1 counts memory in
			swap := *m.Swap - *m.Limit
			out = append(out, limit{"memory.swap.max", strconv.FormatInt(max(swap, 0), 10)})
		}
	}
	if c := r.CPU; c != nil {
		out = append(out, cpuLimits(c)...)
	}
	if r.BlockIO != nil && (r.BlockIO.Weight != nil && *r.BlockIO.Weight != 0 || len(r.BlockIO.ThrottleReadBpsDevice)+len(r.BlockIO.ThrottleWriteBpsDevice)+
		len(r.BlockIO.ThrottleReadIOPSDevice)+len(r.BlockIO.ThrottleWriteIOPSDevice)+len(r.BlockIO.WeightDevice) > 0) || len(r.HugepageLimits) > 0 || len(r.Rdma) > 0 || r.Network != nil {
		return nil, fault.New(fault.Unsupported, "limit resources", "", "only memory, cpu, pids and unified limits are supported", "")
	}
	for file, value := range r.Unified {
		if strings.ContainsRune(file, '/') {
			return nil, fault.New(fault.Invalid, "set limit", file, "not a file of a cgroup", "")
		}
		out = append(out, limit{file, value})
	}
	return out, nil
}

func cpuLimits(c *specs.LinuxCPU) []limit {
	var out []limit
	if c.Shares != nil && *c.Shares > 0 {
		// The conversion that runtimes agreed on: 2…262144 becomes 1…10000.
		weight := 1 + (min(max(*c.Shares, 2), 262144)-2)*9999/262142
		out = append(out, limit{"cpu.weight", strconv.FormatUint(weight, 10)})
	}
	if c.Quota != nil && *c.Quota != 0 {
		quota, period := "max", uint64(100000)
		if *c.Quota > 0 {
			quota = strconv.FormatInt(*c.Quota, 10)
		}
		if c.Period != nil && *c.Period > 0 {
			period = *c.Period
		}
		out = append(out, limit{"cpu.max", quota + " " + strconv.FormatUint(period, 10)})
	}
	if c.Cpus != "" {
		out = append(out, limit{"cpuset.cpus", c.Cpus})
	}
	if c.Mems != "" {
		out = append(out, limit{"cpuset.mems", c.Mems})
	}
	return out
}

// removeCgroup removes the container's cgroup, waiting shortly for the last
// process to be gone from it.
func (c *container) removeCgroup() {
	if c.Cgroup == "" {
		return
	}
	for range 50 {
		if unix.Rmdir(c.Cgroup) != unix.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if parent := filepath.Dir(c.Cgroup); filepath.Base(parent) == "fief-oci" {
		unix.Rmdir(parent) // fails while others are in it
	}
}
