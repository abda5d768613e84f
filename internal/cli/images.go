package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func imageCommands() []Command {
	return []Command{
		{Name: "pull", Use: "[OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry", Min: 1, Max: 1, Objects: images, Setup: setupPull},
		{Name: "load", Use: "[OPTIONS]", Short: "Load an image from a tar archive, an OCI layout directory or STDIN", Setup: setupLoad},
		{Name: "save", Use: "[OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)", Long: saveLong,
			Min: 1, Max: -1, Objects: images, Setup: setupSave},
		{Name: "import", Use: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Short: "Import the contents from a tarball to create a filesystem image",
			Min: 1, Max: 2, Objects: files, Setup: setupImport},
		{Name: "images", Use: "[OPTIONS] [REPOSITORY[:TAG]]", Short: "List images", Max: 1, Objects: images, Setup: setupImages},
		{Name: "rmi", Use: "[OPTIONS] IMAGE [IMAGE...]", Short: "Remove one or more images", Min: 1, Max: -1, Objects: images, Setup: setupRmi},
		{Name: "tag", Use: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
			Min: 2, Max: 2, Objects: images, Setup: setupTag},
		{Name: "history", Use: "[OPTIONS] IMAGE", Short: "Show the history of an image", Min: 1, Max: 1, Objects: images, Setup: setupHistory},
		{Name: "image-inspect", Use: "[OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images",
			Min: 1, Max: -1, Objects: images, Setup: setupImageInspect},
		{Name: "image-prune", Use: "[OPTIONS]", Short: "Remove unused images", Setup: setupImagePrune},
	}
}

func setupPull(fs *pflag.FlagSet) action {
	all := fs.BoolP("all-tags", "a", false, "Download all tagged images in the repository")
	platform := fs.String("platform", "", "Set platform if server is multi-platform capable")
	quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
	return func(c *Client, args []string) error {
		return c.pull(ask.PullImage{Name: args[0], Platform: *platform, All: *all}, *quiet, c.Out)
	}
}

// pull fetches an image, shows its progress on w and says its whole name.
func (c *Client) pull(p ask.PullImage, quiet bool, w fileWriter) error {
	if p.All && tagged(p.Name) == p.Name {
		return errTagAndAll
	}
	auth, err := credentials(p.Name)
	if err != nil {
		return err
	}
	p.Auth = auth
	if !quiet && !p.All && tagged(p.Name) != p.Name {
		fmt.Fprintln(w, "Using default tag: latest")
	}
	var i record.Image
	bars := newBars(w, quiet)
	err = c.watch(wire.Pull, p, &i, bars.message)
	bars.end()
	if err != nil {
		return err
	}
	if p.All {
		fmt.Fprintln(w, wholeReference(p.Name))
		return nil
	}
	fmt.Fprintln(w, wholeName(i, p.Name))
	return nil
}

// wholeName is the canonical name under which an image was pulled.
func wholeName(i record.Image, asked string) string {
	for _, n := range i.Names {
		if n == asked || show.Familiar(n) == tagged(asked) || n == tagged(asked) {
			return n
		}
	}
	return tagged(asked)
}

func setupLoad(fs *pflag.FlagSet) action {
	input := fs.StringP("input", "i", "", "Read from a tar archive file or an OCI layout directory, instead of STDIN")
	quiet := fs.BoolP("quiet", "q", false, "Suppress the load output")
	platforms := platformFlags(fs, "Load")
	return func(c *Client, args []string) error {
		want := ask.LoadImages{Platforms: *platforms}
		if st, err := os.Stat(*input); *input != "" && err == nil && st.IsDir() {
			dir, err := filepath.Abs(*input)
			if err != nil {
				return fault.Wrap(fault.Invalid, "find", *input, err, "")
			}
			return c.load(wire.LoadLayout, wire.LayoutCall{Name: dir, LoadImages: want}, *quiet)
		}
		f, err := c.source(*input, "load")
		if err != nil {
			return err
		}
		defer f.Close()
		return c.load(wire.Load, want, *quiet, int(f.Fd()))
	}
}

// load says what was loaded in docker's words, which come with the progress,
// also when it is to be quiet.
func (c *Client) load(verb wire.Verb, request any, quiet bool, fds ...int) error {
	bars := newBars(c.Out, quiet)
	loud := bars
	if quiet {
		loud = newBars(c.Out, false)
	}
	err := c.watch(verb, request, nil, func(m wire.Message) error {
		var p record.Progress
		if m.Kind == wire.Progress && json.Unmarshal(m.Body, &p) == nil && strings.HasPrefix(p.Status, "Loaded image") {
			return loud.message(m)
		}
		return bars.message(m)
	}, fds...)
	bars.end()
	return err
}

// source opens an archive; empty and "-" are stdin, which must not be a
// terminal. The caller closes it.
func (c *Client) source(name, verb string) (*os.File, error) {
	if name == "" || name == "-" {
		if term.IsTerminal(int(c.In.Fd())) {
			return nil, fault.Say(fault.Invalid, "requested "+verb+" from stdin, but stdin is empty")
		}
		return c.In, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.Say(fault.NotFound, err.Error())
	}
	return f, nil
}

func setupImport(fs *pflag.FlagSet) action {
	changes := fs.StringArrayP("change", "c", nil, "Apply Dockerfile instruction to the created image")
	message := fs.StringP("message", "m", "", "Set commit message for imported image")
	platform := fs.String("platform", "", "Set platform if server is multi-platform capable")
	return func(c *Client, args []string) error {
		i := ask.ImportImage{Message: *message, Changes: *changes, Platform: *platform}
		if len(args) == 2 {
			i.Name = args[1]
		}
		var fds []int
		if strings.Contains(args[0], "://") {
			i.Source = args[0]
		} else {
			f, err := c.source(args[0], "import")
			if err != nil {
				return err
			}
			defer f.Close()
			fds = []int{int(f.Fd())}
		}
		var made record.Image
		if err := c.watch(wire.Import, i, &made, nil, fds...); err != nil {
			return err
		}
		c.line(made.ID)
		return nil
	}
}

func setupImages(fs *pflag.FlagSet) action {
	fs.BoolP("all", "a", false, "Show all images (default hides intermediate images)")
	digests := fs.Bool("digests", false, "Show digests")
	filters := fs.StringArrayP("filter", "f", nil, "Filter output based on conditions provided")
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
	quiet := fs.BoolP("quiet", "q", false, "Only show image IDs")
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		keep, err := c.imageFilter(*filters, strings.Join(args, ""), time.Now())
		if err != nil {
			return err
		}
		all, err := c.images()
		if err != nil {
			return err
		}
		if *quiet {
			*format = "{{.ID}}"
		}
		return c.printImages(all, keep, !*noTrunc, show.ImageTable(*format, *digests))
	}
}

func (c *Client) printImages(all []record.Image, keep func(*record.Image) bool, trunc bool, t show.Table) error {
	var rows []show.Image
	for _, i := range all {
		if !keep(&i) {
			continue
		}
		rows = append(rows, show.ImageRows(i, trunc, time.Now())...)
	}
	return show.Write(c.Out, t, rows)
}

// images returns the images, newest first.
func (c *Client) images() ([]record.Image, error) {
	var all []record.Image
	err := c.call(wire.Images, struct{}{}, &all)
	slices.SortStableFunc(all, func(a, b record.Image) int { return b.Created.Compare(a.Created) })
	return all, err
}

func setupRmi(fs *pflag.FlagSet) action {
	force := fs.BoolP("force", "f", false, "Force removal of the image")
	fs.Bool("no-prune", false, "Do not delete untagged parents: an image has none here")
	return func(c *Client, args []string) error {
		return c.many(args, func(name string) error {
			var gone []record.Removed
			err := c.call(wire.RemoveImage, wire.RemoveCall{Name: name, Force: *force}, &gone)
			c.removed(gone)
			if *force && fault.Is(err, fault.NotFound) {
				Print(c.Err, err)
				return nil
			}
			return err
		})
	}
}

func (c *Client) removed(gone []record.Removed) {
	for _, r := range gone {
		if r.Untagged != "" {
			c.line("Untagged: " + show.Familiar(r.Untagged))
		}
		if r.Deleted != "" {
			c.line("Deleted: " + r.Deleted)
		}
	}
}

func setupTag(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		return c.call(wire.Tag, wire.RenameCall{Old: args[0], New: args[1]}, nil)
	}
}

func setupHistory(fs *pflag.FlagSet) action {
	format := fs.String("format", "", "Format output: 'table', 'table TEMPLATE', 'json', or a Go TEMPLATE")
	human := fs.BoolP("human", "H", true, "Print sizes and dates in human readable format")
	noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
	quiet := fs.BoolP("quiet", "q", false, "Only show image IDs")
	platform := platformFlag(fs)
	asJSON := jsonFlag(fs, format)
	return func(c *Client, args []string) error {
		asJSON()
		var i record.Image
		if err := c.call(wire.Image, wire.ImageCall{Name: args[0], Platform: *platform}, &i); err != nil {
			return err
		}
		if *quiet {
			*format = "{{.ID}}"
		}
		return show.Write(c.Out, show.HistoryTable(*format), show.HistoryRows(i, !*noTrunc, *human, time.Now()))
	}
}

func setupImageInspect(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	platform := platformFlag(fs)
	return func(c *Client, args []string) error {
		return c.inspectAll(args, *format, func(name string) (any, error) { return c.image(name, *platform) })
	}
}

// platformFlag is the flag of what looks at an image.
func platformFlag(fs *pflag.FlagSet) *string {
	return fs.String("platform", "", `Look at the image of this platform, formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
}
