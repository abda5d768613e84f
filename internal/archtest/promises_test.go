package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromisesHaveTests wants every row of docs/promises.md to name a test that
// exists, or to say that it is pending.
func TestPromisesHaveTests(t *testing.T) {
	b, err := os.ReadFile("../../docs/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || !regexp.MustCompile(`^ *\d+ *$`).MatchString(cells[0]) {
			continue
		}
		rows++
		for one := range strings.SplitSeq(cells[2], ",") {
			if why := missing(strings.Fields(one)); why != "" {
				t.Errorf("promise%sis kept by nothing: %s", cells[0], why)
			}
		}
	}
	if rows == 0 {
		t.Fatal("docs/promises.md has no rows")
	}
}

// missing says what is wrong with "DIRECTORY TestName [SCRIPT]", "FILE" or
// "pending".
func missing(kept []string) string {
	if len(kept) == 0 {
		return "the cell is empty"
	}
	if kept[0] == "pending" || kept[0] == "bench" {
		return ""
	}
	path := filepath.Join("../..", kept[0])
	if info, err := os.Stat(path); err != nil {
		return err.Error()
	} else if !info.IsDir() {
		return ""
	}
	if len(kept) < 2 || !declares(path, kept[1]) {
		return kept[0] + " declares no such test"
	}
	if len(kept) > 2 {
		if _, err := os.Stat(filepath.Join(path, "testdata", kept[2])); err != nil {
			return err.Error()
		}
	}
	return ""
}

func declares(dir, test string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "\nfunc "+test+"(") {
			return true
		}
	}
	return false
}

// TestDoorwaysExist wants every `file.go:Func` that docs/life-of-a-run.md names
// to be there.
func TestDoorwaysExist(t *testing.T) {
	b, err := os.ReadFile("../../docs/life-of-a-run.md")
	if err != nil {
		t.Fatal(err)
	}
	refs := regexp.MustCompile("`([a-z0-9_/-]+\\.go):([A-Za-z]+)`").FindAllStringSubmatch(string(b), -1)
	if len(refs) < 10 {
		t.Fatalf("only %d references", len(refs))
	}
	for _, r := range refs {
		code, err := os.ReadFile(filepath.Join("../..", r[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + r[2] + `[(\[]`).Match(code) {
			t.Errorf("%s has no function %s", r[1], r[2])
		}
	}
}
