package store

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// reserveSize is enough for the pages that a deletion copies (bbolt never
// writes in place), many times over.
const reserveSize = 1 << 20

// reserveFiles is more inodes than the start of a daemon takes, with its trials
// of the file system.
const reserveFiles = 96

// Reserve is room kept aside in a file, to be given back when a full file
// system would not even let something be deleted, or the daemon start that is
// to delete it.
type Reserve struct {
	Path  string
	Files bool // keep inodes as well: empty files below Path.d
}

// Keep takes the room if it is not held and can be had.
func (r Reserve) Keep() {
	if r.Files {
		r.keepFiles()
	}
	f, err := os.OpenFile(r.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return // it is there already, or cannot be
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, reserveSize); err != nil {
		os.Remove(r.Path)
	}
}

func (r Reserve) keepFiles() {
	dir := r.Path + ".d"
	if os.Mkdir(dir, 0o700) != nil {
		return // it is there already, or cannot be
	}
	for i := range reserveFiles {
		f, err := os.OpenFile(dir+"/"+strconv.Itoa(i), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			os.RemoveAll(dir)
			return
		}
		f.Close()
	}
}

// Spend gives the room back; false when there was none.
func (r Reserve) Spend() bool {
	spent := os.Remove(r.Path) == nil
	if _, err := os.Lstat(r.Path + ".d"); r.Files && err == nil {
		spent = os.RemoveAll(r.Path+".d") == nil || spent
	}
	return spent
}
