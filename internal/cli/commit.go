package cli

import (
	"bufio"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func commitCommands() []Command {
	return []Command{
		{Name: "commit", Use: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Short: "Create a new image from a container's changes",
			Long: commitLong, Min: 1, Max: 2, Objects: containers, Setup: setupCommit},
		{Name: "export", Use: "[OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive", Min: 1, Max: 1, Objects: containers, Setup: setupExport},
		{Name: "diff", Use: "CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem", Min: 1, Max: 1, Objects: containers, Setup: setupDiff},
	}
}

const commitLong = `Owners in the image are the ids that the container knows, whatever ids of the host it has. A file that an image cannot hold as it is
(a name that begins with .wh., a device node outside /dev) is named and nothing is made. What is in mounts is not part of the image.`

func setupCommit(fs *pflag.FlagSet) action {
	author := fs.StringP("author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	changes := fs.StringArrayP("change", "c", nil, "Apply Dockerfile instruction to the created image")
	message := fs.StringP("message", "m", "", "Commit message")
	pause := fs.BoolP("pause", "p", true, "Pause container during commit")
	return func(c *Client, args []string) error {
		a := ask.Commit{Container: args[0], Author: *author, Message: *message, Changes: *changes, NoPause: !*pause}
		if len(args) == 2 {
			a.Name = args[1]
		}
		var made record.Image
		if err := c.call(wire.Commit, a, &made); err != nil {
			return err
		}
		c.line(made.ID)
		return nil
	}
}

func setupExport(fs *pflag.FlagSet) action {
	output := fs.StringP("output", "o", "", "Write to a file, instead of STDOUT")
	return func(c *Client, args []string) error {
		if *output != "" {
			return intoFile(*output, func(f *os.File) error { return c.exportTo(args[0], f) }, badExport)
		}
		if term.IsTerminal(int(c.Files[1].Fd())) {
			return fault.Say(fault.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return c.exportTo(args[0], c.Files[1])
	}
}

// exportTo has the daemon write to the file itself.
func (c *Client) exportTo(name string, f *os.File) error {
	return c.watch(wire.Export, wire.Name{Name: name}, nil, nil, int(f.Fd()))
}

func badExport(err error) error {
	return fault.Say(fault.Invalid, "failed to export container: "+err.Error())
}

func setupDiff(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		out := bufio.NewWriter(c.Out)
		err := c.watch(wire.Changes, wire.Name{Name: args[0]}, nil, func(m wire.Message) error {
			if m.Kind != wire.Data {
				return nil
			}
			return wire.ReadChanges(m.Body, func(change record.Change) { fmt.Fprintln(out, change.Kind.String()+" "+change.Path) })
		})
		if err != nil {
			return err
		}
		return out.Flush()
	}
}
