package cli

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func volumeCommands() []Command {
	return []Command{
		{Name: "volume-create", Use: "[OPTIONS] [VOLUME]", Short: "Create a volume", Long: volumeLong, Max: 1, Setup: setupVolumeCreate},
		{Name: "volume-ls", Use: "[OPTIONS]", Short: "List volumes", Setup: setupVolumeList},
		{Name: "volume-inspect", Use: "[OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes", Min: 1, Max: -1, Setup: setupVolumeInspect},
		{Name: "volume-rm", Use: "[OPTIONS] VOLUME [VOLUME...]", Short: "Remove one or more volumes. You cannot remove a volume that is in use by a container", Min: 1, Max: -1, Setup: setupVolumeRemove},
		{Name: "volume-prune", Use: "[OPTIONS]", Short: "Remove unused local volumes", Setup: setupVolumePrune},
	}
}

const volumeLong = `A volume is shown to every container with that container's own ids: what uid 999
writes in one belongs to uid 999 in all of them, whatever their ranges on the host.

Options of the driver mount something in the volume's place, from the first container
that uses it to the end of the last one:

  fief volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=100m scratch
  fief volume create --opt type=none --opt o=bind --opt device=/srv/data data
  fief volume create --opt type=nfs --opt o=addr=10.0.0.1,rw,nfsvers=4 --opt device=:/export shared

Without them a size is a quota, where the data root is on xfs or ext4 with project quotas:

  fief volume create --opt size=10g data`

func setupVolumeCreate(fs *pflag.FlagSet) action {
	driver := fs.StringP("driver", "d", ask.LocalDriver, "Specify volume driver name")
	labels := fs.StringArrayP("label", "l", nil, "Set metadata for a volume")
	options := fs.StringArrayP("opt", "o", nil, "Set driver specific options")
	name := fs.String("name", "", "Specify volume name")
	fs.Lookup("name").Hidden = true
	return func(c *Client, args []string) error {
		want := ask.CreateVolume{Name: *name, Driver: *driver}
		var err error
		if want.Labels, err = pairs("volume create", "--label", *labels); err != nil {
			return err
		}
		if want.Options, err = pairs("volume create", "--opt", *options); err != nil {
			return err
		}
		if len(args) > 0 {
			if *name != "" {
				return fault.Say(fault.Invalid, "conflicting options: cannot specify a volume-name through both --name and as a positional arg")
			}
			want.Name = args[0]
		}
		var v record.Volume
		if err := c.call(wire.VolumeCreate, want, &v); err != nil {
			return err
		}
		c.line(v.Name)
		return nil
	}
}

func setupVolumeList(fs *pflag.FlagSet) action {
	filters := fs.StringArrayP("filter", "f", nil, `Provide filter values (e.g. "dangling=true")`)
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	quiet := fs.BoolP("quiet", "q", false, "Only display volume names")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		list, err := c.volumes(*filters, "dangling", "driver", "label", "name")
		if err != nil {
			return err
		}
		if *quiet {
			*format = "{{.Name}}"
		}
		var rows []show.Volume
		for _, v := range list {
			rows = append(rows, show.VolumeRow(v, -1))
		}
		return show.Write(c.Out, show.VolumeTable(*format), rows)
	}
}

// volumes returns the volumes that fit the filters, of which known are allowed.
func (c *Client) volumes(filters []string, known ...string) ([]record.Volume, error) {
	f, err := parseFilters(filters, known...)
	if err != nil {
		return nil, err
	}
	for _, v := range f["dangling"] {
		if _, err := strconv.ParseBool(v); err != nil {
			return nil, fault.Say(fault.Invalid, "invalid filter 'dangling="+v+"'")
		}
	}
	var all []record.Volume
	if err := c.call(wire.VolumeList, wire.ListCall{Names: f["name"]}, &all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(v record.Volume) bool {
		return !f.any("driver", func(want string) bool { return want == v.Driver }) ||
			!f.any("dangling", func(want string) bool { is, _ := strconv.ParseBool(want); return is == (len(v.Users) == 0) }) ||
			!f.labels("label", v.Labels) || len(f["label!"]) > 0 && f.labels("label!", v.Labels)
	}), nil
}

func setupVolumeInspect(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	return func(c *Client, args []string) error {
		return c.inspectAll(args, *format, func(name string) (any, error) { return c.volume(name) })
	}
}

func (c *Client) volume(name string) (any, error) {
	var v record.Volume
	if err := c.call(wire.VolumeInspect, wire.Name{Name: name}, &v); err != nil {
		return nil, err
	}
	return show.InspectedVolume(v), nil
}

func setupVolumeRemove(fs *pflag.FlagSet) action {
	force := fs.BoolP("force", "f", false, "Force the removal of one or more volumes: a missing one is no failure")
	return func(c *Client, args []string) error {
		return c.each(args, func(name string) error {
			return c.call(wire.VolumeRemove, wire.RemoveCall{Name: name, Force: *force}, nil)
		})
	}
}

func setupVolumePrune(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Remove all unused volumes, not just anonymous ones")
	force := fs.BoolP("force", "f", false, "Do not prompt for confirmation")
	filters := fs.StringArray("filter", nil, `Provide filter values (e.g. "label=<label>")`)
	return func(c *Client, args []string) error {
		everything, rest, err := pruneAll(*all, *filters)
		if err != nil {
			return err
		}
		warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
		if everything {
			warning = "WARNING! This will remove all local volumes not used by at least one container."
		}
		if !*force && !c.confirm(warning) {
			return nil
		}
		freed, err := c.pruneVolumes(everything, rest)
		return c.reclaimed(freed, err)
	}
}

// pruneAll takes the filter all= out of a list, which docker's API has as one.
func pruneAll(all bool, filters []string) (bool, []string, error) {
	var rest []string
	for _, f := range filters {
		value, ok := strings.CutPrefix(f, "all=")
		if !ok {
			rest = append(rest, f)
			continue
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return all, nil, fault.Say(fault.Invalid, "invalid filter 'all="+value+"'")
		}
		all = all || on
	}
	return all, rest, nil
}

// pruneVolumes removes volumes that no container has, those without a name of
// their own or all, and returns how many bytes went with them.
func (c *Client) pruneVolumes(everything bool, filters []string) (freed int64, err error) {
	list, err := c.volumes(filters, "label", "label!")
	if err != nil {
		return 0, err
	}
	var removed []string
	failed := false
	for _, v := range list {
		if len(v.Users) > 0 || !everything && !v.Anonymous {
			continue
		}
		var size int64
		_ = c.call(wire.VolumeSize, wire.Name{Name: v.Name}, &size) // not measured: nothing is claimed as freed
		if err := c.call(wire.VolumeRemove, wire.RemoveCall{Name: v.Name}, nil); err != nil {
			failed = c.left(err) || failed
			continue
		}
		removed, freed = append(removed, v.Name), freed+size
	}
	c.block("Deleted Volumes:", removed)
	return freed, statusOf(failed)
}

// diskVolumes is every volume with what is in it.
func (c *Client) diskVolumes() ([]show.SizedVolume, error) {
	all, err := c.volumes(nil)
	if err != nil {
		return nil, err
	}
	var out []show.SizedVolume
	for _, v := range all {
		size := int64(0)
		err := c.call(wire.VolumeSize, wire.Name{Name: v.Name}, &size)
		if fault.Is(err, fault.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			size = 0
		}
		out = append(out, show.SizedVolume{Volume: v, Size: size})
	}
	return out, nil
}
