package cgroup

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"fief/internal/words/fault"
)

// frozenNow reads what the kernel says of a process: it is frozen inside
// do_freezer_trap, which ps shows as sleeping, so the group's event is asked.
func frozenNow(t *testing.T, tr *Tree, name string) bool {
	t.Helper()
	f, err := tr.file(tr.dir(name)+"/cgroup.events", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	text, err := readAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), "frozen 1")
}

func TestFreeze(t *testing.T) {
	tr := tree(t)
	dir, err := tr.Create("d")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	defer tr.Remove("d")
	cmd := within(t, dir)
	for range 2 {
		if err := tr.Freeze(context.Background(), "d"); err != nil || !frozenNow(t, tr, "d") {
			t.Fatalf("freeze: %v", err)
		}
		if frozen, err := tr.Frozen("d"); err != nil || !frozen {
			t.Errorf("frozen: %v, %v", frozen, err)
		}
		if err := tr.Thaw("d"); err != nil {
			t.Fatal(err)
		}
		for until := time.Now().Add(time.Minute); frozenNow(t, tr, "d"); {
			if time.Now().After(until) {
				t.Fatal("still frozen")
			}
		}
	}
	if err := tr.Freeze(context.Background(), "d"); err != nil {
		t.Fatal(err)
	}
	if err := tr.Kill("d"); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", cmd.Process.Pid)); err != nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("a frozen process cannot be killed")
		}
	}
	if err := tr.Freeze(context.Background(), "absent"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := tr.Thaw("absent"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := (&Tree{}).Freeze(context.Background(), "d"); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
}
