package logread

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A follower is woken by its own log, also after a rotation, and not by those
// beside it.
func TestWatchOwnLog(t *testing.T) {
	dir := t.TempDir()
	own, other := filepath.Join(dir, "own"), filepath.Join(dir, "other")
	add := func(path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("line\n")
		f.Close()
	}
	add(own)
	add(other)
	w := watch(dir)
	defer w.close()
	if w.file == nil {
		t.Fatal("no inotify instance")
	}
	woken := func(within time.Duration) bool {
		select {
		case <-w.changed:
			return true
		case <-time.After(within):
			return false
		}
	}
	w.see(own)
	for range 100 {
		add(other)
	}
	if woken(100 * time.Millisecond) {
		t.Error("another log wakes it")
	}
	for range 3 {
		w.see(own)
		add(own)
		if !woken(20 * time.Second) {
			t.Error("its own log does not wake it")
		}
		if err := os.Rename(own, own+".1"); err != nil {
			t.Fatal(err)
		}
		add(own)
		if !woken(20 * time.Second) {
			t.Error("a rotation does not wake it")
		}
	}
	if w.gone.Load() {
		t.Error("the directory is there")
	}
}
