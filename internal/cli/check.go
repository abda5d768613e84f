package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"fief/internal/cli/fast"
	"fief/internal/cli/show"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

const checkLong = `Tries what containers need of the kernel, the file systems, the limits and the
files of this host, and says how to mend what is missing. Nothing is told from a
version, nothing is left behind, and no daemon has to run. The exit status is 1
when something fails. Without root some of it is skipped.

  fief check --quiet                   only what is not well
  fief check --data-root /srv/fief     of a disk that is not in use yet`

// checkFlags are flags of fiefd that change what there is to look at.
func checkFlags() []string { return []string{"data-root", "exec-root", "config-file", "userns-remap"} }

func setupCheck(fs *pflag.FlagSet) action {
	asJSON := fs.Bool("json", false, "Print JSON, one object a line")
	quiet := fs.BoolP("quiet", "q", false, "Only show warnings and failures")
	for _, name := range checkFlags() {
		fs.String(name, "", "As fiefd has it")
	}
	return func(c *Client, args []string) error {
		checks, err := c.checks(fs)
		if err != nil {
			return err
		}
		if *asJSON {
			for _, k := range checks {
				if err := show.Object(c.Out, "json", k); err != nil {
					return err
				}
			}
		} else {
			marks := show.Letters()
			if drawsSigns(c.Out) {
				marks = show.Signs()
			}
			show.Checks(c.Out, checks, marks, *quiet)
		}
		if slices.ContainsFunc(checks, func(k record.Check) bool { return k.State == record.CheckFail }) {
			return status(1)
		}
		return nil
	}
}

// checks has the installed daemon program look, which need not be running and
// may be unable to.
func (c *Client) checks(fs *pflag.FlagSet) ([]record.Check, error) {
	binary, err := findDaemon()
	if err != nil {
		return nil, err
	}
	words := []string{"check", "--json"}
	if c.Socket != fast.DefaultSocket {
		words = append(words, "--host=unix://"+filepath.Join(filepath.Dir(c.Socket), "docker.sock"))
	}
	for _, name := range checkFlags() {
		if f := fs.Lookup(name); f.Changed {
			words = append(words, "--"+name+"="+f.Value.String())
		}
	}
	var said bytes.Buffer
	cmd := exec.Command(binary, words...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, "run", binary+" check", errors.Join(err, errors.New(strings.TrimSpace(said.String()))), "install fief and fiefd from one build")
	}
	return readChecks(out)
}

func readChecks(text []byte) (checks []record.Check, err error) {
	for in := json.NewDecoder(bytes.NewReader(text)); ; {
		var k record.Check
		err := in.Decode(&k)
		if errors.Is(err, io.EOF) {
			return checks, nil
		}
		if err != nil {
			return nil, fault.Wrap(fault.Corrupt, "read", "fiefd's report", err, "install fief and fiefd from one build")
		}
		checks = append(checks, k)
	}
}

// drawsSigns reports whether w is a terminal whose locale is UTF-8, by the first
// of the variables that is set (locale(7)).
func drawsSigns(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
