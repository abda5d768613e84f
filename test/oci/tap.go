package main

import (
	"strconv"
	"strings"
)

// point is one assertion of a program.
type point struct {
	ok, skipped bool
	text        string
}

// tap is what a program said in the Test Anything Protocol.
type tap struct {
	points []point
	plan   int // how many points it meant to make; -1: it did not say
	bailed bool
	faults int // diagnostics that speak of an error
}

// parseTAP reads a program's output (https://testanything.org, version 13).
// Diagnostics, which here hold whole outputs of containers with points of their
// own, are indented or comments, and are left out with all else that is no point;
// that they speak of an error is noted.
func parseTAP(out string) tap {
	t := tap{plan: -1}
	inYAML := false
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case inYAML:
			inYAML = line != "  ..."
			if strings.HasPrefix(line, `    "error": "`) && !strings.HasPrefix(line, `    "error": ""`) {
				t.faults++
			}
		case line == "  ---":
			inYAML = true
		case strings.HasPrefix(line, "Bail out!"):
			t.bailed = true
		case strings.HasPrefix(line, "1.."):
			number, _, _ := strings.Cut(line[3:], " ")
			if n, err := strconv.Atoi(number); err == nil && n >= 0 {
				t.plan = max(t.plan, 0) + n // some print two streams
			}
		default:
			if p, ok := parsePoint(line); ok {
				t.points = append(t.points, p)
			}
		}
	}
	return t
}

// parsePoint reads `ok 3 - text`, `not ok 3`, `ok 3 # SKIP why`.
func parsePoint(line string) (point, bool) {
	rest, bad := strings.CutPrefix(line, "not ")
	rest, ok := strings.CutPrefix(rest, "ok")
	if !ok || rest != "" && rest[0] != ' ' {
		return point{}, false
	}
	p := point{ok: !bad}
	rest = strings.TrimLeft(strings.TrimSpace(rest), "0123456789")
	rest = strings.TrimPrefix(strings.TrimSpace(rest), "- ")
	if text, directive, found := strings.Cut(rest, "# "); found && len(directive) >= 4 && strings.EqualFold(directive[:4], "skip") {
		p.skipped = true
		rest = text + directive[4:]
	}
	p.text = strings.TrimSpace(rest)
	return p, true
}
