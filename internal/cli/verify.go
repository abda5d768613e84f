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
room for the largest. Images can be pulled, run and removed meanwhile. What is
damaged is noted: an image with a damaged layer is not run until it is repaired,
and what is damaged is fetched again by the next pull or load of the image.

With --repair damaged layers are made anew from their blobs, and orphans, which
no image needs, are removed; without it, the daemon removes these when it starts
the next time. Containers that run on a damaged layer go on with it until they
are started again. What has no sound blob has to be pulled or loaded again: the
output says what. The exit status is 1 when something is damaged and was not
repaired.

  fief system verify
  fief system verify --repair
  fief system verify --format json`

func setupVerify(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	asJSON := jsonFlag(fs, format)
	repair := fs.Bool("repair", false, "Make damaged layers anew from their blobs and remove orphans")
	quiet := fs.BoolP("quiet", "q", false, "Suppress progress")
	return func(c *Client, args []string) error {
		asJSON()
		var v record.Verification
		bars := newBars(c.Err, *quiet || *format != "")
		err := c.watch(wire.Verify, wire.Look{Repair: *repair}, &v, bars.message)
		bars.end()
		if err != nil {
			return err
		}
		if *format != "" {
			err = show.Object(c.Out, *format, v)
		} else {
			writeVerification(c.Out, v)
		}
		if err == nil && damaged(v) > 0 {
			return status(1)
		}
		return err
	}
}

// damaged counts the problems that were not repaired.
func damaged(v record.Verification) (n int) {
	for _, p := range v.Problems {
		if !p.Repaired {
			n++
		}
	}
	return n
}

func writeVerification(w io.Writer, v record.Verification) {
	for _, p := range v.Problems {
		word := "damaged"
		if p.Repaired {
			word = "repaired"
		}
		of := ""
		if len(p.Images) > 0 && p.Kind != "image" {
			of = " of " + strings.Join(p.Images, ", ")
		}
		fmt.Fprintf(w, "%s: %s %s%s: %s\n", word, p.Kind, p.Object, of, p.What)
		if p.Advice != "" {
			fmt.Fprintf(w, "         to repair it: %s\n", p.Advice)
		}
	}
	for _, o := range v.Orphans {
		word := "orphan"
		if o.Removed {
			word = "removed"
		}
		fmt.Fprintf(w, "%s: %s %s\n", word, o.Kind, o.Name)
	}
	fmt.Fprintf(w, "%d images, %d blobs (%s), %d layers: ", v.Images, v.Blobs, units.HumanSize(float64(v.Bytes)), v.Layers)
	if len(v.Problems) == 0 {
		fmt.Fprintln(w, "all as they must be")
		return
	}
	fmt.Fprintf(w, "%d problems, %d of them repaired\n", len(v.Problems), len(v.Problems)-damaged(v))
}
