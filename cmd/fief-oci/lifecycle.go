package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/harden"
	"fief/internal/words/fault"
)

func startCommand(a *app, _ *flag.FlagSet) func([]string) error {
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		c, err := a.open(id)
		if err != nil {
			return err
		}
		return c.start()
	}
}

// start opens the gate.
func (c *container) start() error {
	if s := c.status(); s != specs.StateCreated {
		return fault.New(fault.Conflict, "start container", c.ID, "cannot start a container in the "+string(s)+" state", "")
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	fd, err := openNamed(filepath.Join(c.dir, "gate"), unix.O_WRONLY|unix.O_NONBLOCK, "open")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c.Started = true
	if err := c.save(); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return fault.Wrap(fault.Internal, "start container", c.ID, err, "")
	}
	return runHooks(spec, c, "poststart")
}

func (c *container) spec() (*specs.Spec, error) { return loadSpec(filepath.Join(c.dir, "config.json")) }

func (c *container) saveSpec(s *specs.Spec) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Internal, "save config of", c.ID, os.WriteFile(filepath.Join(c.dir, "config.json"), b, 0o600), "")
}

func killCommand(a *app, set *flag.FlagSet) func([]string) error {
	all := set.Bool("all", false, "all processes of the container")
	set.BoolVar(all, "a", false, "short for --all")
	return func(args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return fault.New(fault.Invalid, "run", "kill", "a container id and at most a signal are needed", "")
		}
		c, err := a.open(args[0])
		if err != nil {
			return err
		}
		sig := unix.SIGTERM
		if len(args) == 2 {
			if sig, err = harden.Signal(args[1]); err != nil {
				return err
			}
		}
		if *all {
			return c.signalAll(sig)
		}
		return c.signal(sig)
	}
}

func (c *container) signal(sig unix.Signal) error {
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fault.Wrap(fault.Internal, "signal container", c.ID, unix.PidfdSendSignal(fd, sig, nil, 0), "")
}

// signalAll signals every process of the container's pid namespace, the first
// one last.
func (c *container) signalAll(sig unix.Signal) error {
	for _, pid := range c.processes() {
		if pid == c.PID {
			continue
		}
		unix.Kill(pid, sig)
	}
	if c.status() == specs.StateStopped {
		return nil
	}
	return c.signal(sig)
}

func deleteCommand(a *app, set *flag.FlagSet) func([]string) error {
	force := set.Bool("force", false, "kill it first; do not mind when it does not exist")
	set.BoolVar(force, "f", false, "short for --force")
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		c, err := a.open(id)
		if *force && fault.Is(err, fault.NotFound) {
			return os.RemoveAll(filepath.Join(a.root, id)) // a create that was killed leaves no state
		}
		if err != nil {
			return err
		}
		if s := c.status(); (s == specs.StateRunning || s == paused) && !*force {
			return fault.New(fault.Conflict, "delete container", id, "cannot delete a container that is "+string(s), "use --force")
		}
		spec, err := c.spec()
		c.destroy()
		if err != nil {
			return nil
		}
		return runHooks(spec, c, "poststop")
	}
}

// hookTimeout bounds a hook that names no timeout.
const hookTimeout = 10 * time.Minute

// runHooks runs the named hooks of a container in the runtime's namespaces, with
// its state on their stdin (OCI runtime spec, POSIX-platform Hooks).
func runHooks(s *specs.Spec, c *container, names ...string) error {
	if s.Hooks == nil {
		return nil
	}
	state := c.oci()
	for _, name := range names {
		var list []specs.Hook
		switch name {
		case "prestart":
			//lint:ignore SA1019 callers still set it, and the spec still has it run
			list = s.Hooks.Prestart
			state.Status, state.Pid = specs.StateCreating, c.PID
		case "createRuntime":
			list = s.Hooks.CreateRuntime
			state.Status, state.Pid = specs.StateCreating, c.PID
		case "poststart":
			list = s.Hooks.Poststart
		case "poststop":
			list = s.Hooks.Poststop
			state.Status, state.Pid = specs.StateStopped, 0
		}
		for _, h := range list {
			if err := runHook(h, name, state); err != nil {
				return err
			}
		}
	}
	return nil
}

func runHook(h specs.Hook, name string, state specs.State) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	limit := hookTimeout
	if h.Timeout != nil {
		limit = time.Duration(*h.Timeout) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = h.Args, h.Env, bytes.NewReader(input), &out, &out
	if len(h.Args) == 0 {
		cmd.Args = []string{h.Path}
	}
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Internal, "run "+name+" hook", h.Path, err, strings.TrimSpace(out.String()))
	}
	return nil
}
