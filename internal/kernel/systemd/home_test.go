package systemd

import (
	"testing"

	"fief/internal/words/fault"
)

// TestHomeIn: each slice has one home, in its cgroup.
func TestHomeIn(t *testing.T) {
	for slice, want := range map[string]string{
		"": "/system.slice/fief-containers.service", "system.slice": "/system.slice/fief-containers.service",
		"a-b.slice": "/a.slice/a-b.slice/fief-containers-of-a-b.service", "-.slice": "/fief-containers-of-root.service",
	} {
		h, err := HomeIn(slice)
		if err != nil || h.Dir() != want {
			t.Errorf("%q: %s, %v; want %s", slice, h.Dir(), err, want)
		}
	}
	for _, slice := range []string{"a", "/a.slice", "a--b.slice", "a b.slice"} {
		if h, err := HomeIn(slice); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", slice, h, err)
		}
	}
}
