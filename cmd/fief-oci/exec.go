package main

import (
	"encoding/json"
	"flag"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/launch"
	"fief/internal/runtime"
	"fief/internal/words/fault"
)

// execution holds the options of exec.
type execution struct {
	app                                  *app
	process, console, pidFile, user, cwd string
	tty, detach, noNewPrivs, paused      bool
	env, caps, groups, cgroup            values
	label, profile                       string
	pass                                 passing
}

func execCommand(a *app, set *flag.FlagSet) func([]string) error {
	e := &execution{app: a}
	for _, f := range []struct {
		long, short string
		to          *string
		help        string
	}{
		{"process", "p", &e.process, "file with an OCI process"}, {"console-socket", "", &e.console, "unix socket that receives the terminal"},
		{"pid-file", "", &e.pidFile, "write the pid here"}, {"user", "u", &e.user, "UID[:GID]"}, {"cwd", "", &e.cwd, "working directory"},
		{"process-label", "", &e.label, "SELinux label"}, {"apparmor", "", &e.profile, "AppArmor profile"},
	} {
		set.StringVar(f.to, f.long, "", f.help)
		if f.short != "" {
			set.StringVar(f.to, f.short, "", "short for --"+f.long)
		}
	}
	set.BoolVar(&e.tty, "tty", false, "with a terminal")
	set.BoolVar(&e.tty, "t", false, "short for --tty")
	set.BoolVar(&e.detach, "detach", false, "do not wait for its end")
	set.BoolVar(&e.detach, "d", false, "short for --detach")
	set.BoolVar(&e.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	set.Var(&e.env, "env", "NAME=VALUE, may be repeated")
	set.Var(&e.env, "e", "short for --env")
	set.Var(&e.caps, "cap", "add a capability, may be repeated")
	set.Var(&e.caps, "c", "short for --cap")
	set.Var(&e.groups, "additional-gids", "add a group, may be repeated")
	set.Var(&e.groups, "g", "short for --additional-gids")
	set.Var(&e.cgroup, "cgroup", "path below the container's cgroup, which exists")
	set.BoolVar(&e.paused, "ignore-paused", false, "also in a paused container, where it stands still at once")
	set.Bool("no-subreaper", false, "ignored: nothing else is reaped")
	e.pass.flags(a, set)
	return e.run
}

func (e *execution) run(args []string) error {
	if len(args) < 1 || len(args) < 2 && e.process == "" {
		return fault.New(fault.Invalid, "run", "exec", "a container id and a command are needed", "")
	}
	c, err := e.app.open(args[0])
	if err != nil {
		return err
	}
	status := c.status()
	if status != specs.StateRunning && status != specs.StateCreated && !(status == paused && e.paused) {
		return fault.New(fault.Conflict, "exec in container", c.ID, "cannot exec in a "+string(status)+" container", "")
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	if err := protect(spec, e.pass.inherited); err != nil {
		return err
	}
	process, err := e.describe(spec, args[1:])
	if err != nil {
		return err
	}
	pidfd, err := c.pidfd()
	if err != nil {
		return err
	}
	f := &files{bundle: c.Bundle, spec: spec, given: map[string]int{"pidfd": pidfd, "stdin": 0, "stdout": 1, "stderr": 2}, own: []int{pidfd}}
	defer f.close()
	opt := launch.Options{ID: c.ID, Nested: nested(), Assists: true}
	if err := e.pass.open(f, &opt, process); err != nil {
		return err
	}
	if err := c.openCgroup(f, &opt, e.cgroup); err != nil {
		return err
	}
	if err := withhold(spec, process); err != nil {
		return err
	}
	p, err := newCompiler().Exec(process, spec, opt)
	if err != nil {
		return err
	}
	var front *foreground
	if !e.detach {
		front = newForeground()
	}
	proc, err := start(e.app, &p, f, runtime.Callbacks{Listener: c.listener(spec, status)}, func() error {
		front.catch(process.Terminal)
		return nil
	})
	if err != nil {
		return err
	}
	err = e.pass.sendPidfd("setns", proc.PIDFD)
	if err == nil {
		err = writePIDFile(e.pidFile, proc.PID)
	}
	if err != nil {
		unix.PidfdSendSignal(proc.PIDFD, unix.SIGKILL, nil, 0)
		return err
	}
	return finish(proc, e.console, front, func() error { return nil })
}

// describe makes the process: the one of a file, or the container's with what
// the flags change.
func (e *execution) describe(spec *specs.Spec, args []string) (*specs.Process, error) {
	var p specs.Process
	if e.process != "" {
		b, err := os.ReadFile(e.process)
		if err != nil {
			return nil, fault.Wrap(fault.NotFound, "read process", e.process, err, "")
		}
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fault.Wrap(fault.Invalid, "read process", e.process, err, "")
		}
		if p.ExecCPUAffinity == nil && spec.Process != nil {
			p.ExecCPUAffinity = spec.Process.ExecCPUAffinity
		}
	} else if spec.Process == nil {
		return nil, fault.New(fault.Invalid, "exec in container", e.process, "its config.json has no process to take after", "give --process")
	} else {
		p = *spec.Process
		p.Args, p.Terminal, p.ConsoleSize = args, e.tty, nil
	}
	p.Terminal = p.Terminal || e.tty
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	p.Env = append(append([]string{}, p.Env...), e.env...)
	for _, f := range []struct{ from, to *string }{{&e.cwd, &p.Cwd}, {&e.label, &p.SelinuxLabel}, {&e.profile, &p.ApparmorProfile}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if err := e.identity(&p); err != nil {
		return nil, err
	}
	if len(e.caps) > 0 {
		var sets specs.LinuxCapabilities
		if p.Capabilities != nil {
			sets = *p.Capabilities
		}
		for _, list := range []*[]string{&sets.Bounding, &sets.Effective, &sets.Permitted} {
			*list = append(append([]string{}, *list...), e.caps...)
		}
		p.Capabilities = &sets
	}
	return &p, nil
}

// identity applies --user and --additional-gids: numbers only, names are the
// caller's to look up.
func (e *execution) identity(p *specs.Process) error {
	parse := func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 10, 32)
		return uint32(n), fault.Wrap(fault.Invalid, "use id", s, err, "give a number")
	}
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		var err error
		if p.User.UID, err = parse(uid); err != nil {
			return err
		}
		if both {
			if p.User.GID, err = parse(gid); err != nil {
				return err
			}
		}
	}
	for _, g := range e.groups {
		gid, err := parse(g)
		if err != nil {
			return err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, gid)
	}
	return nil
}
