// Package jsonlog writes a container's output as Docker's json-file driver
// does: one JSON object a line, {"log":"text\n","stream":"stdout","time":"…"},
// lines longer than 16 KiB in pieces of which only the last ends in a newline,
// files rotated by rename when they reach a size. Whoever reads Docker's logs
// can read these.
package jsonlog

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"fief/internal/words/fault"
)

// maxPiece is the longest piece of a line in one object (moby
// daemon/logger/copier.go, defaultBufSize).
const maxPiece = 16 << 10

// flushAt bounds the memory that waits for one write(2).
const flushAt = 64 << 10

// Log is an open log. Its streams may be written from several goroutines.
type Log struct {
	path    string
	maxSize int64
	maxFile int

	mu   sync.Mutex // held across writes of the file: order of lines is order in the file
	file *os.File
	size int64  // of the file, without buf
	buf  []byte // whole objects not yet written
	torn bool   // the file ends within an object
	err  error  // the last failure to write, nil when the last write succeeded
}

// Open opens or creates the log at path, mode 0640, and appends to it. maxSize
// is the size in bytes at which it is rotated, 0 for never; maxFile is how
// many files are kept including the current one, at least one.
func Open(path string, maxSize int64, maxFile int) (*Log, error) {
	l := &Log{path: path, maxSize: maxSize, maxFile: max(maxFile, 1)}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fault.Wrap(classOf(err), "open log", path, err, "")
	}
	l.file = f
	if err := l.mend(); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Internal, "open log", path, err, "")
	}
	return l, nil
}

func classOf(err error) fault.Class {
	if os.IsNotExist(err) {
		return fault.NotFound
	}
	return fault.Internal
}

// mend learns the size and ends an object that a power loss has cut, so that
// the next one starts on a line of its own.
func (l *Log) mend() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.size = info.Size()
	if l.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := l.file.ReadAt(last[:], l.size-1); err != nil || last[0] == '\n' {
		return err
	}
	n, err := l.file.Write([]byte{'\n'})
	l.size += int64(n)
	return err
}

// Stream returns a writer of the named stream, "stdout" or "stderr".
func (l *Log) Stream(name string) *Stream { return &Stream{log: l, name: name} }

// Err returns why the last write failed, nil when it did not. Output that
// cannot be written (a full disk) is dropped in whole objects: a container
// never waits for its log.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close closes the file. Streams must have been closed before.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// add appends one object to the buffer and rotates first when the file has
// reached its size. Preconditions: l.mu held.
func (l *Log) add(text []byte, stream string, at time.Time) {
	if l.maxSize > 0 && l.size+int64(len(l.buf)) >= l.maxSize {
		l.flush()
		l.rotate()
	}
	l.buf = append(l.buf, `{"log":`...)
	l.buf = AppendString(l.buf, text)
	l.buf = append(l.buf, `,"stream":"`...)
	l.buf = append(l.buf, stream...)
	l.buf = append(l.buf, `","time":"`...)
	l.buf = at.UTC().AppendFormat(l.buf, time.RFC3339Nano)
	l.buf = append(l.buf, "\"}\n"...)
	if len(l.buf) >= flushAt {
		l.flush()
	}
}

// flush writes the buffer. Half an object that a full disk has left gets a line
// of its own, so that it spoils no other. Preconditions: l.mu held.
func (l *Log) flush() {
	if len(l.buf) == 0 {
		return
	}
	if l.torn {
		if n, err := l.file.Write([]byte{'\n'}); n == 0 {
			l.err, l.buf = err, l.buf[:0]
			return
		}
		l.size++
	}
	n, err := l.file.Write(l.buf)
	l.err = err
	l.torn = n > 0 && l.buf[n-1] != '\n'
	l.size += int64(n)
	l.buf = l.buf[:0]
	if cap(l.buf) > 4*flushAt {
		l.buf = nil // one burst must not stay in memory for ever
	}
}

// rotate moves path to path.1, path.1 to path.2 and so on, dropping the
// oldest, and starts a new file. A reader that holds the old file finds its
// successor by its place in that chain. When the new file cannot be made the
// old one is kept. Preconditions: l.mu held, l.buf empty.
func (l *Log) rotate() {
	// Made under another name and moved into place: with one file kept there
	// is no moment without a log, and a full disk changes nothing.
	fresh, err := os.OpenFile(l.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		l.err = err
		return
	}
	for i := l.maxFile - 1; i > 0; i-- {
		from := l.path
		if i > 1 {
			from += "." + strconv.Itoa(i-1)
		}
		if err := os.Rename(from, l.path+"."+strconv.Itoa(i)); err != nil && !os.IsNotExist(err) {
			l.err = err
		}
	}
	if err := os.Rename(l.path+".new", l.path); err != nil {
		l.err = err
		fresh.Close()
		return
	}
	l.file.Close()
	l.file, l.size, l.torn = fresh, 0, false
}

// Remove removes the log at path and its rotated files. What is not there is
// no error.
func Remove(path string) error {
	names, err := Files(path)
	if err != nil {
		return err
	}
	for _, name := range append(names, path+".new") {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return fault.Wrap(fault.Internal, "remove log", name, err, "")
		}
	}
	return nil
}

// Files returns the existing files of the log at path, oldest first.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, fault.Wrap(fault.Internal, "list log files of", path, err, "")
	}
	byNumber := map[int]string{}
	highest := -1
	for _, entry := range entries {
		if n := number(entry, filepath.Base(path)); n >= 0 {
			byNumber[n] = filepath.Join(filepath.Dir(path), entry.Name())
			highest = max(highest, n)
		}
	}
	var files []string
	for n := highest; n >= 0; n-- {
		if name, ok := byNumber[n]; ok {
			files = append(files, name)
		}
	}
	return files, nil
}

// number returns 0 for the current file, n for its nth predecessor, -1 for
// anything else.
func number(entry fs.DirEntry, base string) int {
	name := entry.Name()
	if name == base {
		return 0
	}
	if len(name) <= len(base)+1 || name[:len(base)+1] != base+"." {
		return -1
	}
	n, err := strconv.Atoi(name[len(base)+1:])
	if err != nil || n < 1 || n > 1<<20 || strconv.Itoa(n) != name[len(base)+1:] {
		return -1
	}
	return n
}
