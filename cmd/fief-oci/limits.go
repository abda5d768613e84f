package main

import (
	"context"
	"flag"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
)

// grouped opens a running container and the tree that its group is in, which the
// caller closes.
func (a *app) grouped(op, id string) (*container, *cgroup.Tree, error) {
	c, err := a.open(id)
	if err != nil {
		return nil, nil, err
	}
	if s := c.status(); s != specs.StateRunning && s != specs.StateCreated && s != paused {
		return nil, nil, fault.New(fault.Conflict, op+" container", id, "it is "+string(s), "")
	}
	if c.Cgroup == "" {
		return nil, nil, fault.New(fault.Unsupported, op+" container", id, "it has no cgroup", "")
	}
	tree, err := cgroup.Open(ownGroups)
	return c, tree, err
}

func pauseCommand(a *app, _ *flag.FlagSet) func([]string) error {
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		c, tree, err := a.grouped("pause", id)
		if err != nil {
			return err
		}
		defer tree.Close()
		return tree.Freeze(context.Background(), c.Cgroup)
	}
}

func resumeCommand(a *app, _ *flag.FlagSet) func([]string) error {
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		c, tree, err := a.grouped("resume", id)
		if err != nil {
			return err
		}
		defer tree.Close()
		return tree.Thaw(c.Cgroup)
	}
}

// paused is what runtimes say of a container that stands still.
const paused specs.ContainerState = "paused"

func (c *container) paused() bool {
	if c.Cgroup == "" {
		return false
	}
	tree, err := cgroup.Open(ownGroups)
	if err != nil {
		return false
	}
	defer tree.Close()
	frozen, err := tree.Frozen(c.Cgroup)
	return frozen && err == nil
}
