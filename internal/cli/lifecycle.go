package cli

import (
	"errors"

	"github.com/spf13/pflag"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func lifecycleCommands() []Command {
	const many = "CONTAINER [CONTAINER...]"
	return []Command{
		{Name: "stop", Use: "[OPTIONS] " + many, Short: "Stop one or more running containers", Min: 1, Max: -1, Objects: containers, Setup: stopSetup(wire.Stop)},
		{Name: "kill", Use: "[OPTIONS] " + many, Short: "Kill one or more running containers", Min: 1, Max: -1, Objects: containers, Setup: setupKill},
		{Name: "restart", Use: "[OPTIONS] " + many, Short: "Restart one or more containers", Min: 1, Max: -1, Objects: containers, Setup: stopSetup(wire.Restart)},
		{Name: "wait", Use: many, Short: "Block until one or more containers stop, then print their exit codes", Min: 1, Max: -1, Objects: containers, Setup: setupWait},
		{Name: "rm", Use: "[OPTIONS] " + many, Short: "Remove one or more containers", Min: 1, Max: -1, Objects: containers, Setup: setupRemove},
		{Name: "rename", Use: "CONTAINER NEW_NAME", Short: "Rename a container", Min: 2, Max: 2, Objects: containers, Setup: setupRename},
		{Name: "healthcheck-run", Use: "CONTAINER", Short: "Run the health check of a container", Long: "Exits with 0 when it found the container healthy, else with 1.",
			Min: 1, Max: 1, Objects: containers, Setup: setupHealthcheck},
		{Name: "container-prune", Use: "[OPTIONS]", Short: "Remove all stopped containers", Setup: setupPrune},
	}
}

func stopSetup(verb wire.Verb) func(*pflag.FlagSet) action {
	return func(fs *pflag.FlagSet) action {
		signal := fs.StringP("signal", "s", "", "Signal to send to the container")
		timeout := fs.IntP("timeout", "t", 0, "Seconds to wait before killing the container")
		fs.IntVar(timeout, "time", 0, "Seconds to wait before killing the container")
		fs.Lookup("time").Hidden = true
		return func(c *Client, args []string) error {
			s := ask.Stop{Signal: *signal}
			if fs.Changed("timeout") || fs.Changed("time") {
				s.Timeout = timeout
			}
			return c.each(args, func(name string) error { return c.call(verb, wire.StopCall{ID: name, Stop: s}, nil) })
		}
	}
}

func setupKill(fs *pflag.FlagSet) action {
	signal := fs.StringP("signal", "s", "KILL", "Signal to send to the container")
	return func(c *Client, args []string) error {
		return c.each(args, func(name string) error {
			return c.call(wire.Kill, wire.KillCall{ID: name, Signal: *signal}, nil)
		})
	}
}

func setupWait(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		return c.many(args, func(name string) error {
			code, err := c.wait(name)
			if err == nil {
				c.line(code)
			}
			return err
		})
	}
}

// wait waits for the end of a container, also across restarts of the daemon.
func (c *Client) wait(name string) (int, error) {
	connect := Connect
	for {
		conn, err := connect(c.Socket)
		if err != nil {
			return 0, err
		}
		var e record.Exit
		err = conn.Call(wire.Wait, wire.WaitCall{ID: name}, &e, nil)
		conn.Close()
		if !gone(err) {
			return e.Code, err
		}
		connect = Reconnect
	}
}

// gone reports whether a call failed because the daemon went away during it.
func gone(err error) bool {
	var refused *wire.Refusal
	return fault.Is(err, fault.Unavailable) && !errors.As(err, &refused)
}

func setupRemove(fs *pflag.FlagSet) action {
	force := fs.BoolP("force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	volumes := fs.BoolP("volumes", "v", false, "Remove anonymous volumes associated with the container")
	return func(c *Client, args []string) error {
		return c.each(args, func(name string) error {
			err := c.call(wire.Remove, wire.RemoveCall{Name: name, Force: *force, Volumes: *volumes}, nil)
			if *force && fault.Is(err, fault.NotFound) {
				Print(c.Err, err)
				return nil
			}
			return err
		})
	}
}

func setupHealthcheck(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		var r record.HealthResult
		if err := c.call(wire.Healthcheck, wire.Name{Name: args[0]}, &r); err != nil {
			return err
		}
		if r.ExitCode == 0 {
			return nil
		}
		c.line(record.Unhealthy)
		return status(1)
	}
}

func setupRename(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		return c.call(wire.Rename, wire.RenameCall{Old: args[0], New: args[1]}, nil)
	}
}
