package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/cli/fast"
	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

func runCommands() []Command {
	return []Command{
		{Name: "run", Use: "[OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create and run a new container from an image",
			Min: 1, Max: -1, Inside: true, Objects: images, Setup: setupRun},
		{Name: "create", Use: "[OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new container",
			Min: 1, Max: -1, Inside: true, Objects: images, Setup: setupCreate},
		{Name: "exec", Use: "[OPTIONS] CONTAINER COMMAND [ARG...]", Short: "Execute a command in a running container",
			Min: 2, Max: -1, Inside: true, Objects: containers, Setup: setupExec},
		{Name: "attach", Use: "[OPTIONS] CONTAINER", Short: "Attach local standard input, output, and error streams to a running container",
			Min: 1, Max: 1, Objects: containers, Setup: setupAttach},
		{Name: "start", Use: "[OPTIONS] CONTAINER [CONTAINER...]", Short: "Start one or more stopped containers",
			Min: 1, Max: -1, Objects: containers, Setup: setupStart},
	}
}

// here is the client's side of a command line.
func here() cmdline.Client {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	return cmdline.Client{Dir: dir, Lookup: os.LookupEnv, ReadFile: os.ReadFile, DetachKeys: configuredKeys}
}

func setupRun(fs *pflag.FlagSet) action {
	o := cmdline.RunFlags(fs, true)
	return func(c *Client, args []string) error {
		r, err := o.Resolve(args, here())
		if err != nil {
			return err
		}
		if err := c.checkTTY(r.Ask.TTY, r.Attach.Stdin); err != nil {
			return err
		}
		if err := freshCIDFile(r.CIDFile); err != nil {
			return err
		}
		r.Ask.ConsoleSize = c.consoleSize()
		if r.DryRun {
			return c.dryRun(r)
		}
		return c.withImage(r, func(a ask.Container) error { return c.launch(r, a) })
	}
}

// launch runs the container and stays with it.
func (c *Client) launch(r cmdline.Run, a ask.Container) error {
	body, err := json.Marshal(wire.RunCall{Container: wire.PackContainer(a), Attach: wire.Attached(r.Attach), Trace: r.Trace, Wait: !r.Detach})
	if err != nil {
		return fault.Wrap(fault.Internal, "encode request", "", err, "")
	}
	call := &fast.Call{Detach: r.Detach, SigProxy: r.SigProxy, Quiet: r.Quiet}
	call.Started = func(s wire.StartedBody) {
		if r.CIDFile != "" {
			if err := os.WriteFile(r.CIDFile, []byte(s.ID), 0o644); err != nil {
				fmt.Fprintln(c.Err, "fief: cannot write the container ID: "+err.Error())
			}
		}
		trace(c, s.Trace)
	}
	return c.stay(call, wire.Run, body, r.Ask.TTY && !r.Detach, r.Attach.Stdin)
}

// trace prints the doorways of a start.
func trace(c *Client, stages []wire.Stage) {
	last := int64(0)
	for _, s := range stages {
		at := s.At.Microseconds()
		fmt.Fprintf(c.Err, "trace: %7d µs  +%6d  %s\n", at, at-last, s.Name)
		last = at
	}
}

// stay carries out a call that connects the client with a process, and turns
// the process's exit status into fief's.
func (c *Client) stay(call *fast.Call, verb wire.Verb, body []byte, tty, stdin bool) error {
	conn, err := Connect(c.Socket)
	if err != nil {
		return err
	}
	call.Conn, call.TTY = conn, tty
	call.Redial = func() (*wire.Conn, error) { return Reconnect(c.Socket) }
	if tty {
		t, err := c.takeTerminal(stdin)
		if err != nil {
			conn.Close()
			return err
		}
		defer t.restore()
		call.Size = t.sizes
	}
	code, err := call.Follow(verb, body)
	if err != nil || code == 0 {
		return err
	}
	return status(code)
}

// withImage creates by create, and pulls the image first when the policy says
// so. The daemon itself never pulls for a container: nobody would see it.
func (c *Client) withImage(r cmdline.Run, create func(ask.Container) error) error {
	policy, a := r.Ask.Pull, r.Ask
	a.Pull = ask.PullNever
	if policy == ask.PullAlways || policy == ask.PullNewer {
		pulled := c.pull(ask.PullImage{Name: a.Image, Platform: a.Platform}, r.Quiet, c.Err)
		if pulled != nil && policy == ask.PullAlways {
			return pulled
		}
		if pulled != nil {
			return c.withStored(a, pulled, create)
		}
	}
	err := create(a)
	if !fast.MissingImage(err) || policy != ask.PullMissing {
		return err
	}
	if !r.Quiet {
		fmt.Fprintf(c.Err, "Unable to find image '%s' locally\n", tagged(a.Image))
	}
	if err := c.pull(ask.PullImage{Name: a.Image, Platform: a.Platform}, r.Quiet, c.Err); err != nil {
		return err
	}
	return create(a)
}

// withStored creates with the image as it is stored, where one is: who asks for
// a newer one takes the old one too.
func (c *Client) withStored(a ask.Container, pulled error, create func(ask.Container) error) error {
	fmt.Fprintf(c.Err, "No newer image can be had: %v\n", pulled)
	if err := create(a); !fast.MissingImage(err) {
		return err
	}
	return pulled
}

// tagged adds the tag that a name without one means.
func tagged(name string) string {
	if strings.Contains(name, "@") || strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, '/') {
		return name
	}
	return name + ":latest"
}

func (c *Client) dryRun(r cmdline.Run) error {
	return c.withImage(r, func(a ask.Container) error {
		var plan string
		if err := c.call(wire.Plan, wire.PackContainer(a), &plan); err != nil {
			return err
		}
		fmt.Fprintln(c.Out, strings.TrimRight(plan, "\n"))
		return nil
	})
}

func freshCIDFile(name string) error {
	if name == "" {
		return nil
	}
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	f := fault.Say(fault.Invalid, "container ID file found, make sure the other container isn't running or delete "+name)
	f.ExitCode = 125
	return f
}

func setupCreate(fs *pflag.FlagSet) action {
	o := cmdline.RunFlags(fs, false)
	return func(c *Client, args []string) error {
		r, err := o.Resolve(args, here())
		if err != nil {
			return err
		}
		if err := freshCIDFile(r.CIDFile); err != nil {
			return err
		}
		return c.withImage(r, func(a ask.Container) error { return c.create(r, a) })
	}
}

func (c *Client) create(r cmdline.Run, a ask.Container) error {
	var made wire.CreatedReply
	if err := c.call(wire.Create, wire.PackContainer(a), &made); err != nil {
		return err
	}
	for _, w := range made.Warnings {
		if !r.Quiet {
			fmt.Fprintln(c.Err, "WARNING: "+w)
		}
	}
	fmt.Fprintln(c.Out, made.ID)
	if r.CIDFile == "" {
		return nil
	}
	return fault.Wrap(fault.Internal, "write the container ID to", r.CIDFile, os.WriteFile(r.CIDFile, []byte(made.ID), 0o644), "")
}
