// Package lines cuts a container's output into the pieces that log drivers
// note: lines, and lines longer than 16 KiB in pieces of which only the last
// ends in a newline.
package lines

import (
	"bytes"
	"sync"
	"time"
	"unicode/utf8"
)

// MaxPiece is the longest piece of a line, without its newline (moby
// daemon/logger/copier.go, defaultBufSize).
const MaxPiece = 16 << 10

// Sink is where a log driver takes pieces. The lock is held over Add and Flush;
// the order of pieces is the order in the log.
type Sink interface {
	sync.Locker
	// Add takes one piece; text is the caller's and ends in a newline unless the
	// line goes on. It may keep it until Flush.
	Add(text []byte, stream string, at time.Time)
	// Flush brings what was added to where it is kept.
	Flush()
	// Close is called without the lock, when all streams have been closed.
	Close() error
}

// Stream cuts one output stream into lines. It is used by one goroutine.
type Stream struct {
	to   Sink
	name string
	part []byte // the beginning of a line whose newline has not come, at most MaxPiece
}

// NewStream returns the writer of the named stream, "stdout" or "stderr".
func NewStream(to Sink, name string) *Stream { return &Stream{to: to, name: name} }

// Write logs the lines that p completes, and keeps the rest for the next call.
// at is the time noted with each. It returns when the lines are in the log.
func (s *Stream) Write(p []byte, at time.Time) {
	s.to.Lock()
	defer s.to.Unlock()
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.rest(p, at)
			break
		}
		s.line(p[:end+1], at)
		p = p[end+1:]
	}
	s.to.Flush()
}

// line logs p, which ends in the only newline it has, behind what is kept.
func (s *Stream) line(p []byte, at time.Time) {
	if len(s.part) == 0 && len(p) <= MaxPiece {
		s.to.Add(p, s.name, at) // the common case copies nothing
		return
	}
	s.rest(p[:len(p)-1], at)
	s.part = append(s.part, '\n')
	s.to.Add(s.part, s.name, at)
	s.part = s.part[:0]
}

// rest keeps p, which has no newline, and logs pieces as they become full.
func (s *Stream) rest(p []byte, at time.Time) {
	for len(p) > 0 {
		n := min(len(p), MaxPiece-len(s.part))
		s.part = append(s.part, p[:n]...)
		p = p[n:]
		if len(s.part) < MaxPiece {
			return
		}
		keep := cut(s.part)
		s.to.Add(s.part[:keep], s.name, at)
		s.part = append(s.part[:0], s.part[keep:]...)
	}
}

// cut returns where to end a full piece: before a character whose last bytes
// have not come, as JSON cannot hold half of one. Docker cuts it in two and
// both halves become U+FFFD.
func cut(piece []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(piece); back++ {
		at := len(piece) - back
		if utf8.RuneStart(piece[at]) {
			if !utf8.FullRune(piece[at:]) {
				return at
			}
			break
		}
	}
	return len(piece)
}

// Close logs a last line that has no newline.
func (s *Stream) Close(at time.Time) {
	s.to.Lock()
	defer s.to.Unlock()
	if len(s.part) > 0 {
		s.to.Add(s.part, s.name, at)
		s.part = nil
	}
	s.to.Flush()
}
