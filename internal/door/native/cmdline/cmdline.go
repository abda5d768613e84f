// Package cmdline is the grammar of `fief run`, `create` and `exec`: from the
// words a user typed to a complete ask. fief itself uses it where it reads the
// words, and fiefd for the command lines that fief sends unread.
package cmdline

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/pflag"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// Client is what the command line refers to on the client's side. Dir is its
// working directory. Lookup reads its environment and ReadFile its files; the
// daemon has neither, and command lines that need them are parsed by fief.
type Client struct {
	Dir      string
	Lookup   func(name string) (string, bool)
	ReadFile func(name string) ([]byte, error)
	// DetachKeys tells the keys that the user's docker config has for terminals;
	// empty, or without the function: none.
	DetachKeys func() string
}

// Attach says which streams the client connects.
type Attach struct {
	Stdin, Stdout, Stderr bool
	DetachKeys            []byte
}

// Run is a parsed `run` or `create`.
type Run struct {
	Ask      ask.Container
	Attach   Attach
	Detach   bool
	Trace    bool
	DryRun   bool
	Quiet    bool
	SigProxy bool
	CIDFile  string
}

// Exec is a parsed `exec`.
type Exec struct {
	Container string
	Ask       ask.Exec
	Attach    Attach
	Detach    bool
}

// ParseRun parses the words after `fief run`.
func ParseRun(args []string, c Client) (Run, error) {
	fs := NewFlagSet("run")
	o := RunFlags(fs, true)
	if err := fs.Parse(args); err != nil {
		return Run{}, Usage("run", err)
	}
	return o.Resolve(fs.Args(), c)
}

// ParseExec parses the words after `fief exec`.
func ParseExec(args []string, c Client) (Exec, error) {
	fs := NewFlagSet("exec")
	o := ExecFlags(fs)
	if err := fs.Parse(args); err != nil {
		return Exec{}, Usage("exec", err)
	}
	return o.Resolve(fs.Args(), c)
}

// NewFlagSet returns a silent set that stops at the first word that is no
// flag: what follows belongs to the container.
func NewFlagSet(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.SortFlags = true
	return fs
}

// Usage makes err the fault of a command line that is wrong, in docker's words.
func Usage(command string, err error) error {
	e := fault.Say(fault.Invalid, err.Error())
	e.Hint, e.ExitCode = "See 'fief "+command+" --help'.", 125
	return e
}

// invalid is the fault of a flag's value, in the words that pflag uses for the
// values it checks itself.
func invalid(flag, value, why string) error {
	e := fault.Say(fault.Invalid, "invalid argument \""+value+"\" for \""+flag+"\" flag: "+why)
	e.Hint, e.ExitCode = "See 'fief run --help'.", 125
	return e
}

// conflict is the fault of words that contradict each other.
func conflict(text string) error {
	e := fault.Say(fault.Invalid, text)
	e.ExitCode = 125
	return e
}

// abs makes a path absolute as the client sees it.
func (c Client) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.Dir, path)
}

func (c Client) lookup(name string) (string, bool) {
	if c.Lookup == nil {
		return "", false
	}
	return c.Lookup(name)
}

// keys reads --detach-keys, or for a terminal what the user's configuration
// says.
func (c Client) keys(flag string, tty bool) ([]byte, error) {
	if flag == "" && tty && c.DetachKeys != nil {
		flag = c.DetachKeys()
	}
	return detachKeys(flag)
}

func (c Client) read(flag, name string) ([]byte, error) {
	if c.ReadFile == nil {
		return nil, invalid(flag, name, "the file can only be read by the client")
	}
	b, err := c.ReadFile(name)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		return nil, conflict("open " + name + ": " + err.Error())
	}
	return b, nil
}
