package archtest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityHasTests wants every row of docs/security.md to name a test that
// exists, all points of the list to be there, and every attack to have a number.
func TestSecurityHasTests(t *testing.T) {
	b, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	point, cve := regexp.MustCompile(`^ *[A-I](\d+) `), regexp.MustCompile(`^ *CVE-\d{4}-\d+ *$`)
	points, attacks := map[string]bool{}, 0
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 {
			continue
		}
		m := point.FindStringSubmatch(cells[0])
		switch {
		case m != nil:
			points[m[1]] = true
		case cve.MatchString(cells[0]):
			attacks++
		default:
			continue
		}
		if why := missing(strings.Fields(cells[2])); why != "" {
			t.Errorf("%s is kept by nothing: %s", strings.TrimSpace(cells[0]), why)
		}
	}
	if len(points) != 26 || attacks < 16 {
		t.Errorf("%d points and %d attacks, want 26 and 16", len(points), attacks)
	}
}
