package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// cgroups gives each container a group of its own, or none where the machine
// has no cgroup v2 hierarchy that can be written.
type cgroups struct {
	tree   *cgroup.Tree // nil: none
	homes  *homes       // nil: driver cgroupfs
	driver string
	mode   cgroup.Mode
	can    record.Abilities
}

// openCgroups finds the hierarchy. driver is what was asked for, or "".
func openCgroups(driver string) (*cgroups, error) {
	tree, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if driver, err = chooseDriver(driver, tree.Mode()); err != nil {
		tree.Close()
		return nil, err
	}
	if tree.Mode() == cgroup.None {
		slog.Warn("no cgroup v2 hierarchy can be written: containers run in the daemon's cgroup")
		tree.Close()
		return &cgroups{driver: driver, mode: cgroup.None, can: (&cgroup.Tree{}).Abilities()}, nil
	}
	c := &cgroups{tree: tree, driver: driver, mode: tree.Mode(), can: tree.Abilities()}
	if driver == driverSystemd {
		if c.homes, err = newHomes(tree); err != nil {
			tree.Close()
			return nil, err
		}
	}
	return c, nil
}

// Create makes a group and puts its limits into it, or leaves nothing.
func (c *cgroups) Create(name string, r *specs.LinuxResources) ([]*os.File, error) {
	if c.tree == nil {
		return nil, c.Limit(name, r)
	}
	if c.homes != nil {
		var err error
		if name, err = c.homes.make(name); err != nil {
			return nil, err
		}
	}
	dir, err := c.tree.Create(name)
	if err != nil {
		return nil, err
	}
	var joins []*os.File
	if r != nil {
		if err = c.tree.Limit(name, r); err == nil {
			err = c.tree.GuardDevices(name, r.Devices)
		}
		if err == nil {
			joins, err = c.tree.Joins(name)
		}
	}
	if err != nil {
		dir.Close()
		return nil, errors.Join(err, c.tree.Remove(name))
	}
	return append([]*os.File{dir}, joins...), nil
}

// Show tells where another runtime finds a group. On a host with both versions
// it is shown v2 alone: it would make groups in every other hierarchy otherwise,
// and crun refuses such hosts.
func (c *cgroups) Show(name string) (path, view string) {
	if c.tree == nil {
		return "", ""
	}
	if c.mode == cgroup.Hybrid {
		view = "/sys/fs/cgroup/unified"
	}
	return c.tree.Path(name), view
}

func (c *cgroups) Enter(name string) ([]*os.File, error) {
	if c.tree == nil {
		return nil, nil
	}
	name = c.place(name)
	dir, err := c.tree.Open(name)
	if err != nil {
		return nil, err
	}
	joins, err := c.tree.Joins(name)
	if err != nil {
		dir.Close()
		return nil, err
	}
	return append([]*os.File{dir}, joins...), nil
}

func (c *cgroups) Limit(name string, r *specs.LinuxResources) error {
	if c.tree == nil {
		if r == nil {
			return nil
		}
		return fault.New(fault.Unsupported, "limit cgroup", name, "there is none", "mount cgroup2 at /sys/fs/cgroup where fiefd can write to it")
	}
	return c.tree.Limit(c.place(name), r)
}

func (c *cgroups) Stats(name string) (record.Stats, error) {
	if c.tree == nil {
		return record.Stats{}, fault.New(fault.Unsupported, "read statistics of cgroup", name, "there is none", "")
	}
	return c.tree.Stats(c.place(name))
}

func (c *cgroups) OOMKills(name string) (uint64, error) {
	if c.tree == nil {
		return 0, nil
	}
	return c.tree.OOMKills(c.place(name))
}

func (c *cgroups) Remove(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Remove(c.place(id))
}

func (c *cgroups) Kill(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Kill(c.place(id))
}

func (c *cgroups) Pids(id string) ([]int, error) {
	if c.tree == nil {
		return nil, nil
	}
	return c.tree.Pids(c.place(id))
}

func (c *cgroups) Freeze(ctx context.Context, id string) error {
	if c.tree == nil {
		return fault.New(fault.Unsupported, "freeze cgroup", id, "there is none", "")
	}
	return c.tree.Freeze(ctx, c.place(id))
}

func (c *cgroups) Thaw(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Thaw(c.place(id))
}

func (c *cgroups) version() string { return c.mode.String() }

// close removes fief's own directory when it is empty.
func (c *cgroups) close() {
	if c.tree == nil {
		return
	}
	c.tree.Drop()
	c.tree.Close()
}
