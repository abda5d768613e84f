package monitor

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGone(t *testing.T) {
	if (Attach{}).Gone() {
		t.Error("a client that nobody can look at is gone")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for ours, theirs := range map[*os.File]*os.File{
		os.NewFile(uintptr(fds[0]), "ours"): os.NewFile(uintptr(fds[1]), "theirs"),
		reader:                              writer,
	} {
		at := Attach{Alive: ours}
		if at.Gone() {
			t.Error("gone while the client holds its end")
		}
		theirs.Close()
		if !at.Gone() {
			t.Error("not gone")
		}
		ours.Close()
		if !at.Gone() {
			t.Error("not gone when closed here")
		}
	}
}
