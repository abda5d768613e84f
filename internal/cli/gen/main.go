// Command gen writes fief's man pages and completion scripts from its
// commands: gen DIR makes DIR/man1/fief*.1 and DIR/completion/fief.{bash,zsh,fish}.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"fief/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen DIR")
		os.Exit(2)
	}
	for name, text := range Pages() {
		name = filepath.Join(os.Args[1], name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if err == nil {
			err = os.WriteFile(name, []byte(text), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}

// Pages returns the text of every generated file by its name below DIR.
func Pages() map[string]string {
	pages := map[string]string{"man1/fief.1": overview()}
	for _, c := range cli.Commands() {
		if !c.Hidden {
			pages["man1/fief-"+strings.ReplaceAll(c.Spoken(), " ", "-")+".1"] = page(c)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, _ := cli.CompletionScript(shell)
		pages["completion/fief."+shell] = script
	}
	return pages
}

func page(c cli.Command) string {
	var b strings.Builder
	name := "fief-" + strings.ReplaceAll(c.Spoken(), " ", "-")
	header(&b, name, c.Short)
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B fief %s\n%s\n", roff(c.Spoken()), roff(c.Use))
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n")
		paragraphs(&b, c.Long)
	}
	fs, _ := c.Flags()
	if fs.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		fs.VisitAll(func(f *pflag.Flag) { option(&b, f) })
	}
	b.WriteString(".SH SEE ALSO\n.BR fief (1)\n")
	return b.String()
}

// paragraphs writes a command's long text: lines that begin with two spaces
// stay as they are.
func paragraphs(b *strings.Builder, text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		as := strings.HasPrefix(p, "  ")
		if as {
			b.WriteString(".nf\n")
		}
		for line := range strings.SplitSeq(p, "\n") {
			b.WriteString(roff(line) + "\n")
		}
		if as {
			b.WriteString(".fi\n")
		}
	}
}

func option(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden {
		return
	}
	words := "--" + f.Name
	if f.Shorthand != "" {
		words = "-" + f.Shorthand + ", " + words
	}
	fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(words), roff(f.Usage))
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" {
		fmt.Fprintf(b, "(default %s)\n", roff(f.DefValue))
	}
}

func overview() string {
	var b strings.Builder
	header(&b, "fief", "a container engine whose core is the user namespace")
	b.WriteString(".SH SYNOPSIS\n.B fief\n[\\-\\-host unix:///path/docker.sock] COMMAND [ARG...]\n.SH DESCRIPTION\n" +
		"fief runs containers whose root is nobody on the host. It speaks to the daemon fiefd, and starts it when none runs.\n.SH COMMANDS\n")
	for _, c := range cli.Commands() {
		if !c.Hidden {
			fmt.Fprintf(&b, ".TP\n.BR fief-%s (1)\n%s\n", roff(strings.ReplaceAll(c.Spoken(), " ", "-")), roff(c.Short))
		}
	}
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B FIEF_HOST\nThe daemon's docker socket, unix:///path/docker.sock; fief's own socket native.sock lies beside it.\n" +
		".TP\n.B DOCKER_CONFIG\nDirectory of docker's config.json, from which credentials for registries are read.\n" +
		".SH EXIT STATUS\nThat of the command. For run: 125 when fief or the daemon failed, 126 when the command in the container cannot be\n" +
		"invoked, 127 when it cannot be found, 128+n when signal n ended it, else the status of the command in the container.\n")
	return b.String()
}

func header(b *strings.Builder, name, short string) {
	fmt.Fprintf(b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(roff(name)), roff(name), roff(short))
}

// roff escapes text for roff(7): hyphens that users type, backslashes, and
// control characters at the beginning of a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
