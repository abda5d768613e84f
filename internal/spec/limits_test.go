package spec

import "testing"

// Without ptrace the limits are this process's own, but for the soft limit of
// open files, which Go has raised.
func TestOwnLimits(t *testing.T) {
	list, err := ownLimits()
	if err != nil || len(list) != 16 {
		t.Fatalf("%d limits, %v", len(list), err)
	}
	for _, l := range list {
		if l.Name == "nofile" && (l.Soft > 1024 || l.Hard >= 0 && l.Hard < l.Soft) {
			t.Errorf("nofile is %d:%d", l.Soft, l.Hard)
		}
	}
}
