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
	platform := fs.String("platform", "", "Push the image only if it is of this platform (os[/arch[/variant]])")
	quiet := fs.BoolP("quiet", "q", false, "Suppress verbose output")
	return func(c *Client, args []string) error {
		return c.push(ask.PushImage{Name: args[0], Platform: *platform, All: *all}, *quiet)
	}
}

// errTagAndAll is Docker's.
var errTagAndAll = fault.Say(fault.Invalid, "tag can't be used with --all-tags/-a")

// push sends an image away in docker's words.
func (c *Client) push(p ask.PushImage, quiet bool) error {
	given := p.Name
	p.Name = tagged(given)
	switch {
	case p.All && p.Name == given:
		return errTagAndAll
	case p.All:
		p.Name = given
	case !quiet && p.Name != given:
		c.line("Using default tag: latest")
	}
	auth, err := credentials(given)
	if err != nil {
		return err
	}
	p.Auth = auth
	var done []record.Pushed
	bars := newBars(c.Out, quiet)
	err = c.watch(wire.Push, p, &done, bars.message)
	bars.end()
	if err == nil && quiet {
		c.line(wholeReference(p.Name))
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
