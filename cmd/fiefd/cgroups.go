package main

import (
	"context"
	"log/slog"
	"os"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
)

// cgroups gives each container a group of its own, or none where the machine
// has no cgroup v2 hierarchy that can be written.
type cgroups struct {
	tree *cgroup.Tree // nil: none
	mode cgroup.Mode
}

func openCgroups() (*cgroups, error) {
	tree, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if tree.Mode() == cgroup.None {
		slog.Warn("no cgroup v2 hierarchy can be written: containers run in the daemon's cgroup")
		tree.Close()
		return &cgroups{mode: cgroup.None}, nil
	}
	return &cgroups{tree: tree, mode: tree.Mode()}, nil
}

func (c *cgroups) Create(id string) (*os.File, error) {
	if c.tree == nil {
		return nil, nil
	}
	return c.tree.Create(id)
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
