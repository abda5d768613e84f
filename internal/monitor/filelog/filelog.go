// Package filelog writes a container's output into a file that is rotated by
// rename when it reaches a size, old files compressed if wanted. Each piece is
// one line of the file: a JSON object as Docker's json-file driver has it,
// {"log":"text\n","stream":"stdout","time":"…"}, or a line of the CRI's log
// format, "TIME stdout F text", which the driver `local` uses as well: it keeps
// every byte as it is.
package filelog

import (
	"os"
	"strconv"
	"sync"
	"time"

	"fief/internal/words/fault"
)

// Format says how a piece is noted.
type Format uint8

// The formats.
const (
	JSON Format = iota // Docker's json-file
	CRI                // kubelet's, kubernetes cri-client/pkg/logs: "TIME STREAM P|F TEXT"
)

// Config is how a log is kept.
type Config struct {
	Path    string
	Format  Format
	MaxSize int64  // bytes at which it is rotated; 0: never
	MaxFile int    // files kept including the current one; 0 and 1: one
	Attrs   string // JSON object put into each line of the format JSON; empty: none
	// Compress writes src to dst, gzip'd and with the number of src's inode as
	// the header's comment; it gives up when stop is closed. Nil: old files stay
	// as they are.
	Compress func(stop <-chan struct{}, src, dst *os.File) error
}

// flushAt bounds the memory that waits for one write(2).
const flushAt = 64 << 10

// Log is an open log. Its streams may be written from several goroutines.
type Log struct {
	Config

	mu      sync.Mutex // held across writes of the file: order of lines is order in the file
	file    *os.File
	size    int64  // of the file, without buf
	buf     []byte // whole objects not yet written
	torn    bool   // the file ends within an object
	err     error  // the last failure to write, nil when the last write succeeded
	packing bool   // a goroutine compresses old files
	closed  bool

	stop   chan struct{} // closed by Close
	packed sync.WaitGroup
}

// Open opens or creates the log, mode 0640, and appends to it.
func Open(cfg Config) (*Log, error) {
	cfg.MaxFile = max(cfg.MaxFile, 1)
	l := &Log{Config: cfg, stop: make(chan struct{})}
	f, err := os.OpenFile(cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fault.Wrap(classOf(err), "open log", cfg.Path, err, "")
	}
	l.file = f
	if err := l.mend(); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Internal, "open log", cfg.Path, err, "")
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

// Err returns why the last write failed, nil when it did not. Output that
// cannot be written (a full disk) is dropped in whole objects: a container
// never waits for its log.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Lock implements lines.Sink.
func (l *Log) Lock() { l.mu.Lock() }

// Unlock implements lines.Sink.
func (l *Log) Unlock() { l.mu.Unlock() }

// Close closes the file and ends the compression of old ones, which whoever
// opens the log next takes up. Streams must have been closed before.
func (l *Log) Close() error {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if already {
		return nil
	}
	close(l.stop)
	l.packed.Wait()
	return l.file.Close()
}

// Add implements lines.Sink: it rotates first when the file has reached its size.
func (l *Log) Add(text []byte, stream string, at time.Time) {
	if l.MaxSize > 0 && l.size+int64(len(l.buf)) >= l.MaxSize {
		l.Flush()
		l.rotate()
	}
	if l.Format == CRI {
		l.buf = appendCRI(l.buf, text, stream, at)
	} else {
		l.buf = l.appendJSON(text, stream, at)
	}
	if len(l.buf) >= flushAt {
		l.Flush()
	}
}

func (l *Log) appendJSON(text []byte, stream string, at time.Time) []byte {
	b := append(l.buf, `{"log":`...)
	b = AppendString(b, text)
	b = append(b, `,"stream":"`...)
	b = append(b, stream...)
	b = append(b, '"')
	if l.Attrs != "" {
		b = append(append(b, `,"attrs":`...), l.Attrs...)
	}
	b = append(b, `,"time":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, "\"}\n"...)
}

// appendCRI notes a piece as containerd and CRI-O do: F for a whole line or the
// end of one, P for one that goes on.
func appendCRI(b, text []byte, stream string, at time.Time) []byte {
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(append(b, ' '), stream...), ' ')
	if n := len(text); n > 0 && text[n-1] == '\n' {
		return append(append(b, "F "...), text...)
	}
	return append(append(append(b, "P "...), text...), '\n')
}

// Flush implements lines.Sink. Half an object that a full disk has left gets a
// line of its own, so that it spoils no other.
func (l *Log) Flush() {
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
	fresh, err := os.OpenFile(l.Path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		l.err = err
		return
	}
	if l.MaxFile > 1 {
		l.drop(l.MaxFile - 1)
	}
	for i := l.MaxFile - 1; i > 0; i-- {
		l.shift(i)
	}
	if err := os.Rename(l.Path+".new", l.Path); err != nil {
		l.err = err
		fresh.Close()
		return
	}
	l.file.Close()
	l.file, l.size, l.torn = fresh, 0, false
	if l.Compress != nil && l.MaxFile > 1 && !l.packing && !l.closed {
		l.packing = true
		l.packed.Add(1)
		go l.pack()
	}
}

// drop removes the nth file in whatever form it is.
func (l *Log) drop(n int) {
	for _, ending := range []string{"", packedEnding} {
		if err := os.Remove(l.Path + "." + strconv.Itoa(n) + ending); err != nil && !os.IsNotExist(err) {
			l.err = err
		}
	}
}

// shift makes the file before the nth the nth.
func (l *Log) shift(n int) {
	from, to := l.Path, l.Path+"."+strconv.Itoa(n)
	if n > 1 {
		from += "." + strconv.Itoa(n-1)
	}
	for _, ending := range []string{"", packedEnding} {
		if n == 1 && ending != "" {
			return
		}
		if err := os.Rename(from+ending, to+ending); err != nil && !os.IsNotExist(err) {
			l.err = err
		}
	}
}
