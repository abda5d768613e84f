package cli

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/cli/fast"
	"fief/internal/cli/show"
	"fief/internal/door/native/wire"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// The scripts ask `fief __complete` for candidates, one a line; a last line of
// only ":files" asks for file names instead.
const bashScript = `# bash completion for fief
_fief() {
    local cur=${COMP_WORDS[COMP_CWORD]} out
    out=$(fief __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [ "$out" = ":files" ]; then
        COMPREPLY=($(compgen -f -- "$cur"))
    else
        COMPREPLY=($(compgen -W "$out" -- "$cur"))
    fi
}
complete -o bashdefault -F _fief fief
`

const zshScript = `#compdef fief
_fief() {
    local -a out
    out=("${(@f)$(fief __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ "$out[1]" == ":files" ]]; then
        _files
    else
        compadd -a out
    fi
}
compdef _fief fief
`

const fishScript = `# fish completion for fief
function __fief_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l out (fief __complete $words[2..-1] 2>/dev/null)
    if test "$out[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        string join \n -- $out
    end
end
complete -c fief -f -a '(__fief_complete)'
`

func CompletionScript(shell string) (string, bool) {
	script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[shell]
	return script, ok
}

func setupComplete(*pflag.FlagSet) action {
	return func(c *Client, args []string) error {
		for _, w := range c.candidates(args) {
			c.line(w)
		}
		return nil
	}
}

// candidates are the words that may stand in the place of the last of words.
func (c *Client) candidates(words []string) []string {
	if len(words) <= 1 {
		var names []string
		for _, cmd := range Commands() {
			if !cmd.Hidden && !strings.Contains(cmd.Name, "-") {
				names = append(names, cmd.Name)
			}
		}
		return prefixed(append(names, "container", "image", "system"), words)
	}
	if group, ok := groups()[words[0]]; ok && len(words) == 2 && !strings.HasPrefix(words[1], "-") {
		var deeds []string
		for d := range group {
			deeds = append(deeds, d)
		}
		slices.Sort(deeds)
		return prefixed(deeds, words)
	}
	cmd, rest, err := find(words)
	if err != nil || len(rest) == 0 {
		return nil
	}
	return prefixed(c.following(cmd, rest), words)
}

// following are the candidates after a command: its flags, a flag's value, or
// the objects it is about.
func (c *Client) following(cmd Command, words []string) []string {
	fs, _ := cmd.Flags()
	last := words[len(words)-1]
	if strings.HasPrefix(last, "-") {
		var flags []string
		fs.VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				flags = append(flags, "--"+f.Name)
			}
		})
		return flags
	}
	if len(words) > 1 && words[len(words)-2] == "--runtime" && takesValue(fs, "--runtime") {
		var info record.Info
		_ = c.ask(wire.Info, &info)
		return info.Runtimes
	}
	if len(words) > 1 && takesValue(fs, words[len(words)-2]) {
		return []string{":files"}
	}
	if cmd.Inside && slices.ContainsFunc(words[:len(words)-1], func(w string) bool { return !strings.HasPrefix(w, "-") }) {
		if plainWords(fs, words[:len(words)-1]) > 0 {
			return []string{":files"}
		}
	}
	return c.known(cmd.Objects)
}

func takesValue(fs *pflag.FlagSet, w string) bool {
	var f *pflag.Flag
	switch {
	case strings.Contains(w, "="):
	case strings.HasPrefix(w, "--"):
		f = fs.Lookup(w[2:])
	case strings.HasPrefix(w, "-") && len(w) > 1:
		f = fs.ShorthandLookup(w[len(w)-1:])
	}
	return f != nil && f.NoOptDefVal == ""
}

// plainWords counts the words that are neither flags nor their values.
func plainWords(fs *pflag.FlagSet, words []string) int {
	n := 0
	for i, w := range words {
		if !strings.HasPrefix(w, "-") && (i == 0 || !takesValue(fs, words[i-1])) {
			n++
		}
	}
	return n
}

// known asks a running daemon for names. Completion never starts one.
func (c *Client) known(o objects) []string {
	if o == files {
		return []string{":files"}
	}
	var out []string
	if o == containers || o == containersOrImages {
		var all []record.Container
		_ = c.ask(wire.List, &all)
		for _, r := range all {
			out = append(out, r.Name)
			if r.Name == "" {
				out = append(out, ref.Short(r.ID))
			}
		}
	}
	if o == images || o == containersOrImages {
		var all []record.Image
		_ = c.ask(wire.Images, &all)
		for _, i := range all {
			for _, n := range i.Names {
				out = append(out, show.Familiar(n))
			}
		}
	}
	return out
}

// ask is call without starting a daemon.
func (c *Client) ask(v wire.Verb, result any) error {
	if c.Socket == "" {
		c.Socket, _ = fast.Socket(os.Getenv("FIEF_HOST"))
	}
	conn, err := wire.Dial(c.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Call(v, struct{}{}, result, nil)
}

func prefixed(candidates, words []string) []string {
	if len(words) == 0 {
		return candidates
	}
	last := words[len(words)-1]
	var out []string
	for _, w := range candidates {
		if strings.HasPrefix(w, last) || w == ":files" {
			out = append(out, w)
		}
	}
	return out
}
