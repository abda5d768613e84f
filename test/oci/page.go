package main

import (
	"fmt"
	"os"
	"strings"
)

const (
	tableBegin = "<!-- begin: written by make test-oci UPDATE=1 -->\n"
	tableEnd   = "<!-- end -->\n"
)

// updatePage replaces the table in a page.
func updatePage(path string, expected []expectation, runtimes []runtimeUnderTest, results map[string]map[string]verdict) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), tableBegin)
	old, after, closed := strings.Cut(rest, tableEnd)
	if !found || !closed {
		return fmt.Errorf("%s has no table to replace", path)
	}
	return os.WriteFile(path, []byte(before+tableBegin+table(old, expected, runtimes, results)+tableEnd+after), 0o644)
}

// table is a row for each program and a line that counts. Programs that were not
// run keep the row they have in old.
func table(old string, expected []expectation, runtimes []runtimeUnderTest, results map[string]map[string]verdict) string {
	var b strings.Builder
	b.WriteString("| program |")
	for _, r := range runtimes {
		name := r.name
		if name != "fief-oci" { // whose version is the source's
			name += " " + r.version
		}
		b.WriteString(" " + name + " |")
	}
	b.WriteString(" why fief-oci does not pass |\n|---|" + strings.Repeat("---|", len(runtimes)) + "---|\n")
	before := rows(old)
	passed := make([]int, len(runtimes))
	for _, e := range expected {
		cells := before[e.name]
		if ran, ok := results[e.name]; ok {
			cells = nil
			for _, r := range runtimes {
				cells = append(cells, ran[r.name].cell())
			}
		}
		fmt.Fprintf(&b, "| `%s` |", e.name)
		for i := range runtimes {
			cell := "not run"
			if i < len(cells) {
				cell = cells[i]
			}
			if strings.HasPrefix(cell, "passes") {
				passed[i]++
			}
			b.WriteString(" " + cell + " |")
		}
		b.WriteString(" " + e.reason + " |\n")
	}
	fmt.Fprintf(&b, "| %d programs |", len(expected))
	for _, n := range passed {
		fmt.Fprintf(&b, " %d pass |", n)
	}
	b.WriteString(" |\n")
	return b.String()
}

// rows reads the verdicts of a table, by program.
func rows(table string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " |")
		name, found := strings.CutPrefix(strings.TrimSpace(cells[0]), "`")
		if !found || len(cells) < 3 {
			continue
		}
		for _, c := range cells[1 : len(cells)-1] {
			name := strings.TrimSuffix(name, "`")
			out[name] = append(out[name], strings.TrimSpace(c))
		}
	}
	return out
}
