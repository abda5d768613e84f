package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/record"
)

const verifyLong = `Reads every blob and compares its digest, reads every image's manifest and
config, and compares every file of every unpacked layer, its content, owner,
mode, times and attributes, with what the layer's blob unpacks to now. For that
one layer at a time is unpacked once more beside the others: the disk must have
room for the largest. Nothing is changed. The exit status is 1 when something is
damaged.

An orphan is what no image needs. It is no damage: the daemon removes it when it
starts the next time.

  fief system verify
  fief system verify --json`

func setupVerify(fs *pflag.FlagSet) action {
	asJSON := fs.Bool("json", false, "Print JSON")
	quiet := fs.BoolP("quiet", "q", false, "Suppress progress")
	return func(c *Client, args []string) error {
		var v record.Verification
		bars := newBars(c.Err, *quiet || *asJSON)
		err := c.watch(wire.Verify, struct{}{}, &v, bars.message)
		bars.end()
		if err != nil {
			return err
		}
		if *asJSON {
			err = show.Object(c.Out, "json", v)
		} else {
			writeVerification(c.Out, v)
		}
		if err == nil && len(v.Problems) > 0 {
			return status(1)
		}
		return err
	}
}

func writeVerification(w io.Writer, v record.Verification) {
	for _, p := range v.Problems {
		of := ""
		if len(p.Images) > 0 && p.Kind != "image" {
			of = " of " + strings.Join(p.Images, ", ")
		}
		fmt.Fprintf(w, "damaged: %s %s%s: %s\n", p.Kind, p.Object, of, p.What)
	}
	for _, o := range v.Orphans {
		fmt.Fprintf(w, "orphan: %s %s\n", o.Kind, o.Name)
	}
	fmt.Fprintf(w, "%d images, %d blobs (%s), %d layers: ", v.Images, v.Blobs, units.HumanSize(float64(v.Bytes)), v.Layers)
	if len(v.Problems) == 0 {
		fmt.Fprintln(w, "all as they must be")
		return
	}
	fmt.Fprintf(w, "%d problems\n", len(v.Problems))
}
