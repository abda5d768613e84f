// Package cli is fief's command line: docker's commands, flags, tables, texts
// and exit codes over the native door. Commands are values in one table, from
// which help, completion and man pages are made.
//
// There is no command framework in it: cobra in this binary costs every
// `fief run` half a millisecond at start, before any of its code is called.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/door/native/cmdline"
	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
)

// Command is one command. Setup adds its flags to a set and returns what to do
// with the words that are left after the parse.
type Command struct {
	Name    string
	Use     string // what follows the name in the usage line
	Short   string
	Long    string // what help and man page say besides: paragraphs; lines that begin with two spaces are examples
	Min     int    // least number of words that are no flags
	Max     int    // most; negative: any number
	Inside  bool   // words after the first plain one belong to the container
	Hidden  bool
	Objects objects // what completion offers as words
	Setup   func(fs *pflag.FlagSet) action
}

// action carries out a command.
type action func(c *Client, args []string) error

// objects is what the words of a command name.
type objects uint8

const (
	nothing objects = iota
	containers
	images
	files
	containersOrImages
)

// Client is one call of fief.
type Client struct {
	Out, Err io.Writer
	In       *os.File
	Version  string
	Socket   string
	Files    [3]*os.File // stdio as passed to containers
}

// status ends fief with an exit status; what there was to say has been said.
type status int

// Error implements error.
func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Commands returns all commands, in the order of help.
func Commands() []Command {
	var all []Command
	for _, group := range [][]Command{runCommands(), lifecycleCommands(), resourceCommands(), lookCommands(), idCommands(), imageCommands(), commitCommands(), registryCommands(), systemCommands(), copyCommands(), volumeCommands(), networkCommands()} {
		all = append(all, group...)
	}
	return all
}

// find returns the command that the words name, and the words after the name.
func find(words []string) (Command, []string, error) {
	name := words[0]
	if group, ok := groups()[name]; ok && len(words) > 1 && !strings.HasPrefix(words[1], "-") {
		short, ok := group[words[1]]
		if !ok {
			return Command{}, nil, unknown(name + " " + words[1])
		}
		name, words = short, words[1:]
	}
	if alias, ok := aliases()[name]; ok {
		name = alias
	}
	for _, c := range Commands() {
		if c.Name == name {
			return c, words[1:], nil
		}
	}
	return Command{}, nil, unknown(name)
}

func unknown(name string) error {
	f := fault.Say(fault.Invalid, "fief: '"+name+"' is not a fief command.")
	f.Hint, f.ExitCode = "See 'fief --help'", 1
	return f
}

func aliases() map[string]string { return map[string]string{"list": "ps", "ls": "ps", "remove": "rm"} }

// groups are docker's management commands: fief has one command for each deed.
func groups() map[string]map[string]string {
	container := map[string]string{"ls": "ps", "list": "ps", "ps": "ps", "prune": "container-prune", "inspect": "inspect"}
	for _, c := range []string{"run", "create", "start", "stop", "kill", "restart", "wait", "rm", "logs", "exec", "attach", "top", "rename", "update", "commit", "export", "diff", "cp", "stats", "pause", "unpause", "port"} {
		container[c] = c
	}
	return map[string]map[string]string{
		"container": container,
		"image": {
			"ls": "images", "list": "images", "pull": "pull", "push": "push", "load": "load", "save": "save", "import": "import", "rm": "rmi",
			"remove": "rmi", "tag": "tag", "history": "history", "prune": "image-prune", "inspect": "image-inspect",
		},
		"volume": {
			"create": "volume-create", "ls": "volume-ls", "list": "volume-ls", "inspect": "volume-inspect", "rm": "volume-rm",
			"remove": "volume-rm", "prune": "volume-prune",
		},
		"network": {
			"create": "network-create", "ls": "network-ls", "list": "network-ls", "inspect": "network-inspect", "rm": "network-rm", "remove": "network-rm",
			"connect": "network-connect", "disconnect": "network-disconnect", "prune": "network-prune",
		},
		"healthcheck": {"run": "healthcheck-run"},
		"ids":         {"ls": "ids", "list": "ids", "who": "ids-who"},
		"system":      {"info": "info", "events": "events", "check": "check", "df": "system-df", "prune": "system-prune", "verify": "verify"},
	}
}

// Spoken is the name a user says for a command.
func (c Command) Spoken() string {
	if group, deed, ok := strings.Cut(c.Name, "-"); ok {
		return group + " " + deed
	}
	return c.Name
}

// Flags returns the command's flag set, and the action that reads it.
func (c Command) Flags() (*pflag.FlagSet, action) {
	fs := cmdline.NewFlagSet(c.Spoken())
	fs.SetInterspersed(!c.Inside)
	act := c.Setup(fs)
	fs.Bool("help", false, "Print usage")
	fs.Lookup("help").Hidden = true
	return fs, act
}

// run parses the words after the command's name and carries it out.
func (c Command) run(cl *Client, words []string) error {
	fs, act := c.Flags()
	if err := fs.Parse(words); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			c.help(cl.Out, fs)
			return nil
		}
		return cmdline.Usage(c.Spoken(), err)
	}
	if help, _ := fs.GetBool("help"); help {
		c.help(cl.Out, fs)
		return nil
	}
	if err := c.count(fs.NArg()); err != nil {
		return err
	}
	return act(cl, fs.Args())
}

// count refuses too few or too many words, in docker's words.
func (c Command) count(n int) error {
	var text string
	switch {
	case n >= c.Min && (c.Max < 0 || n <= c.Max):
		return nil
	case c.Max == 0:
		text = "accepts no arguments"
	case c.Min == c.Max:
		text = fmt.Sprintf("requires exactly %d %s", c.Min, arguments(c.Min))
	case n < c.Min:
		text = fmt.Sprintf("requires at least %d %s", c.Min, arguments(c.Min))
	default:
		text = fmt.Sprintf("requires at most %d %s", c.Max, arguments(c.Max))
	}
	f := fault.Say(fault.Invalid, "\"fief "+c.Spoken()+"\" "+text+".")
	f.Hint = "See 'fief " + c.Spoken() + " --help'.\n\n" + c.usage() + "\n\n" + c.Short
	f.ExitCode = 1
	return f
}

func arguments(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

func (c Command) usage() string { return strings.TrimRight("Usage:  fief "+c.Spoken()+" "+c.Use, " ") }

func (c Command) help(w io.Writer, fs *pflag.FlagSet) {
	fmt.Fprintf(w, "\n%s\n\n%s\n", c.usage(), c.Short)
	if c.Long != "" {
		fmt.Fprintf(w, "\n%s\n", c.Long)
	}
	if fs.HasAvailableFlags() {
		fmt.Fprintf(w, "\nOptions:\n%s", fs.FlagUsages())
	}
}

// call makes one call to the daemon and reads its result.
func (c *Client) call(v wire.Verb, request, result any) error {
	return c.watch(v, request, result, nil)
}

// watch is call with a look at the messages before the result.
func (c *Client) watch(v wire.Verb, request, result any, each func(wire.Message) error, files ...int) error {
	conn, err := Connect(c.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Call(v, request, result, each, files...)
}

// each does one thing to every named object, prints the names that went well
// and the failures, and ends with status 1 after any.
func (c *Client) each(names []string, do func(name string) error) error {
	failed := false
	for _, n := range names {
		if err := do(n); err != nil {
			Print(c.Err, err)
			failed = true
			continue
		}
		fmt.Fprintln(c.Out, n)
	}
	if failed {
		return status(1)
	}
	return nil
}

// Print writes a failure for the user. What the daemon refused is marked as
// docker marks it.
func Print(w io.Writer, err error) {
	text := err.Error()
	var refused *wire.Refusal
	if errors.As(err, &refused) {
		text = "Error response from daemon: " + text
	}
	fmt.Fprintln(w, text)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintln(w, hint)
	}
}
