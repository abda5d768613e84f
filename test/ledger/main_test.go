package main

import "testing"

// TestAllows: an entry covers the reasons that begin as its own, of the tests that
// its pattern means and of no others.
func TestAllows(t *testing.T) {
	const skip = "fief/a/b TestOne/fs=ext4/copy: kernel: no such: thing"
	for entry, want := range map[string]bool{
		"fief/a/b TestOne/fs=ext4/copy: kernel: no such": true,
		"fief/a/b *: kernel:":                            true,
		"fief/a/b TestOne/*/copy: kernel:":               true,
		"fief/a/b */copy: kernel: no":                    true,
		"fief/a *: kernel:":                              false,
		"fief/a/b TestOne: kernel:":                      false,
		"fief/a/b TestOne/*/cop: kernel:":                false,
		"fief/a/b *: tool:":                              false,
		"fief/a/b .*: kernel:":                           false,
	} {
		if allows(entry, skip) != want {
			t.Errorf("%q: %v", entry, !want)
		}
	}
}

// TestReason: what a test said before it was skipped is not why.
func TestReason(t *testing.T) {
	said := []string{"=== RUN   TestOne\n", "    a_test.go:102: weak: so it is\n", "        and so on\n", "    b_test.go:7: tool: go\n", "--- SKIP: TestOne (0.00s)\n"}
	if got := reason(said); got != "tool: go" {
		t.Errorf("%q", got)
	}
	if got := reason(said[:1]); got != "no reason given" {
		t.Errorf("%q", got)
	}
}
