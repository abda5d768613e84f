package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

const module = "fief/"

// list asks the go command about every package of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,GoFiles,Imports,Deps", "./...")
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// rule is a row of docs/map.md.
type rule struct {
	patterns, names []string
	reason          string
}

// rules reads the n-th table of the map.
func rules(t *testing.T, n int) []rule {
	t.Helper()
	b, err := os.ReadFile("../../docs/map.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []rule
	table, inside := -1, false
	for line := range strings.Lines(string(b)) {
		isRow := strings.HasPrefix(line, "|")
		if isRow && !inside {
			table++
		}
		inside = isRow
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !isRow || table != n || len(cells) != 3 || strings.HasPrefix(cells[0], "--") || strings.TrimSpace(cells[0]) == "package" {
			continue
		}
		out = append(out, rule{split(cells[0]), split(cells[1]), strings.TrimSpace(cells[2])})
	}
	if len(out) == 0 {
		t.Fatalf("docs/map.md has no table %d", n)
	}
	return out
}

func split(cell string) (out []string) {
	for s := range strings.SplitSeq(cell, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// matches reports whether one of the patterns fits a path of this module.
func matches(patterns []string, path string) bool {
	for _, p := range patterns {
		stem, open := strings.CutSuffix(p, "…")
		if path == p || open && (strings.HasPrefix(path, stem) || path == strings.TrimSuffix(stem, "/")) {
			return true
		}
	}
	return false
}

func TestImportsFollowTheMap(t *testing.T) {
	rows := rules(t, 0)
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		row := find(rows, path)
		if row == nil {
			t.Errorf("%s stands on no row of docs/map.md", path)
			continue
		}
		for _, imp := range p.Imports {
			own, local := strings.CutPrefix(imp, module)
			if local && !matches([]string{"internal/words/…"}, own) && !matches(row.names, own) {
				t.Errorf("%s imports %s, but: %s", path, own, row.reason)
			}
		}
	}
}

func find(rows []rule, path string) *rule {
	for i := range rows {
		if matches(rows[i].patterns, path) {
			return &rows[i]
		}
	}
	return nil
}

func TestForbiddenLinks(t *testing.T) {
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, row := range rules(t, 1) {
			if !matches(row.patterns, path) {
				continue
			}
			reach := p.Deps
			if strings.Contains(row.reason, "not directly") {
				reach = p.Imports
			}
			for _, dep := range reach {
				if matches(row.names, dep) {
					t.Errorf("%s links %s, but: %s", path, dep, row.reason)
				}
			}
		}
	}
}
