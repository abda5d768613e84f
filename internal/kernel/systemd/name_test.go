package systemd

import (
	"path"
	"strings"
	"testing"

	"fief/internal/words/fault"
)

// TestParse: cgroupsPath of the form SLICE:PREFIX:NAME names a slice and a scope.
func TestParse(t *testing.T) {
	for text, want := range map[string]Scope{
		"machine.slice:libpod:3f2a":             {"machine.slice", "libpod-3f2a.scope"},
		":fief-oci:x":                           {"system.slice", "fief-oci-x.scope"},
		"a-b.slice::x.y_z":                      {"a-b.slice", "x.y_z.scope"},
		"-.slice:p:n":                           {"-.slice", "p-n.scope"},
		"kubepods-burstable.slice:cri-o:0abc":   {"kubepods-burstable.slice", "cri-o-0abc.scope"},
		"x.slice:cri-containerd:a:b":            {},
		"/machine/x":                            {},
		"machine:p:n":                           {},
		"a--b.slice:p:n":                        {},
		"-a.slice:p:n":                          {},
		".slice:p:n":                            {},
		"a/b.slice:p:n":                         {},
		"../a.slice:p:n":                        {},
		"a.slice:p:":                            {},
		"a.slice:p:b.slice":                     {},
		"a.slice:p:x/y":                         {},
		"a.slice:p:x y":                         {},
		"a.slice:.p:x":                          {},
		"a.slice:p:" + strings.Repeat("x", 250): {},
	} {
		got, err := Parse(text)
		if want == (Scope{}) {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v, %v; it must be refused", text, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}

// TestExpandSlice: a dash in a slice's name is a step down (systemd.slice(5)).
func TestExpandSlice(t *testing.T) {
	for slice, want := range map[string]string{
		"-.slice": "/", "a.slice": "/a.slice", "a-b.slice": "/a.slice/a-b.slice",
		"foo-bar-baz.slice": "/foo.slice/foo-bar.slice/foo-bar-baz.slice",
	} {
		if got, err := ExpandSlice(slice); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", slice, got, err, want)
		}
	}
}

// FuzzExpandSlice: what is accepted is a path below the root whose last part is
// the slice, and each part continues the one before it.
func FuzzExpandSlice(f *testing.F) {
	for _, s := range []string{"a.slice", "a-b.slice", "-.slice", "..slice", "a..slice", "a-.slice", "--.slice", "a/../b.slice", "é.slice"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, slice string) {
		dir, err := ExpandSlice(slice)
		if err != nil || dir == "/" {
			return
		}
		if path.Clean(dir) != dir || path.Base(dir) != slice || !strings.HasPrefix(dir, "/") {
			t.Fatalf("%q: %q", slice, dir)
		}
		before := ""
		for part := range strings.SplitSeq(dir[1:], "/") {
			if name := strings.TrimSuffix(part, ".slice"); name == part || !strings.HasPrefix(name, before) {
				t.Fatalf("%q: %q", slice, dir)
			}
			before = strings.TrimSuffix(part, ".slice") + "-"
		}
	})
}
