// Command ledger reads the output of `go test -json` on standard input, prints
// failures whole and packages in one line each, counts, and compares what was
// skipped with the list of skips that are allowed, since a skip is a result: a
// test that is skipped and not on the list is a failure.
//
//	go test -json ./... | ledger test/skips.txt
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// tally is what was seen of all tests.
type tally struct {
	passed, failed, skipped int
	output                  map[string][]string // by package and test, until it has passed
	skips                   []string
	bad                     bool
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json … | ledger ALLOWED-SKIPS")
		os.Exit(2)
	}
	allowed, err := readAllowed(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(2)
	}
	t := tally{output: map[string][]string{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // a build error, say
			continue
		}
		t.take(e)
	}
	t.close(allowed)
	fmt.Printf("%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.bad || t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

func (t *tally) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		t.output[key] = append(t.output[key], e.Output)
	case "pass":
		t.end(e, &t.passed)
	case "skip":
		if e.Test != "" {
			t.skips = append(t.skips, key+": "+reason(t.output[key]))
		}
		t.end(e, &t.skipped)
	case "fail", "build-fail":
		t.bad = true
		fmt.Print(strings.Join(t.output[key], ""))
		t.end(e, &t.failed)
	}
}

func (t *tally) end(e event, count *int) {
	delete(t.output, e.Package+" "+e.Test)
	if e.Test != "" {
		*count++
	} else if e.Package != "" && e.Action != "skip" {
		fmt.Printf("%-5s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
	}
}

// reason is the line in which a test said why it was skipped: the last that it
// said, as it said no more.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if _, why, ok := strings.Cut(line, ".go:"); ok {
			_, why, _ = strings.Cut(why, ": ")
			return strings.TrimSpace(why)
		}
	}
	return "no reason given"
}

// close reports skips that are not allowed.
func (t *tally) close(allowed []string) {
	slices.Sort(t.skips)
	for _, s := range t.skips {
		ok := slices.ContainsFunc(allowed, func(a string) bool { return allows(a, s) })
		if !ok {
			t.bad = true
			fmt.Println("skipped, and not on the list of allowed skips:", s)
		}
	}
}

// allows reports whether an entry of the list covers a skip: it has the skip's
// reason or its beginning, and a * in its test's name stands for anything.
func allows(entry, skip string) bool {
	pattern, reason, _ := strings.Cut(entry, ": ")
	name, why, _ := strings.Cut(skip, ": ")
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.HasPrefix(why, reason) && regexp.MustCompile("^"+strings.Join(parts, ".*")+"$").MatchString(name)
}

// readAllowed reads the list: "package test: kind", a line each, # comments.
func readAllowed(path string) (out []string, err error) {
	b, err := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out, err
}
