package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func setupLogin(fs *pflag.FlagSet) action {
	user := fs.StringP("username", "u", "", "Username")
	password := fs.StringP("password", "p", "", "Password or Personal Access Token (PAT)")
	stdin := fs.Bool("password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return func(c *Client, args []string) error {
		a := ask.RegistryAuth{ServerAddress: serverKey(strings.Join(args, "")), Username: *user, Password: *password}
		if *password != "" && *stdin {
			return fault.Say(fault.Invalid, "--password and --password-stdin are mutually exclusive")
		}
		if *stdin && *user == "" {
			return fault.Say(fault.Invalid, "the --password-stdin option requires --username to be set")
		}
		if *password != "" {
			fmt.Fprintln(c.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
		}
		if err := c.askPassword(&a, *stdin); err != nil {
			return err
		}
		return c.login(a)
	}
}

// serverKey is the key under which credentials for a registry are kept.
func serverKey(server string) string {
	host := strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return host
}

// maxPassword is the length of the longest password read, in bytes: tokens of
// some clouds have several thousand.
const maxPassword = 64 << 10

// askPassword completes what the flags did not say, at the terminal.
func (c *Client) askPassword(a *ask.RegistryAuth, stdin bool) error {
	if stdin {
		raw, err := io.ReadAll(io.LimitReader(c.In, maxPassword+1))
		if err != nil {
			return fault.Wrap(fault.Invalid, "read the password", "", err, "")
		}
		a.Password = strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
		if a.Password == "" || len(raw) > maxPassword {
			return fault.Say(fault.Invalid, "password is empty or too long")
		}
		return nil
	}
	if a.Username != "" && a.Password != "" {
		return nil
	}
	if !term.IsTerminal(int(c.In.Fd())) {
		f := fault.Say(fault.Invalid, "cannot perform an interactive login from a non TTY device")
		f.Hint = "use --username and --password-stdin"
		return f
	}
	if a.Username == "" {
		fmt.Fprint(c.Err, "Username: ")
		if _, err := fmt.Fscanln(c.In, &a.Username); err != nil {
			return fault.Say(fault.Invalid, "username is required")
		}
	}
	if a.Password == "" {
		fmt.Fprint(c.Err, "Password: ")
		raw, err := term.ReadPassword(int(c.In.Fd()))
		fmt.Fprintln(c.Err)
		if err != nil || len(raw) == 0 {
			return fault.Say(fault.Invalid, "password is required")
		}
		a.Password = string(raw)
	}
	return nil
}

// login keeps credentials that the registry takes.
func (c *Client) login(a ask.RegistryAuth) error {
	var got record.LoggedIn
	if err := c.call(wire.Login, a, &got); err != nil {
		return err
	}
	if got.IdentityToken != "" {
		a.Password, a.IdentityToken = "", got.IdentityToken
	}
	where, err := keepCredentials(a)
	if err != nil {
		return err
	}
	if where != "" {
		fmt.Fprintf(c.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning.\n\n", where)
	}
	c.line(got.Status)
	return nil
}

func setupLogout(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		key := serverKey(strings.Join(args, ""))
		known, err := dropCredentials(key)
		if err != nil {
			return err
		}
		if !known {
			c.line("Not logged in to " + key)
			return nil
		}
		c.line("Removing login credentials for " + key)
		return nil
	}
}
