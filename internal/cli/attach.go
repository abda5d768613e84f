package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"fief/internal/cli/fast"
	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func setupExec(fs *pflag.FlagSet) action {
	o := cmdline.ExecFlags(fs)
	return func(c *Client, args []string) error {
		e, err := o.Resolve(args, here())
		if err != nil {
			return err
		}
		if err := c.checkTTY(e.Ask.TTY, e.Attach.Stdin); err != nil {
			return err
		}
		e.Ask.ConsoleSize = c.consoleSize()
		body, err := json.Marshal(wire.ExecCall{ID: e.Container, Exec: e.Ask, Attach: wire.Attached(e.Attach), Wait: !e.Detach})
		if err != nil {
			return fault.Wrap(fault.Internal, "encode request", "", err, "")
		}
		return c.stay(&fast.Call{Exec: true, Detach: e.Detach, SigProxy: true}, wire.Exec, body, e.Ask.TTY && !e.Detach, e.Attach.Stdin)
	}
}

func setupAttach(fs *pflag.FlagSet) action {
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	noStdin := fs.Bool("no-stdin", false, "Do not attach STDIN")
	proxy := fs.Bool("sig-proxy", true, "Proxy all received signals to the process")
	return func(c *Client, args []string) error {
		r, err := c.inspect(args[0])
		if err != nil {
			return err
		}
		if r.State.Status != record.Running {
			return fault.Say(fault.Conflict, "You cannot attach to a stopped container, start the container first")
		}
		return c.join(r, wire.Attach, !*noStdin, *keys, *proxy)
	}
}

// join connects the client with a container that exists, by the verb Attach or
// StartAttached.
func (c *Client) join(r record.Container, verb wire.Verb, stdin bool, keys string, proxy bool) error {
	if keys == "" && r.TTY {
		keys = configuredKeys()
	}
	detach, err := cmdline.ParseDetachKeys(keys)
	if err != nil {
		return err
	}
	stdin = stdin && r.OpenStdin
	if err := c.checkTTY(r.TTY, stdin); err != nil {
		return err
	}
	body, err := json.Marshal(wire.AttachCall{ID: r.ID, Attach: wire.Attached{Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: detach}})
	if err != nil {
		return fault.Wrap(fault.Internal, "encode request", "", err, "")
	}
	call := &fast.Call{SigProxy: proxy}
	if r.TTY {
		size := c.consoleSize()
		call.First = &size
	}
	return c.stay(call, verb, body, r.TTY, stdin)
}

func setupStart(fs *pflag.FlagSet) action {
	attach := fs.BoolP("attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	interactive := fs.BoolP("interactive", "i", false, "Attach container's STDIN")
	keys := fs.String("detach-keys", "", "Override the key sequence for detaching a container")
	return func(c *Client, args []string) error {
		if !*attach && !*interactive {
			return c.each(args, func(name string) error { return c.call(wire.Start, wire.Name{Name: name}, nil) })
		}
		if len(args) > 1 {
			return fault.Say(fault.Invalid, "you cannot start and attach multiple containers at once")
		}
		r, err := c.inspect(args[0])
		if err != nil {
			return err
		}
		if r.State.Status == record.Running {
			return c.join(r, wire.Attach, *interactive, *keys, true)
		}
		return c.join(r, wire.StartAttached, *interactive, *keys, true)
	}
}

func (c *Client) inspect(name string) (record.Container, error) {
	var r record.Container
	err := c.call(wire.Inspect, wire.Name{Name: name}, &r)
	return r, err
}

func (c *Client) list() ([]record.Container, error) {
	var all []record.Container
	err := c.call(wire.List, struct{}{}, &all)
	return all, err
}

// many runs do on every name and prints only failures.
func (c *Client) many(names []string, do func(name string) error) error {
	failed := false
	for _, n := range names {
		if err := do(n); err != nil {
			Print(c.Err, err)
			failed = true
		}
	}
	if failed {
		return status(1)
	}
	return nil
}

func (c *Client) line(a ...any) { fmt.Fprintln(c.Out, a...) }
