package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/record"
)

func setupPs(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Show all containers (default shows just running)")
	filters := fs.StringArrayP("filter", "f", nil, "Filter output based on conditions provided")
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	last := fs.IntP("last", "n", -1, "Show n last created containers (includes all states)")
	latest := fs.BoolP("latest", "l", false, "Show the latest created container (includes all states)")
	noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
	quiet := fs.BoolP("quiet", "q", false, "Only display container IDs")
	size := fs.BoolP("size", "s", false, "Display total file sizes")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		plain, names := nameFilters(*filters)
		var containers []record.Container
		if err := c.call(wire.List, wire.ListCall{Names: names}, &containers); err != nil {
			return err
		}
		if *latest {
			*last = 1
		}
		containers, err := selected(containers, plain, *all, *last)
		if err != nil {
			return err
		}
		if *quiet {
			*format = "{{.ID}}"
		}
		rows, err := c.rows(containers, !*noTrunc, *size)
		if err != nil {
			return err
		}
		return show.Write(c.Out, show.ContainerTable(*format, *size), rows)
	}
}

// nameFilters separates the filters that the daemon carries out.
func nameFilters(filters []string) (others, names []string) {
	for _, f := range filters {
		if name, ok := strings.CutPrefix(f, "name="); ok {
			names = append(names, name)
		} else {
			others = append(others, f)
		}
	}
	return others, names
}

// jsonFlag adds --json, which is short for --format json. The function it
// returns applies it after the parse.
func jsonFlag(fs *pflag.FlagSet, format *string) func() {
	on := fs.Bool("json", false, "Print JSON, one object a line")
	return func() {
		if *on {
			*format = "json"
		}
	}
}

// selected sorts containers, newest first, and leaves those that ps shows.
func selected(all []record.Container, filters []string, everything bool, last int) ([]record.Container, error) {
	slices.SortStableFunc(all, func(a, b record.Container) int { return b.Created.Compare(a.Created) })
	var plain []string
	var before, since time.Time
	for _, f := range filters {
		key, name, _ := strings.Cut(f, "=")
		var err error
		switch key {
		case "before":
			before, err = positions(all, name)
		case "since":
			since, err = positions(all, name)
		default:
			plain = append(plain, f)
		}
		if err != nil {
			return nil, err
		}
	}
	keep, err := containerFilter(plain, time.Now())
	if err != nil {
		return nil, err
	}
	// A filter on states or exit codes asks about stopped containers too.
	asked := slices.ContainsFunc(filters, func(f string) bool {
		return strings.HasPrefix(f, "status=") || strings.HasPrefix(f, "exited=")
	})
	everything = everything || last > 0 || asked
	var out []record.Container
	for _, c := range all {
		visible := everything || c.State.Up()
		if visible && keep(c) && (before.IsZero() || c.Created.Before(before)) && (since.IsZero() || c.Created.After(since)) {
			out = append(out, c)
		}
	}
	if last > 0 && len(out) > last {
		out = out[:last]
	}
	return out, nil
}

func (c *Client) rows(all []record.Container, trunc, size bool) ([]show.Container, error) {
	now := time.Now()
	var rows []show.Container
	for _, r := range all {
		upper, whole := int64(-1), int64(-1)
		if size {
			var s wire.SizeReply
			if err := c.call(wire.Size, wire.Name{Name: r.ID}, &s); err != nil {
				return nil, err
			}
			upper, whole = s.Upper, s.Whole
		}
		rows = append(rows, show.ContainerRow(r, trunc, now, upper, whole))
	}
	return rows, nil
}
