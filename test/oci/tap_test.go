package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestJudge: what each kind of output and ending is taken for.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		out, trouble, word, cell string
	}{
		{"TAP version 13\n1..2\nok 1 - a\nok 2 - b\n", "", "pass", "passes 2/2"},
		{"ok 1 - a\nok 2 # SKIP why\n1..2\n", "", "pass", "passes 1/1, 1 skipped"},
		{"1..1\nok 1 # SKIP only on Solaris\n", "", "skip", "skips"},
		{"1..2\nok 1\nnot ok 2\n", "", "fail", "**fails** 1/2"},
		{"1..3\nok 1 - a\n", "", "fail", "**fails** 1/1, 1 points of 3"},
		{"ok 1 - a\n", "exit code 1", "fail", "**fails** 1/1, exit code 1"},
		{"ok 1 - a\nBail out! no root\n", "", "fail", "**fails** 1/1, bailed out"},
		{"", "", "pass", "passes"},
		{"", "exit code 1", "fail", "**fails**: exit code 1"},
		{"TAP version 13\n1..0\n", "", "pass", "passes"},
		{"TAP version 13\n1..2\n", "", "fail", "**fails**: 0 points of 2"},
		{"TAP version 13\n  ---\n  {\n    \"error\": \"hooks\"\n  }\n  ...\n1..0\n", "", "fail", "**fails**: reports an error"},
		{"1..2\nok 1\nok 2\nTAP version 13\n1..0\n", "", "pass", "passes 2/2"},
		{"okay\nnotok 1\n", "timeout", "fail", "**fails**: timeout"},
		{"ok 1 - a\n  ---\n  not ok 1 - of a container\nnot ok 7 - of one, too\n  ...\n# not ok 2\n1..1\n", "", "pass", "passes 1/1"},
		{"1..many\nok 1 - has a # in it\r\n", "", "pass", "passes 1/1"},
	} {
		v := judge(c.out, c.trouble)
		if v.word() != c.word || v.cell() != c.cell {
			t.Errorf("%q: %s, %q, want %s, %q", c.out, v.word(), v.cell(), c.word, c.cell)
		}
	}
	if v := judge("not ok 1 - first\nok 2 - x\nnot ok 3\n", ""); fmt.Sprintf("%q", v.failed) != `["first" ""]` {
		t.Errorf("%q", v.failed)
	}
}

// TestExpected: a list is read whole or not at all, and only what is worse than
// it counts.
func TestExpected(t *testing.T) {
	list, err := parseExpected("# comment\n\na pass\nb fail: the suite: it is wrong\nc skip: not here\n")
	if err != nil || len(list) != 3 || list[1] != (expectation{"b", "fail", "the suite: it is wrong"}) {
		t.Fatal(list, err)
	}
	pass, skip, fail := judge("ok 1\n", ""), judge("ok 1 # skip\n", ""), judge("not ok 1 - why\n", "")
	for i, want := range []string{"-sf", "---", "--f"} {
		got := ""
		for j, v := range []verdict{pass, skip, fail} {
			if list[i].worse(v) == "" {
				got += "-"
			} else {
				got += string("psf"[j])
			}
		}
		if got != want {
			t.Errorf("%v: %s, want %s", list[i], got, want)
		}
	}
	if why := list[0].worse(fail); !strings.Contains(why, "expected to pass") || !strings.Contains(why, "why") {
		t.Error(why)
	}
	for _, bad := range []string{"a", "a pass: but", "a fail", "a fail:", "a maybe: x", "a pass\na pass\n"} {
		if _, err := parseExpected(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestTable: rows of programs that were not run stay, and count.
func TestTable(t *testing.T) {
	list := []expectation{{"a", "pass", ""}, {"b", "fail", "why"}, {"c", "pass", ""}}
	runtimes := []runtimeUnderTest{{"fief-oci", "", "1"}, {"runc", "", "1.1"}}
	good, bad := judge("ok 1\n", ""), judge("not ok 1\n", "")
	first := table("", list, runtimes, map[string]map[string]verdict{"a": {"fief-oci": good, "runc": bad}, "b": {"fief-oci": bad, "runc": good}})
	second := table(first, list, runtimes, map[string]map[string]verdict{"a": {"fief-oci": good, "runc": good}})
	for _, want := range []string{"| `a` | passes 1/1 | passes 1/1 |  |\n", "| `b` | **fails** 0/1 | passes 1/1 | why |\n", "| `c` | not run | not run |  |\n", "| 3 programs | 1 pass | 2 pass | |\n"} {
		if !strings.Contains(second, want) {
			t.Errorf("no %q in\n%s", want, second)
		}
	}
}

// FuzzTAP: every output has a verdict, and whoever passes has said so.
func FuzzTAP(f *testing.F) {
	f.Add("TAP version 13\n1..2\nok 1 - a\n  ---\n  x\n  ...\nnot ok 2 # SKIP b\n")
	f.Fuzz(func(t *testing.T, out string) {
		v := judge(out, "")
		if v.word() == "pass" && (v.good == 0 && !v.silent || v.bad > 0) {
			t.Errorf("%+v", v)
		}
		if strings.Contains(v.cell(), "\n") {
			t.Errorf("%q", v.cell())
		}
	})
}
