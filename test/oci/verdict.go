package main

import (
	"fmt"
	"strings"
)

// verdict is how a program ended under a runtime.
type verdict struct {
	good, bad, skipped int
	plan               int // -1: none
	trouble            string
	silent             bool     // it made no points and ended well
	failed             []string // texts of the points that failed
}

// judge makes a verdict of a program's output and of how it ended: trouble is
// empty when it ended by itself with the exit code 0.
func judge(out, trouble string) verdict {
	t := parseTAP(out)
	v := verdict{plan: t.plan, trouble: trouble}
	for _, p := range t.points {
		switch {
		case p.skipped:
			v.skipped++
		case p.ok:
			v.good++
		default:
			v.bad++
			v.failed = append(v.failed, p.text)
		}
	}
	seen := len(t.points)
	switch {
	case v.trouble != "":
	case t.bailed:
		v.trouble = "bailed out"
	case seen == 0 && t.faults > 0:
		v.trouble = "reports an error"
	case seen == 0 && t.plan <= 0: // some make no points, and end otherwise when they are not content
		v.silent = true
	case t.plan >= 0 && t.plan != seen:
		v.trouble = fmt.Sprintf("%d points of %d", seen, t.plan)
	}
	return v
}

// word is pass, skip or fail.
func (v verdict) word() string {
	switch {
	case v.trouble != "" || v.bad > 0:
		return "fail"
	case v.good == 0 && !v.silent:
		return "skip"
	}
	return "pass"
}

// cell is the verdict in a table.
func (v verdict) cell() string {
	counts := fmt.Sprintf("%d/%d", v.good, v.good+v.bad)
	if v.skipped > 0 && v.good+v.bad > 0 {
		counts += fmt.Sprintf(", %d skipped", v.skipped)
	}
	switch {
	case v.word() == "skip":
		return "skips"
	case v.silent && v.word() == "pass":
		return "passes"
	case v.word() == "pass":
		return "passes " + counts
	case v.good+v.bad == 0:
		return "**fails**: " + v.trouble
	case v.trouble != "":
		return "**fails** " + counts + ", " + v.trouble
	}
	return "**fails** " + counts
}

// expectation is a line of expected.txt: what fief-oci is known to do.
type expectation struct {
	name, word, reason string
}

// parseExpected reads `name pass`, `name skip: reason` and `name fail: reason`,
// a line each; # begins a comment.
func parseExpected(text string) ([]expectation, error) {
	var out []expectation
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		word, reason, _ := strings.Cut(rest, ": ")
		e := expectation{name, word, strings.TrimSpace(reason)}
		switch {
		case seen[name]:
			return nil, fmt.Errorf("%s is there twice", name)
		case word != "pass" && word != "fail" && word != "skip":
			return nil, fmt.Errorf("%q: want pass, skip: reason or fail: reason", line)
		case (word == "pass") != (e.reason == ""):
			return nil, fmt.Errorf("%q: a reason is for what does not pass, and only for that", line)
		}
		seen[name] = true
		out = append(out, e)
	}
	return out, nil
}

// worse says in what way a verdict is worse than expected, or is empty.
func (e expectation) worse(v verdict) string {
	rank := map[string]int{"fail": 0, "skip": 1, "pass": 2}
	if rank[v.word()] >= rank[e.word] {
		return ""
	}
	why := v.cell()
	if len(v.failed) > 0 {
		why += ": " + strings.Join(v.failed, "; ")
	}
	return fmt.Sprintf("%s: expected to %s, it %s", e.name, e.word, strings.ReplaceAll(why, "*", ""))
}
