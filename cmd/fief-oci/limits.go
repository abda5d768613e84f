package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"

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

// updateCommand changes limits live; those that the file does not name stay.
func updateCommand(a *app, set *flag.FlagSet) func([]string) error {
	file := set.String("resources", "", "file of OCI linux.resources, - for standard input")
	set.StringVar(file, "r", "", "short for --resources")
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		var in io.Reader = os.Stdin
		if *file == "" {
			return fault.New(fault.Invalid, "update container", id, "no resources are named", "--resources FILE")
		}
		if *file != "-" {
			f, err := os.Open(*file)
			if err != nil {
				return fault.Wrap(fault.NotFound, "open", *file, err, "")
			}
			defer f.Close()
			in = f
		}
		var r specs.LinuxResources
		if err := json.NewDecoder(io.LimitReader(in, maxConfig)).Decode(&r); err != nil {
			return fault.Wrap(fault.Invalid, "read resources of", *file, err, "")
		}
		c, tree, err := a.grouped("update", id)
		if err != nil {
			return err
		}
		defer tree.Close()
		return c.limit(tree, &r)
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
