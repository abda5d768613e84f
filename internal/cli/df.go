package cli

import (
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func setupDF(fs *pflag.FlagSet) action {
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	verbose := fs.BoolP("verbose", "v", false, "Show detailed information on space usage")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		d, err := c.disk()
		if err != nil {
			return err
		}
		if *verbose {
			return d.Verbose(c.Out, *format, time.Now())
		}
		return show.Write(c.Out, show.DiskTable(*format), d.Rows())
	}
}

// disk asks the daemon for everything that takes space, and measures it.
func (c *Client) disk() (show.Disk, error) {
	var d show.Disk
	var err error
	if d.Images, err = c.images(); err != nil {
		return d, err
	}
	all, err := c.list()
	if err != nil {
		return d, err
	}
	for _, r := range all {
		var size wire.SizeReply
		err := c.call(wire.Size, wire.Name{Name: r.ID}, &size)
		if fault.Is(err, fault.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return d, err
		}
		d.Containers = append(d.Containers, show.Sized{Container: r, Upper: size.Upper})
	}
	d.Usage = record.Measure(d.Images)
	d.Volumes, err = c.diskVolumes()
	return d, err
}
