package shift

import (
	"os"
	"testing"

	"fief/internal/kernel/mnt/mnttest"
)

func TestMain(m *testing.M) {
	os.Exit(mnttest.Main(m))
}

// TestStageLeavesTheProcess: what /proc/self shows is the first thread's, and
// that is never a stage's.
func TestStageLeavesTheProcess(t *testing.T) {
	mnttest.NeedRoot(t)
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s, err := NewStage(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the process was in %s, is in %s, %v", before, after, err)
	}
}
