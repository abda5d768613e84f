package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"fief/internal/cli/fast"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
)

// Main carries out a command line, without the program's name, and returns the
// exit status.
func Main(words []string, version string) int {
	cl := &Client{Version: version, Out: os.Stdout, Err: os.Stderr, In: os.Stdin, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}}
	return cl.main(words)
}

func (c *Client) main(words []string) int {
	host, words, err := c.global(words)
	if err == nil && words == nil {
		return 0
	}
	if err == nil {
		c.Socket, err = fast.Socket(host)
	}
	if err != nil {
		Print(c.Err, err)
		return max(1, fault.ExitCodeOf(err))
	}
	command, rest, err := find(words)
	if err != nil {
		Print(c.Err, err)
		return 1
	}
	err = command.run(c, rest)
	var s status
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	case errors.Is(err, errPipe):
		return 1
	case command.Name == "run" || command.Name == "exec":
		return fast.Complain(err, command.Name == "exec")
	}
	Print(c.Err, err)
	return exitCode(err)
}

// exitCode is 1 for what the daemon refused and for failures on the way, and
// what the fault says for a command line that is wrong.
func exitCode(err error) int {
	var refused *wire.Refusal
	var f *fault.Error
	if errors.As(err, &refused) {
		return 1
	}
	if errors.As(err, &f) && f.Class == fault.Invalid && f.ExitCode != 0 {
		return f.ExitCode
	}
	return 1
}

// errPipe says that nobody reads fief's output any longer.
var errPipe = errors.New("output closed")

// global reads the flags before the command. Nil words mean that they asked
// for help or the version, which was printed.
func (c *Client) global(words []string) (host string, rest []string, err error) {
	host = os.Getenv("FIEF_HOST")
	for len(words) > 0 {
		w := words[0]
		switch {
		case w == "--help" || w == "-h" || w == "help" && len(words) == 1:
			overview(c.Out)
			return "", nil, nil
		case w == "help":
			return host, append(words[1:len(words):len(words)], "--help"), nil
		case w == "--version" || w == "-v":
			fmt.Fprintln(c.Out, "fief version "+c.Version)
			return "", nil, nil
		case (w == "--host" || w == "-H") && len(words) > 1:
			host, words = words[1], words[2:]
		case strings.HasPrefix(w, "--host="):
			host, words = w[len("--host="):], words[1:]
		case strings.HasPrefix(w, "-"):
			f := fault.Say(fault.Invalid, "unknown flag: "+w)
			f.Hint, f.ExitCode = "See 'fief --help'.", 125
			return "", nil, f
		default:
			return host, words, nil
		}
	}
	overview(c.Out)
	return "", nil, nil
}

func overview(w io.Writer) {
	fmt.Fprint(w, "\nUsage:  fief [--host unix:///path/docker.sock] COMMAND\n\n"+
		"A container engine whose core is the user namespace\n\nCommands:\n")
	for _, c := range Commands() {
		if !c.Hidden {
			fmt.Fprintf(w, "  %-17s %s\n", c.Spoken(), c.Short)
		}
	}
	fmt.Fprint(w, "\nGlobal Options:\n"+
		"  -H, --host string   The daemon's docker socket; its native socket lies beside it (FIEF_HOST)\n"+
		"  -v, --version       Print version information and quit\n\n"+
		"Run 'fief COMMAND --help' for more information on a command.\n")
}
