package fast

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"fief/internal/door/native/cmdline"
	"fief/internal/words/ask"
)

// Every flag that goes the short way takes a value exactly if the grammar says
// so, and every short form is known.
func TestTablesAgreeWithTheGrammar(t *testing.T) {
	run, exec := cmdline.NewFlagSet("run"), cmdline.NewFlagSet("exec")
	cmdline.RunFlags(run, true)
	cmdline.ExecFlags(exec)
	for _, c := range []struct {
		fs    *pflag.FlagSet
		table func(string) treat
	}{{run, runFlag}, {exec, execFlag}} {
		c.fs.VisitAll(func(f *pflag.Flag) {
			switch got := c.table(f.Name); got {
			case long:
			case plain, detach:
				if f.NoOptDefVal == "" {
					t.Errorf("--%s takes a value", f.Name)
				}
			default:
				if f.NoOptDefVal != "" {
					t.Errorf("--%s takes no value", f.Name)
				}
			}
			if f.Shorthand != "" && c.table(f.Name) != long && longName(f.Shorthand[0]) != f.Name {
				t.Errorf("-%s is not known as --%s", f.Shorthand, f.Name)
			}
		})
	}
}

// What needs the client's files, environment or terminal goes the long way.
func TestScan(t *testing.T) {
	for words, want := range map[string]bool{
		"run img":                          true,
		"run --rm -i --network none img x": true,
		"run -e A=1 img":                   true,
		"run -eA=1 img":                    true,
		"run -die A=1 img":                 true,
		"--host unix:///x run img":         true,
		"exec -i box sh":                   true,
		"run -- img":                       true,
		"run -w /tmp -t img":               false,
		"run img -t":                       true,
		"run -it img":                      false,
		"run -e A img":                     false,
		"run -eA img":                      false,
		"run --env A img":                  false,
		"run --env-file x img":             false,
		"run --cidfile x img":              false,
		"run --pull always img":            false,
		"run --security-opt seccomp=x img": false,
		"run --dry-run img":                false,
		"run --trace img":                  false,
		"run --help":                       false,
		"run --rm=false img":               false,
		"run --privileged --pid host img":  true,
		"run --ipc=none --uts host img":    true,
		"run --cgroupns host img":          true,
		"run --subuidname a img":           true,
		"run --privileged=false img":       false,
		"run --nonsense img":               false,
		"run -w":                           false,
		"run":                              false,
		"ps":                               false,
		"":                                 false,
	} {
		if _, got := Scan(strings.Fields(words)); got != want {
			t.Errorf("%q: %v", words, got)
		}
	}
}

// Whose ids a container may get is only in the client's environment.
func TestScanSeesTheCaller(t *testing.T) {
	for words, want := range map[string]bool{
		"run img":                              false,
		"run --userns host img":                false,
		"run --userns=auto:size=5 img":         false,
		"run --userns container:keep-id img":   false,
		"run --userns keep-id img":             true,
		"run --userns=keep-id:uid=5 img":       true,
		"run --userns nomap --userns host img": true,
		"run img --userns keep-id":             false,
	} {
		if l, ok := Scan(strings.Fields(words)); !ok || l.Caller != want {
			t.Errorf("%q: %v %v", words, l.Caller, ok)
		}
	}
}

// The scanner and the grammar must agree where the flags end, whatever the
// words are: else fief would print an id that it should not, or take a
// container's flag for its own.
func FuzzScan(f *testing.F) {
	f.Add("run\x00-d\x00-e\x00A=1\x00img\x00-t")
	f.Add("run\x00-de\x00A=1\x00img")
	f.Add("exec\x00-i\x00box\x00-d")
	f.Add("run\x00--userns=keep-id\x00--privileged\x00--pid\x00host\x00img")
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Split(line, "\x00")
		l, ok := Scan(words)
		if !ok {
			return
		}
		if l.Exec {
			e, err := cmdline.ParseExec(l.Args, cmdline.Client{Dir: "/"})
			if err == nil && (e.Detach != l.Detach || e.Ask.TTY) {
				t.Errorf("%q: detach %v, terminal %v", words, e.Detach, e.Ask.TTY)
			}
			return
		}
		r, err := cmdline.ParseRun(l.Args, cmdline.Client{Dir: "/"})
		if err == nil && (r.Detach != l.Detach || r.Ask.TTY || r.CIDFile != "" || r.DryRun || r.Trace) {
			t.Errorf("%q: detach %v, %+v", words, l.Detach, r)
		}
		switch r.Ask.Userns.(type) {
		case ask.UsernsKeepID, ask.UsernsNomap:
			if !l.Caller {
				t.Errorf("%q: the caller is not seen", words)
			}
		}
	})
}
