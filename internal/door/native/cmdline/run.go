package cmdline

import (
	"path"
	"strings"

	"github.com/docker/go-units"

	"fief/internal/words/ask"
	"fief/internal/words/ref"
)

// Resolve turns the flags and the words after them into a complete ask.
func (o *RunOptions) Resolve(args []string, c Client) (Run, error) {
	if len(args) == 0 || args[0] == "" {
		return Run{}, conflict("\"fief run\" requires at least 1 argument.")
	}
	r := Run{Detach: o.detach, Trace: o.trace, DryRun: o.dryRun, Quiet: o.quiet, SigProxy: o.sigProxy, CIDFile: o.cidfile}
	r.Ask = ask.Container{
		Name: o.name, Image: args[0], Platform: o.platform, WorkDir: o.workdir, User: o.user, Groups: o.groups,
		Hostname: o.hostname, Domainname: o.domainname, StopSignal: o.stopSignal, TTY: o.tty, OpenStdin: o.interactive,
		ReadOnly: o.readOnly, CapAdd: o.capAdd, CapDrop: o.capDrop, Init: o.init, AutoRemove: o.remove,
		Runtime: o.runtime,
	}
	if len(args) > 1 {
		r.Ask.Cmd = args[1:]
	}
	for _, step := range []func(*Run, Client) error{
		o.streams, o.process, o.environment, o.labelled, o.mounted, o.limits, o.security, o.identity, o.logged, o.healthy, o.restarts, o.rest, o.networked, o.spaces,
	} {
		if err := step(&r, c); err != nil {
			return Run{}, err
		}
	}
	return r, nil
}

func (o *RunOptions) streams(r *Run, c Client) error {
	for _, a := range o.attach {
		switch strings.ToLower(a) {
		case "stdin":
			r.Attach.Stdin = true
		case "stdout":
			r.Attach.Stdout = true
		case "stderr":
			r.Attach.Stderr = true
		default:
			return invalid("-a, --attach", a, "valid streams are STDIN, STDOUT and STDERR")
		}
	}
	switch {
	case o.detach && len(o.attach) > 0:
		return conflict("conflicting options: cannot specify both --attach and --detach")
	case !o.detach && len(o.attach) == 0:
		r.Attach = Attach{Stdin: o.interactive, Stdout: true, Stderr: true}
	}
	keys, err := c.keys(o.detachKeys, o.tty)
	r.Attach.DetachKeys = keys
	r.Ask.AttachStdin, r.Ask.AttachStdout, r.Ask.AttachStderr = r.Attach.Stdin, r.Attach.Stdout, r.Attach.Stderr
	r.Ask.StdinOnce = o.interactive && r.Attach.Stdin
	return err
}

func (o *RunOptions) process(r *Run, _ Client) error {
	if o.name != "" {
		if err := ref.CheckName(strings.TrimPrefix(o.name, "/")); err != nil {
			return err
		}
		r.Ask.Name = strings.TrimPrefix(o.name, "/")
	}
	if o.fs.Changed("entrypoint") {
		r.Ask.ReplaceEntry = true
		if o.entrypoint != "" {
			r.Ask.Entrypoint = []string{o.entrypoint}
		}
	}
	if o.workdir != "" && !path.IsAbs(o.workdir) {
		return conflict("the working directory '" + o.workdir + "' is invalid, it needs to be an absolute path")
	}
	if o.fs.Changed("stop-timeout") {
		r.Ask.StopTimeout = &o.stopTimeout
	}
	return nil
}

func (o *RunOptions) limits(r *Run, _ Client) error {
	for _, u := range o.ulimits {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return invalid("--ulimit", u, err.Error())
		}
		r.Ask.Ulimits = append(r.Ask.Ulimits, ask.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard})
	}
	var err error
	if r.Ask.Resources, err = o.resources.Resolve(); err != nil {
		return err
	}
	if r.Ask.Sysctls, err = o.resources.sysctlMap(); err != nil || o.shmSize == "" {
		return err
	}
	r.Ask.ShmSize, err = bytesOf("--shm-size", o.shmSize)
	return err
}

func (o *RunOptions) logged(r *Run, _ Client) error {
	r.Ask.Log = ask.Log{Driver: o.logDriver, Options: map[string]string{}}
	for _, opt := range o.logOpts {
		key, value, ok := strings.Cut(opt, "=")
		if !ok || key == "" {
			return conflict("invalid logging opts for driver " + o.logDriver + ": " + opt)
		}
		r.Ask.Log.Options[key] = value
	}
	return nil
}

func (o *RunOptions) restarts(r *Run, _ Client) (err error) {
	r.Ask.Restart, err = ask.ParseRestart(o.restart)
	if err != nil {
		return conflict(err.Error())
	}
	if r.Ask.AutoRemove && r.Ask.Restart.Restarts() {
		return conflict("conflicting options: cannot specify both --restart and --rm")
	}
	return nil
}

func (o *RunOptions) rest(r *Run, _ Client) error {
	switch p := ask.Pull(o.pull); p {
	case ask.PullMissing, ask.PullAlways, ask.PullNever, ask.PullNewer:
		r.Ask.Pull = p
	default:
		return conflict("invalid pull option: '" + o.pull + "': must be one of \"always\", \"missing\" or \"never\"")
	}
	for _, opt := range o.storageOpts {
		way, ok := strings.CutPrefix(opt, "shift=")
		if !ok {
			return invalid("--storage-opt", opt, "the option is shift=WAY")
		}
		r.Ask.Shift = way
	}
	return nil
}

func bytesOf(flag, value string) (int64, error) {
	n, err := units.RAMInBytes(value)
	if err != nil {
		return 0, invalid(flag, value, err.Error())
	}
	return n, nil
}
