package jsonlog

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// Stream cuts one output stream into lines. It is used by one goroutine.
type Stream struct {
	log  *Log
	name string
	part []byte // the beginning of a line whose newline has not come, at most maxPiece
}

// Write logs the lines that p completes, and keeps the rest for the next call.
// at is the time noted with each. It returns when the lines are in the file.
func (s *Stream) Write(p []byte, at time.Time) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.rest(p, at)
			break
		}
		s.line(p[:end+1], at)
		p = p[end+1:]
	}
	s.log.flush()
}

// line logs p, which ends in the only newline it has, behind what is kept.
func (s *Stream) line(p []byte, at time.Time) {
	if len(s.part) == 0 && len(p) <= maxPiece {
		s.log.add(p, s.name, at) // the common case copies nothing
		return
	}
	s.rest(p[:len(p)-1], at)
	s.part = append(s.part, '\n')
	s.log.add(s.part, s.name, at)
	s.part = s.part[:0]
}

// rest keeps p, which has no newline, and logs pieces as they become full.
func (s *Stream) rest(p []byte, at time.Time) {
	for len(p) > 0 {
		n := min(len(p), maxPiece-len(s.part))
		s.part = append(s.part, p[:n]...)
		p = p[n:]
		if len(s.part) < maxPiece {
			return
		}
		keep := cut(s.part)
		s.log.add(s.part[:keep], s.name, at)
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
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if len(s.part) > 0 {
		s.log.add(s.part, s.name, at)
		s.part = nil
	}
	s.log.flush()
}
