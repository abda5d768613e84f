package cli

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func systemCommands() []Command {
	return []Command{
		{Name: "info", Use: "[OPTIONS]", Short: "Display system-wide information", Setup: setupInfo},
		{Name: "system-df", Use: "[OPTIONS]", Short: "Show disk usage", Setup: setupDF},
		{Name: "system-prune", Use: "[OPTIONS]", Short: "Remove unused data", Setup: setupSystemPrune},
		{Name: "version", Use: "[OPTIONS]", Short: "Show the fief version information", Setup: setupVersion},
		{Name: "check", Use: "[OPTIONS]", Short: "Find out what this host allows, and how to mend what is missing", Long: checkLong, Setup: setupCheck},
		{Name: "completion", Use: "bash|zsh|fish", Short: "Print the completion script of a shell", Min: 1, Max: 1, Setup: setupCompletion},
		{Name: "__complete", Short: "Print what may follow a command line", Max: -1, Inside: true, Hidden: true, Setup: setupComplete},
	}
}

func setupInfo(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	return func(c *Client, args []string) error {
		var i record.Info
		if err := c.call(wire.Info, struct{}{}, &i); err != nil {
			return err
		}
		if *format != "" {
			return show.Object(c.Out, *format, i)
		}
		fmt.Fprint(c.Out, show.Info(i, c.Version))
		for _, w := range i.Warnings {
			fmt.Fprintln(c.Err, "WARNING: "+w)
		}
		return nil
	}
}

// versions is what `version` shows; templates see it as JSON does.
type versions struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct{ Version, GoVersion, Os, Arch string }

type serverVersion struct{ Version, Os, Arch, KernelVersion string }

func setupVersion(fs *pflag.FlagSet) action {
	format := fs.StringP("format", "f", "", "Format output using a Go TEMPLATE, or 'json'")
	return func(c *Client, args []string) error {
		v := versions{Client: clientVersion{c.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}}
		var i record.Info
		err := c.call(wire.Info, struct{}{}, &i)
		if err == nil {
			v.Server = &serverVersion{i.Version, i.OSType, i.Arch, i.Kernel}
		}
		if *format != "" {
			if formatErr := show.Object(c.Out, *format, v); formatErr != nil {
				return formatErr
			}
			return err
		}
		c.line(strings.TrimRight(v.text(), "\n"))
		return err
	}
}

func (v versions) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Client:\n Version:           %s\n Go version:        %s\n OS/Arch:           %s/%s\n",
		v.Client.Version, v.Client.GoVersion, v.Client.Os, v.Client.Arch)
	if v.Server != nil {
		fmt.Fprintf(&b, "\nServer:\n Version:          %s\n OS/Arch:          %s/%s\n Kernel version:   %s\n",
			v.Server.Version, v.Server.Os, v.Server.Arch, v.Server.KernelVersion)
	}
	return b.String()
}

func setupCompletion(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		script, ok := CompletionScript(args[0])
		if !ok {
			return fault.Say(fault.Invalid, "no completion for \""+args[0]+"\": shells are bash, zsh and fish")
		}
		fmt.Fprint(c.Out, script)
		return nil
	}
}
