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
	tree *cgroup.Tree // nil: none
	mode cgroup.Mode
	can  record.Abilities
}

func openCgroups() (*cgroups, error) {
	tree, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if tree.Mode() == cgroup.None {
		slog.Warn("no cgroup v2 hierarchy can be written: containers run in the daemon's cgroup")
		tree.Close()
		return &cgroups{mode: cgroup.None, can: (&cgroup.Tree{}).Abilities()}, nil
	}
	return &cgroups{tree: tree, mode: tree.Mode(), can: tree.Abilities()}, nil
}

// Create makes a group and puts its limits into it, or leaves nothing.
func (c *cgroups) Create(name string, r *specs.LinuxResources) ([]*os.File, error) {
	if c.tree == nil {
		return nil, c.Limit(name, r)
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
	return c.tree.Limit(name, r)
}

func (c *cgroups) Stats(name string) (record.Stats, error) {
	if c.tree == nil {
		return record.Stats{}, fault.New(fault.Unsupported, "read statistics of cgroup", name, "there is none", "")
	}
	return c.tree.Stats(name)
}

func (c *cgroups) OOMKills(name string) (uint64, error) {
	if c.tree == nil {
		return 0, nil
	}
	return c.tree.OOMKills(name)
}

func (c *cgroups) Remove(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Remove(id)
}

func (c *cgroups) Kill(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Kill(id)
}

func (c *cgroups) Pids(id string) ([]int, error) {
	if c.tree == nil {
		return nil, nil
	}
	return c.tree.Pids(id)
}

func (c *cgroups) Freeze(ctx context.Context, id string) error {
	if c.tree == nil {
		return fault.New(fault.Unsupported, "freeze cgroup", id, "there is none", "")
	}
	return c.tree.Freeze(ctx, id)
}

func (c *cgroups) Thaw(id string) error {
	if c.tree == nil {
		return nil
	}
	return c.tree.Thaw(id)
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
