package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserveSize is enough for the pages that a deletion copies (bbolt never
// writes in place), many times over.
const reserveSize = 1 << 20

// Reserve is room kept aside in a file, to be given back when a full file
// system would not even let something be deleted, or the daemon start that is
// to delete it.
type Reserve struct{ Path string }

// Keep takes the room if it is not held and can be had.
func (r Reserve) Keep() {
	f, err := os.OpenFile(r.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it is there already, or cannot be
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, reserveSize); err != nil {
		os.Remove(r.Path)
	}
}

// Spend gives the room back; false when there was none.
func (r Reserve) Spend() bool { return os.Remove(r.Path) == nil }
