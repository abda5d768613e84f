package logread

import (
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"fief/internal/monitor/filelog"
)

// part is one open file of a log: as it is on disk, which tells who it is, and
// the text in it, which is the same file unless it is compressed.
type part struct {
	disk   *os.File
	text   *os.File // nil until open
	packed bool
}

func openPart(f filelog.File) (*part, error) {
	disk, err := os.Open(f.Name)
	if err != nil {
		return nil, err
	}
	return &part{disk: disk, packed: f.Packed}, nil
}

// open returns the text. That of a compressed file is unpacked into memory that
// goes with the part: reading backwards needs all of it.
func (p *part) open() (*os.File, error) {
	if p.text != nil {
		return p.text, nil
	}
	if !p.packed {
		p.text = p.disk
		return p.text, nil
	}
	from, err := gzip.NewReader(p.disk)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("fief-log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p.text = os.NewFile(uintptr(fd), p.disk.Name())
	if _, err := io.Copy(p.text, from); err != nil {
		return nil, err
	}
	return p.text, nil
}

func (p *part) close() {
	p.disk.Close()
	if p.text != nil && p.text != p.disk {
		p.text.Close()
	}
}

// packedFrom is the inode number of the file that was compressed into the one at
// name; empty when it cannot be told.
func packedFrom(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return ""
	}
	return z.Comment
}

func inode(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "-"
	}
	return strconv.FormatUint(st.Ino, 10)
}
