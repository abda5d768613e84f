package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
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
		notices, err := c.start()
		if err != nil {
			return err
		}
		c.announce(notices, c.PID)
		return nil
	}
}

// announce waits for the container to be ready, where a manager wants to know, and
// for one that is left to itself names the process, pid. It runs by then: what goes
// wrong is no failure of the start.
func (c *container) announce(notices *proxy, pid int) {
	if notices == nil {
		return
	}
	defer notices.close()
	pidfd, err := c.pidfd()
	if err == nil {
		defer unix.Close(pidfd)
	}
	if err := notices.follow(pid, pidfd); err != nil {
		os.Stderr.WriteString("warning: " + err.Error() + "\n")
	}
}

// start opens the gate, waits until hooks of the start have run, and runs those
// that follow. When one fails, nothing is left of the container. The result, nil
// without a manager to tell, is the caller's to follow and close.
func (c *container) start() (*proxy, error) {
	if s := c.status(); s != specs.StateCreated {
		return nil, fault.New(fault.Conflict, "start container", c.ID, "cannot start a container in the "+string(s)+" state", "")
	}
	notices, err := c.proxyNotify()
	if err == nil {
		err = c.open()
	}
	if err != nil {
		notices.close()
		return nil, err
	}
	return notices, nil
}

// open is start without notices.
func (c *container) open() error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	if spec.Process == nil {
		return fault.New(fault.Invalid, "start container", c.ID, "its config.json has no process", "delete it, and give the bundle one")
	}
	fd, err := openNamed(filepath.Join(c.dir, "gate"), unix.O_WRONLY|unix.O_NONBLOCK, "open")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	await, err := c.listen(spec)
	if err != nil {
		return err
	}
	c.Started = true
	if err := c.save(); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return fault.Wrap(fault.Internal, "start container", c.ID, err, "")
	}
	if err = await(); err == nil {
		err = runHooks(spec, c, "poststart")
	}
	if err != nil {
		c.end(spec)
	}
	return err
}

func (c *container) spec() (*specs.Spec, error) {
	if c.config != nil {
		return c.config, nil
	}
	s, _, err := loadSpec(filepath.Join(c.dir, "config.json"))
	return s, err
}

// saveSpec keeps raw, the config.json that s was read from.
func (c *container) saveSpec(s *specs.Spec, raw []byte) error {
	joins := func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace && n.Path != "" }
	if slices.ContainsFunc(s.Linux.Namespaces, joins) { // its maps were added
		var err error
		if raw, err = json.Marshal(s); err != nil {
			return err
		}
	}
	return fault.Wrap(fault.Internal, "save config of", c.ID, os.WriteFile(filepath.Join(c.dir, "config.json"), raw, 0o600), "")
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

// signal signals the first process. Where the others would not end with it,
// having no pid namespace of their own, SIGKILL is for all of them.
func (c *container) signal(sig unix.Signal) error {
	if sig == unix.SIGKILL && !c.ownPIDs() && c.Cgroup != "" && c.status() != specs.StateStopped {
		return c.signalAll(sig)
	}
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fault.Wrap(fault.Internal, "signal container", c.ID, unix.PidfdSendSignal(fd, sig, nil, 0), "")
}

// signalAll signals every process of the container, the first one last; that
// there is none left is no error.
func (c *container) signalAll(sig unix.Signal) error {
	if tree, err := cgroup.Open(ownGroups); sig == unix.SIGKILL && c.Cgroup != "" && err == nil {
		defer tree.Close()
		if tree.Kill(c.Cgroup) == nil {
			return nil
		}
	}
	for _, pid := range c.processes() {
		if pid != c.PID {
			unix.Kill(pid, sig)
		}
	}
	fd, err := c.pidfd()
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return fault.Wrap(fault.Internal, "signal container", c.ID, unix.PidfdSendSignal(fd, sig, nil, 0), "")
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
		if err != nil {
			c.destroy()
			return nil
		}
		c.end(spec)
		return nil
	}
}
