package cmdline

import (
	"path"

	"fief/internal/words/ask"
)

// Resolve turns the flags and the words after them into a complete ask.
func (o *ExecOptions) Resolve(args []string, c Client) (Exec, error) {
	if len(args) < 2 {
		return Exec{}, conflict("\"fief exec\" requires at least 2 arguments.")
	}
	keys, err := c.keys(o.detachKeys, o.tty)
	if err != nil {
		return Exec{}, err
	}
	env, err := environment(o.envFile, o.env, c)
	if err != nil {
		return Exec{}, err
	}
	if o.workdir != "" && !path.IsAbs(o.workdir) {
		return Exec{}, conflict("the working directory '" + o.workdir + "' is invalid, it needs to be an absolute path")
	}
	e := Exec{Container: args[0], Detach: o.detach}
	e.Ask = ask.Exec{
		Cmd: args[1:], Env: env, WorkDir: o.workdir, User: o.user, TTY: o.tty, Privileged: o.privileged, DetachKeys: keys,
	}
	if !o.detach {
		e.Ask.OpenStdin, e.Ask.AttachOut, e.Ask.AttachErr = o.interactive, true, true
		e.Attach = Attach{Stdin: o.interactive, Stdout: true, Stderr: true, DetachKeys: keys}
	}
	return e, nil
}
