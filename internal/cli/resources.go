package cli

import (
	"bytes"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func resourceCommands() []Command {
	const many = "CONTAINER [CONTAINER...]"
	return []Command{
		{Name: "stats", Use: "[OPTIONS] [CONTAINER...]", Short: "Display a live stream of container(s) resource usage statistics", Max: -1, Objects: containers, Setup: setupStats},
		{Name: "pause", Use: many, Short: "Pause all processes within one or more containers", Min: 1, Max: -1, Objects: containers, Setup: pauseSetup(wire.Pause)},
		{Name: "unpause", Use: many, Short: "Unpause all processes within one or more containers", Min: 1, Max: -1, Objects: containers, Setup: pauseSetup(wire.Unpause)},
	}
}

func pauseSetup(v wire.Verb) func(*pflag.FlagSet) action {
	return func(*pflag.FlagSet) action {
		return func(c *Client, args []string) error {
			return c.each(args, func(name string) error { return c.call(v, wire.Name{Name: name}, nil) })
		}
	}
}

// statsEvery is the time between two rows of a container.
const statsEvery = time.Second

func setupStats(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Show all containers (default shows just running)")
	once := fs.Bool("no-stream", false, "Disable streaming stats and only pull the first result")
	noTrunc := fs.Bool("no-trunc", false, "Do not truncate output")
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		before := map[string]record.Stats{}
		if _, err := c.samples(args, *all, before); err != nil {
			return err
		}
		for {
			time.Sleep(statsEvery)
			last := map[string]record.Stats{}
			for k, v := range before {
				last[k] = v
			}
			list, err := c.samples(args, *all, before)
			if err != nil {
				return err
			}
			var rows []show.Stats
			for _, s := range list {
				rows = append(rows, show.StatsRow(s.asked, s.Stats, last[s.ID], !*noTrunc))
			}
			if err := c.statsTable(*format, rows, !*once); err != nil || *once {
				return err
			}
		}
	}
}

// statsTable draws over what was drawn before when it will be drawn again, and in
// one write, so that it does not flicker.
func (c *Client) statsTable(format string, rows []show.Stats, again bool) error {
	var text bytes.Buffer
	if again && (format == "" || format == "table") {
		text.WriteString("\033[2J\033[H")
	}
	if err := show.Write(&text, show.StatsTable(format), rows); err != nil {
		return err
	}
	_, err := c.Out.Write(text.Bytes())
	return err
}

type sample struct {
	asked string
	record.Stats
}

// samples asks for what containers use and notes it: of those named, of all, or
// of those that run. One that has gone is left out unless it was named.
func (c *Client) samples(names []string, all bool, note map[string]record.Stats) (out []sample, err error) {
	wanted := names
	if len(names) == 0 {
		var list []record.Container
		if err := c.call(wire.List, wire.ListCall{}, &list); err != nil {
			return nil, err
		}
		for _, r := range list {
			if all || r.State.Status == record.Running {
				wanted = append(wanted, r.ID)
			}
		}
	}
	for _, name := range wanted {
		var s record.Stats
		err := c.call(wire.Stats, wire.Name{Name: name}, &s)
		if fault.Is(err, fault.NotFound) && len(names) == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		note[s.ID] = s
		out = append(out, sample{name, s})
	}
	return out, nil
}

// updateResources changes the limits of one container.
func (c *Client) updateResources(name string, r record.Resources) error {
	var warnings []string
	err := c.call(wire.UpdateResources, wire.ResourcesCall{ID: name, Resources: r}, &warnings)
	for _, w := range warnings {
		fmt.Fprintln(c.Err, "WARNING: "+w)
	}
	return err
}
