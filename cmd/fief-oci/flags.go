package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// parse reads a verb's options wherever they stand, as runc and crun do, or for a
// program up to the first other word. "--" ends them. Letters may stand together
// behind one "-", as with crun.
func parse(set *flag.FlagSet, args []string, program bool) (rest []string, err error) {
	for len(args) > 0 {
		args = separate(set, args)
		if err := set.Parse(args); err != nil {
			return nil, err
		}
		left := set.Args()
		ended := len(args) > len(left) && args[len(args)-len(left)-1] == "--"
		if program || ended || len(left) == 0 {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	return rest, nil
}

// separate splits a first argument like "-it" into its letters when all of them
// are switches.
func separate(set *flag.FlagSet, args []string) []string {
	letters, ok := strings.CutPrefix(args[0], "-")
	if !ok || len(letters) < 2 || set.Lookup(letters) != nil || strings.HasPrefix(letters, "-") {
		return args
	}
	var out []string
	for _, c := range letters {
		f := set.Lookup(string(c))
		if f == nil {
			return args
		}
		if s, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !s.IsBoolFlag() {
			return args
		}
		out = append(out, "-"+string(c))
	}
	return append(out, args[1:]...)
}

// values is a flag that may be repeated.
type values []string

func (v *values) String() string { return strings.Join(*v, " ") }

func (v *values) Set(s string) error {
	*v = append(*v, s)
	return nil
}

func usage(w io.Writer, global *flag.FlagSet) {
	fmt.Fprintln(w, "usage: fief-oci [options] COMMAND")
	for _, c := range commands() {
		fmt.Fprintln(w, "  "+c.usage)
	}
	printFlags(w, global)
}

// printFlags prints what a set understands, in the order of names.
func printFlags(w io.Writer, set *flag.FlagSet) {
	set.VisitAll(func(f *flag.Flag) {
		dashes, value := "--", ""
		if len(f.Name) == 1 {
			dashes = "-"
		}
		if s, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !s.IsBoolFlag() {
			value = " VALUE"
		}
		fmt.Fprintf(w, "  %-26s %s\n", dashes+f.Name+value, f.Usage)
	})
}
