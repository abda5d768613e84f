package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func lookCommands() []Command {
	return []Command{
		{Name: "ps", Use: "[OPTIONS]", Short: "List containers", Setup: setupPs},
		{Name: "logs", Use: "[OPTIONS] CONTAINER", Short: "Fetch the logs of a container", Min: 1, Max: 1, Objects: containers, Setup: setupLogs},
		{Name: "inspect", Use: "[OPTIONS] NAME|ID [NAME|ID...]", Short: "Return low-level information on containers and images",
			Min: 1, Max: -1, Objects: containersOrImages, Setup: setupInspect},
		{Name: "top", Use: "[OPTIONS] CONTAINER [ps OPTIONS | DESCRIPTOR...]", Short: "Display the running processes of a container", Long: topLong,
			Min: 1, Max: -1, Inside: true, Objects: containers, Setup: setupTop},
		{Name: "events", Use: "[OPTIONS]", Short: "Get real time events from the server", Setup: setupEvents},
	}
}

func setupInspect(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	kind := fs.String("type", "", "Only inspect objects of the given type (\"container\", \"image\", \"volume\")")
	fs.BoolP("size", "s", false, "Display total file sizes if the type is container")
	fs.Lookup("size").Hidden = true
	return func(c *Client, args []string) error {
		if *kind != "" && *kind != "container" && *kind != "image" && *kind != "volume" {
			return fault.Say(fault.Invalid, "\""+*kind+"\" is not a valid value for --type")
		}
		return c.inspectAll(args, *format, func(name string) (any, error) { return c.object(name, *kind) })
	}
}

// inspectAll shows what can be found, then says what could not.
func (c *Client) inspectAll(names []string, format string, find func(string) (any, error)) error {
	objects := []any{}
	var failures []error
	for _, n := range names {
		o, err := find(n)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		objects = append(objects, o)
	}
	if err := show.Objects(c.Out, format, objects); err != nil {
		return err
	}
	for _, err := range failures {
		if fault.Is(err, fault.NotFound) {
			fmt.Fprintln(c.Err, "Error: "+err.Error())
			continue
		}
		Print(c.Err, err)
	}
	if len(failures) > 0 {
		return status(1)
	}
	return nil
}

// object finds a container, an image, or a volume of that name.
func (c *Client) object(name, kind string) (any, error) {
	if kind == "volume" {
		return c.volume(name)
	}
	if kind != "image" {
		r, err := c.inspect(name)
		if err == nil {
			return show.Inspected(r), nil
		}
		if kind == "container" || !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	o, err := c.image(name, "")
	if kind == "" && fault.Is(err, fault.NotFound) {
		if v, err := c.volume(name); err == nil {
			return v, nil
		}
		return nil, fault.Say(fault.NotFound, "No such object: "+name)
	}
	return o, err
}

func (c *Client) image(name, platform string) (any, error) {
	var i record.Image
	if err := c.call(wire.Image, wire.ImageCall{Name: name, Platform: platform}, &i); err != nil {
		return nil, err
	}
	return show.InspectedImage(i), nil
}

const topLong = `Without more words, and with options of ps, this is what the host's ps says: host
ids and host pids. With descriptors, which podman has too, each column is either
as the container sees it or, with an h in front, as the host does:

  user ruser group rgroup groups pid ppid pgid     inside
  huser hgroup hgroups hpid                        outside
  comm args time etime pcpu tty state nice vsz rss
  capeff capprm capbnd capinh capamb seccomp
  userns pidns netns mntns ipcns utsns cgroupns    numbers of the namespaces

  fief top web user huser pid hpid comm`

func setupTop(fs *pflag.FlagSet) action {
	asJSON := fs.Bool("json", false, "Print the titles and the processes as one JSON object")
	return func(c *Client, args []string) error {
		var t record.Top
		if err := c.call(wire.Top, wire.TopCall{ID: args[0], PsArgs: args[1:]}, &t); err != nil {
			return err
		}
		if *asJSON {
			return show.Object(c.Out, "json", t)
		}
		w := tabwriter.NewWriter(c.Out, 20, 1, 3, ' ', 0)
		for _, row := range append([][]string{t.Titles}, t.Processes...) {
			for _, cell := range row {
				fmt.Fprint(w, cell+"\t")
			}
			fmt.Fprintln(w)
		}
		return w.Flush()
	}
}

func setupEvents(fs *pflag.FlagSet) action {
	format := fs.String("format", "", "Format output using a Go TEMPLATE, or 'json'")
	filters := fs.StringArrayP("filter", "f", nil, "Filter output based on conditions provided (type, event, container, image, network, volume)")
	since := fs.String("since", "", "Show all events created since timestamp")
	until := fs.String("until", "", "Stream events until this timestamp")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		var call ask.Events
		now := time.Now()
		for _, end := range []struct {
			given string
			to    *time.Time
		}{{*since, &call.Since}, {*until, &call.Until}} {
			if end.given == "" {
				continue
			}
			t, err := parseTime(end.given, now)
			if err != nil {
				return err
			}
			*end.to = t
		}
		f, err := parseFilters(*filters, "type", "event", "container", "image", "network", "volume")
		if err != nil {
			return err
		}
		return c.watch(wire.Events, call, nil, func(m wire.Message) error {
			if m.Kind != wire.Event {
				return nil
			}
			return c.event(m.Body, f, *format)
		})
	}
}

func (c *Client) event(body []byte, f filterSet, format string) error {
	e, err := show.ParseEvent(body)
	if err != nil {
		return err
	}
	fits := f.any("type", func(v string) bool { return v == e.Type }) &&
		f.any("event", func(v string) bool { return v == e.Action }) &&
		f.any("container", func(v string) bool { return e.Type == "container" && (v == e.ID || v == e.Attrs["name"]) }) &&
		f.any("image", func(v string) bool { return v == e.Attrs["image"] || e.Type == "image" && v == e.ID }) &&
		f.any("network", func(v string) bool { return e.Type == "network" && (v == e.ID || v == e.Attrs["name"]) }) &&
		f.any("volume", func(v string) bool { return e.Type == "volume" && v == e.ID })
	if !fits {
		return nil
	}
	if format == "" {
		_, err := fmt.Fprintln(c.Out, show.EventLine(e, time.Local))
		return err
	}
	return show.Object(c.Out, format, show.DockerEvent(e))
}
