// Command oci runs the validation programs of opencontainers/runtime-tools
// against fief-oci, and against crun and runc beside it, and compares what
// fief-oci does with the list of what it is known to do.
//
//	go run ./test/oci            run, compare with expected.txt
//	go run ./test/oci -update    and write the table of docs/oci-conformance.md, the rows of what was run
//	go run ./test/oci -only '^linux_' -out DIR    some programs; keep what they said
//
// Every run of a program is alone, in mount, network and pid namespaces of its
// own: with its end whatever it has left behind is gone, but for cgroups, which
// are removed by name.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	update  bool
	only    string
	out     string
	against string
	timeout time.Duration
}

func main() {
	if program := os.Getenv(insideVariable); program != "" {
		os.Exit(inside(program))
	}
	var o options
	flag.BoolVar(&o.update, "update", false, "write the table of docs/oci-conformance.md")
	flag.StringVar(&o.only, "only", "", "regular expression of the programs' names")
	flag.StringVar(&o.out, "out", "", "directory that receives what the programs said")
	flag.StringVar(&o.against, "runtimes", "fief-oci,crun,runc", "which; those that are not there are left out")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Minute, "of one program")
	flag.Parse()
	ok, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether fief-oci does no worse than expected.
func run(o options) (bool, error) {
	wanted, err := regexp.Compile(o.only)
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile("test/oci/expected.txt")
	if err != nil {
		return false, fmt.Errorf("run it at the root of the source: %w", err)
	}
	expected, err := parseExpected(string(text))
	if err != nil {
		return false, fmt.Errorf("expected.txt: %w", err)
	}
	s, err := buildSuite()
	if err != nil {
		return false, err
	}
	defer s.close()
	if err := s.covers(expected); err != nil {
		return false, err
	}
	runtimes, err := s.findRuntimes(o.against)
	if err != nil {
		return false, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	goruntime.LockOSThread() // the thread whose end would end the programs
	good := true
	results := map[string]map[string]verdict{}
	for _, e := range expected {
		if !wanted.MatchString(e.name) || unified() && needsV1(e.name) {
			continue
		}
		results[e.name] = map[string]verdict{}
		for _, r := range runtimes {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			v, out := s.run(ctx, e.name, r.path, o.timeout)
			results[e.name][r.name] = v
			fmt.Printf("%-32s %-9s %s\n", e.name, r.name, strings.ReplaceAll(v.cell(), "*", ""))
			if err := keep(o.out, r.name, e.name, out); err != nil {
				return false, err
			}
		}
		v, ran := results[e.name]["fief-oci"]
		if why := e.worse(v); ran && why != "" {
			good = false
			fmt.Println("WORSE", why)
		} else if ran && v.word() != e.word {
			fmt.Printf("better: %s was expected to %s\n", e.name, e.word)
		}
	}
	if o.update {
		return good, updatePage("docs/oci-conformance.md", expected, runtimes, results)
	}
	return good, nil
}

// unified reports whether the host has cgroup v2 alone.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// needsV1 names the programs that look at cgroups: the suite knows v1's only.
func needsV1(name string) bool {
	return strings.HasPrefix(name, "linux_cgroups_") || name == "delete_resources"
}

// runtimeUnderTest is a runtime and what it calls its version.
type runtimeUnderTest struct {
	name, path, version string
}

func (s *suite) findRuntimes(names string) ([]runtimeUnderTest, error) {
	var out []runtimeUnderTest
	for _, name := range strings.Split(names, ",") {
		path, err := filepath.Abs("bin/fief-oci")
		if name != "fief-oci" {
			path, err = exec.LookPath(name)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is not there, and left out\n", name)
			continue
		}
		version, err := exec.Command(path, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --version: %w", path, err)
		}
		first, _, _ := strings.Cut(string(version), "\n")
		words := strings.Fields(first)
		if name == "crun" {
			script := filepath.Join(s.work, name)
			if err := os.WriteFile(script, fmt.Appendf(nil, older, path), 0o755); err != nil {
				return nil, err
			}
			path = script
		}
		out = append(out, runtimeUnderTest{name, path, words[len(words)-1]})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no runtime is there")
	}
	return out, nil
}

// keep writes what a program said to a file.
func keep(dir, runtime, name, out string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, runtime), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, runtime, name+".tap"), []byte(out), 0o644)
}

// covers compares the programs there are with those that are listed.
func (s *suite) covers(expected []expectation) error {
	var listed []string
	for _, e := range expected {
		listed = append(listed, e.name)
	}
	slices.Sort(listed)
	if !slices.Equal(listed, s.programs) {
		return fmt.Errorf("expected.txt lists %d programs, the suite has %d: %s", len(listed), len(s.programs), strings.Join(s.programs, " "))
	}
	return nil
}
