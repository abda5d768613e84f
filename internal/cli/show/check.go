package show

import (
	"fmt"
	"io"
	"strings"

	"fief/internal/words/record"
)

// Marks are how states are drawn, and what stands before an advice.
type Marks struct {
	state map[record.CheckState]string
	fix   string
}

// Signs are for terminals that say they can draw them, Letters for all else.
func Signs() Marks {
	return Marks{map[record.CheckState]string{
		record.CheckOK: "✓", record.CheckWarn: "!", record.CheckFail: "✗", record.CheckInfo: "·", record.CheckSkipped: "-",
	}, "→ "}
}

// Letters are words of one width.
func Letters() Marks {
	return Marks{map[record.CheckState]string{
		record.CheckOK: "ok     ", record.CheckWarn: "warning", record.CheckFail: "FAILED ", record.CheckInfo: "info   ", record.CheckSkipped: "skipped",
	}, "fix: "}
}

// Checks is the report of check: a paragraph for each group, in the order in
// which they first come, and a line that sums up. With brief only warnings and
// failures are in it.
func Checks(w io.Writer, checks []record.Check, marks Marks, brief bool) {
	var groups []string
	in := map[string][]record.Check{}
	sum := map[record.CheckState]int{}
	for _, c := range checks {
		sum[c.State]++
		if brief && c.State != record.CheckWarn && c.State != record.CheckFail {
			continue
		}
		if in[c.Group] == nil {
			groups = append(groups, c.Group)
		}
		in[c.Group] = append(in[c.Group], c)
	}
	for _, g := range groups {
		fmt.Fprintln(w, title(g))
		for _, c := range in[g] {
			checkLines(w, c, marks)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%d ok, %s, %s", sum[record.CheckOK], several(sum[record.CheckWarn], "warning"), several(sum[record.CheckFail], "failure"))
	if n := sum[record.CheckSkipped]; n > 0 {
		fmt.Fprintf(w, ", %d skipped", n)
	}
	fmt.Fprintln(w)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// checkLines is one check: what there is, and below it what it means and what to
// do where it is not well.
func checkLines(w io.Writer, c record.Check, marks Marks) {
	line := "  " + marks.state[c.State] + " " + c.Name
	if c.Found != "" {
		line += ": " + Printable(c.Found)
	}
	fmt.Fprintln(w, line)
	indent := strings.Repeat(" ", 3+len([]rune(marks.state[c.State])))
	if c.Why != "" {
		fmt.Fprintln(w, indent+"  "+Printable(c.Why))
	}
	if c.Fix != "" {
		fmt.Fprintln(w, indent+"  "+marks.fix+Printable(c.Fix))
	}
}
