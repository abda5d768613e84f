package copy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is bound into a container that does not run is where it will be when it
// runs, whether it ever ran or not; links that an image has on the way lead
// nowhere else.
func TestBindsOfStopped(t *testing.T) {
	h := open(t)
	src, wide, one := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "one")
	err := errors.Join(os.WriteFile(src+"/seen", []byte("bound"), 0o644), os.WriteFile(one, []byte("1"), 0o644), os.Chmod(wide, 0o777))
	if err != nil {
		t.Fatal(err)
	}
	put := filepath.Join(h.dir, "put")
	if err := os.WriteFile(put, []byte("put"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.d.Must(t, "create", "--name", "new", "--mount", "type=bind,src="+src+",dst=/new/deep,readonly", "-v", wide+":/wide", "-v", one+":/etc/one", "--tmpfs", "/mem", "busybox", "cat", "/wide/put")
	for _, state := range []string{"new", "ran"} {
		if out := string(h.read(t, "new:/new/deep/seen")); out != "bound" {
			t.Errorf("%s: a bound file is %q", state, out)
		}
		if out := string(h.read(t, "new:/etc/one")); out != "1" {
			t.Errorf("%s: the file bound is %q", state, out)
		}
		if _, errs, code := h.d.Fief(t, "cp", put, "new:/new/deep/"); code == 0 || !strings.Contains(errs, "marked read-only") {
			t.Errorf("%s: copied to a read-only bind: %d %s", state, code, errs)
		}
		os.Remove(wide + "/put")
		h.d.Must(t, "cp", put, "new:/wide/")
		if b, err := os.ReadFile(wide + "/put"); string(b) != "put" {
			t.Errorf("%s: what was copied to a bind is %q there, %v", state, b, err)
		}
		if out := h.d.Must(t, "start", "-a", "new"); out != "put" {
			t.Errorf("%s: the program read %q", state, out)
		}
	}
	if err := os.RemoveAll(src); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := h.d.Fief(t, "cp", put, "new:/new/deep/"); code == 0 || !strings.Contains(errs, "bind source path does not exist") {
		t.Errorf("the source is gone: %d %s", code, errs)
	}
	h.d.Must(t, "cp", put, "new:/tmp/")
	if left := h.d.Must(t, "diff", "new"); strings.Contains(left, "put") && !strings.Contains(left, "/tmp/put") || strings.Contains(left, "/wide/put") {
		t.Errorf("what was copied to a bind is in the container's layer:\n%s", left)
	}
}

// read returns the content of one file of a container.
func (h *house) read(t *testing.T, from string) []byte {
	t.Helper()
	to := filepath.Join(t.TempDir(), "got")
	h.d.Must(t, "cp", from, to)
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
