package engine

import (
	"context"
	"sync/atomic"
	"testing"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// TestCopiesEnd: end cancels every copy and returns when the last has let go.
func TestCopiesEnd(t *testing.T) {
	var s copies
	s.end()
	var live atomic.Int32
	for range 50 {
		ctx, done := s.begin(context.Background())
		live.Add(1)
		go func() {
			<-ctx.Done()
			live.Add(-1)
			done()
		}()
	}
	s.end()
	if n := live.Load(); n != 0 {
		t.Errorf("%d copies go on", n)
	}
	ctx, done := s.begin(context.Background())
	if ctx.Err() != nil {
		t.Error("a later copy is ended as well")
	}
	done()
	s.end()
}

// TestCopyRefused: a failed copy holds neither claim nor context.
func TestCopyRefused(t *testing.T) {
	r := newRooms()
	e := r.engine(t)
	if _, err := e.StatPath(t.Context(), "none", "/"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	c := &container{id: "c", claim: make(chan struct{}, 1), rec: record.Container{ID: "c", State: record.State{Status: record.Running}}}
	e.table.add(c)
	if _, _, err := e.ReadPath(t.Context(), "c", "/"); err == nil {
		t.Error("a process that is not there has a root")
	}
	c.change(func(r *record.Container) { r.State.Status = record.Removing })
	if _, err := e.StatPath(t.Context(), "c", "/"); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if len(c.claim) != 0 || len(c.copies.ends) != 0 {
		t.Error("something is still held")
	}
}
