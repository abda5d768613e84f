package fd

import (
	"io"
	"testing"
)

// TestMemory: a sealed file of memory is read from its beginning, and nobody
// changes it.
func TestMemory(t *testing.T) {
	f, err := Memory("some", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := f.WriteAt([]byte("more"), 4); err != nil {
		t.Errorf("before it is sealed: %v", err)
	}
	if err := Seal(f); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a sealed file was written to")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("a sealed file was cut")
	}
	if err := Seal(f); err == nil {
		t.Error("it was sealed twice: seals can be added")
	}
}
