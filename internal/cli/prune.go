package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// pruneFlags are what every prune takes.
type pruneFlags struct {
	force   *bool
	filters *[]string
}

func newPruneFlags(fs *pflag.FlagSet) pruneFlags {
	return pruneFlags{
		force:   fs.BoolP("force", "f", false, "Do not prompt for confirmation"),
		filters: fs.StringArray("filter", nil, "Provide filter values (e.g. \"until=24h\", \"label=key\")"),
	}
}

// only refuses filters that a prune does not take.
func (p pruneFlags) only() error {
	_, err := parseFilters(*p.filters, "label", "label!", "until")
	return err
}

func setupPrune(fs *pflag.FlagSet) action {
	flags := newPruneFlags(fs)
	return func(c *Client, args []string) error {
		if err := flags.only(); err != nil {
			return err
		}
		if !*flags.force && !c.confirm("WARNING! This will remove all stopped containers.") {
			return nil
		}
		freed, err := c.pruneContainers(*flags.filters)
		return c.reclaimed(freed, err)
	}
}

func setupImagePrune(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Remove all unused images, not just dangling ones")
	flags := newPruneFlags(fs)
	return func(c *Client, args []string) error {
		if err := flags.only(); err != nil {
			return err
		}
		warning := "WARNING! This will remove all dangling images."
		if *all {
			warning = "WARNING! This will remove all images without at least one container associated to them."
		}
		if !*flags.force && !c.confirm(warning) {
			return nil
		}
		freed, err := c.pruneImages(*all, *flags.filters)
		return c.reclaimed(freed, err)
	}
}

func setupSystemPrune(fs *pflag.FlagSet) action {
	all := fs.BoolP("all", "a", false, "Remove all unused images not just dangling ones")
	volumes := fs.Bool("volumes", false, "Prune anonymous volumes")
	flags := newPruneFlags(fs)
	return func(c *Client, args []string) error {
		if err := flags.only(); err != nil {
			return err
		}
		if *volumes && until(*flags.filters) {
			return fault.Say(fault.Invalid, `The "until" filter is not supported with "--volumes"`)
		}
		if !*flags.force && !c.confirm(systemWarning(*all, *volumes, *flags.filters)) {
			return nil
		}
		containers, err := c.pruneContainers(*flags.filters)
		if err != nil {
			return err
		}
		if err := c.pruneNetworks(*flags.filters); err != nil {
			return c.reclaimed(containers, err)
		}
		var volume int64
		if *volumes {
			if volume, err = c.pruneVolumes(false, *flags.filters); err != nil {
				return err
			}
		}
		images, err := c.pruneImages(*all, *flags.filters)
		return c.reclaimed(containers+volume+images, err)
	}
}

// until reports whether filters have a time, which volumes are not removed by.
func until(filters []string) bool {
	return slices.ContainsFunc(filters, func(f string) bool { return strings.HasPrefix(f, "until=") })
}

func systemWarning(all, volumes bool, filters []string) string {
	images := "all dangling images"
	if all {
		images = "all images without at least one container associated to them"
	}
	text := "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
	if volumes {
		text += "  - all anonymous volumes not used by at least one container\n"
	}
	text += "  - " + images + "\n"
	if len(filters) > 0 {
		text += "\n  Items to be pruned will be filtered with:\n"
		for _, f := range filters {
			text += "  - " + f + "\n"
		}
	}
	return text
}

// reclaimed says what a prune has freed, also when it could not free all, and
// returns its error.
func (c *Client) reclaimed(n int64, err error) error {
	var some status
	if err == nil || errors.As(err, &some) {
		c.line("Total reclaimed space: " + show.Space(n))
	}
	return err
}

// pruneContainers removes containers that do not run and returns how many bytes
// went with them.
func (c *Client) pruneContainers(filters []string) (freed int64, err error) {
	keep, err := containerFilter(filters, time.Now())
	if err != nil {
		return 0, err
	}
	all, err := c.list()
	if err != nil {
		return 0, err
	}
	var removed []string
	failed := false
	for _, r := range all {
		stopped := r.State.Status == record.Exited || r.State.Status == record.Created || r.State.Status == record.Dead
		if !stopped || !keep(r) {
			continue
		}
		var size wire.SizeReply
		_ = c.call(wire.Size, wire.Name{Name: r.ID}, &size) // not measured: nothing is claimed as freed
		if err := c.call(wire.Remove, wire.RemoveCall{Name: r.ID}, nil); err != nil {
			failed = c.left(err) || failed
			continue
		}
		removed, freed = append(removed, r.ID), freed+size.Upper
	}
	c.block("Deleted Containers:", removed)
	return freed, statusOf(failed)
}

// pruneImages removes images that no container uses: those without a name, or
// all. It returns how many bytes of layers went with them.
func (c *Client) pruneImages(everything bool, filters []string) (freed int64, err error) {
	keep, err := c.imageFilter(filters, "", time.Now())
	if err != nil {
		return 0, err
	}
	list, err := c.images()
	if err != nil {
		return 0, err
	}
	containers, err := c.list()
	if err != nil {
		return 0, err
	}
	used := map[string]bool{}
	for _, r := range containers {
		used[r.ImageID] = true
	}
	var said []string
	failed := false
	for _, i := range list {
		if i.Host || used[i.ID] || !keep(&i) || !everything && len(i.Names) > 0 {
			continue
		}
		gone, whole := c.dropImage(i)
		failed = failed || !whole
		freed += i.Freed(gone)
		for _, r := range gone {
			if r.Untagged != "" {
				said = append(said, "untagged: "+show.Familiar(r.Untagged))
			} else {
				said = append(said, "deleted: "+r.Deleted)
			}
		}
	}
	c.block("Deleted Images:", said)
	return freed, statusOf(failed)
}

// statusOf ends a prune that could not remove everything with status 1.
func statusOf(failed bool) error {
	if failed {
		return status(1)
	}
	return nil
}

// dropImage removes an image by all its names, without force: one that a
// container came to use meanwhile stays. whole is false when something else kept
// it from being removed.
func (c *Client) dropImage(i record.Image) (all []record.Removed, whole bool) {
	names := i.Names
	if len(names) == 0 {
		names = []string{i.ID}
	}
	for _, name := range names {
		var gone []record.Removed
		if err := c.call(wire.RemoveImage, wire.RemoveCall{Name: name}, &gone); err != nil {
			return all, !c.left(err)
		}
		all = append(all, gone...)
	}
	return all, true
}

// left tells why something was not removed, unless others have got hold of it,
// or removed it, since it was listed; it reports whether there was something to
// tell.
func (c *Client) left(err error) bool {
	if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.Busy) {
		return false
	}
	Print(c.Err, err)
	return true
}

// block prints what was removed below a title, and an empty line; nothing when
// there is nothing.
func (c *Client) block(title string, lines []string) {
	if len(lines) > 0 {
		c.line(title + "\n" + strings.Join(lines, "\n") + "\n")
	}
}

// confirm asks on the terminal; anything but y and yes is no.
func (c *Client) confirm(warning string) bool {
	fmt.Fprint(c.Out, warning+"\nAre you sure you want to continue? [y/N] ")
	var answer string
	_, _ = fmt.Fscanln(c.In, &answer) // no answer is no
	return answer == "y" || answer == "Y" || answer == "yes"
}
