package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func registryCommands() []Command {
	return []Command{
		{Name: "push", Use: "[OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Min: 1, Max: 1, Objects: images, Setup: setupPush},
		{Name: "login", Use: "[OPTIONS] [SERVER]", Short: "Authenticate to a registry", Max: 1, Setup: setupLogin,
			Long: "Credentials go where docker keeps them: to the credential helper that\n$DOCKER_CONFIG/config.json names, else into that file (~/.docker without the\nvariable). No SERVER is Docker Hub."},
		{Name: "logout", Use: "[SERVER]", Short: "Log out from a registry", Max: 1, Setup: setupLogout},
	}
}

func setupPush(fs *pflag.FlagSet) action {
	all := fs.BoolP("all-tags", "a", false, "Push all tags of an image to the repository")
	quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
	return func(c *Client, args []string) error { return c.push(args[0], *all, *quiet) }
}

// push sends an image away in docker's words.
func (c *Client) push(name string, all, quiet bool) error {
	full := tagged(name)
	switch {
	case all && full == name:
		return fault.Say(fault.Invalid, "tag can't be used with --all-tags/-a")
	case all:
		full = name
	case !quiet && full != name:
		c.line("Using default tag: latest")
	}
	auth, err := credentials(name)
	if err != nil {
		return err
	}
	var done []record.Pushed
	bars := newBars(c.Out, quiet)
	err = c.watch(wire.Push, ask.PushImage{Name: full, All: all, Auth: auth}, &done, bars.message)
	bars.end()
	if err == nil && quiet {
		c.line(wholeReference(full))
	}
	return err
}

// wholeReference is a name with its registry, as docker prints it.
func wholeReference(name string) string {
	host := registry(name)
	if host != hub {
		return name
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "index.docker.io/")
	if !strings.Contains(rest, "/") {
		rest = "library/" + rest
	}
	return fmt.Sprintf("docker.io/%s", rest)
}
