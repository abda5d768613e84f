package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserveSize is enough for the pages that a deletion copies (bbolt never
// writes in place), many times over.
const reserveSize = 1 << 20

// reserve is space kept aside in a file, given back when a full file system
// would not even let something be deleted.
type reserve struct{ path string }

// keep takes the space if it is not held and can be had.
func (r reserve) keep() {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it is there already, or cannot be
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, reserveSize); err != nil {
		os.Remove(r.path)
	}
}

// spend gives the space back; false when there was none.
func (r reserve) spend() bool { return os.Remove(r.path) == nil }
