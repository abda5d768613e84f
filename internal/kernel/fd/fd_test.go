package fd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDup(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := Dup(f)
	if err != nil {
		t.Fatal(err)
	}
	CloseAll(f, nil)
	flags, err := unix.FcntlInt(d.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 || d.Name() != f.Name() {
		t.Error(flags, d.Name(), err)
	}
	if _, err := os.Stat(Path(d)); err != nil {
		t.Error(err)
	}
	d.Close()
	if _, err := Dup(Wrap(1<<20, "closed")); err == nil {
		t.Error("a bad descriptor was duplicated")
	}
}
