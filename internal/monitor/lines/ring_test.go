package lines

import (
	"sync"
	"testing"
	"time"
)

// stuck is a sink that takes nothing until it is let go.
type stuck struct {
	sync.Mutex
	got    []string
	closed bool
}

func (s *stuck) Add(text []byte, _ string, _ time.Time) { s.got = append(s.got, string(text)) }
func (s *stuck) Flush()                                 {}
func (s *stuck) Close() error                           { s.closed = true; return nil }

// TestRingWaitsForNobody: while the log stands still as much is kept as fits,
// the oldest first, and all of that is noted at the end.
func TestRingWaitsForNobody(t *testing.T) {
	s := &stuck{}
	s.Lock()
	r := NewRing(s, 100)
	w := NewStream(r, "stdout")
	began := time.Now()
	for range 1000 {
		w.Write([]byte("0123456789\n"), began)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a thousand lines took %v", took)
	}
	s.Unlock()
	w.Close(began)
	if err := r.Close(); err != nil || !s.closed {
		t.Errorf("closed %v, %v", s.closed, err)
	}
	if len(s.got) != 9 || r.dropped != 991 || r.held != 0 {
		t.Errorf("%d lines noted, %d dropped, %d bytes held", len(s.got), r.dropped, r.held)
	}
}
