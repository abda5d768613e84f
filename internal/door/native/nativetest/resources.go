package nativetest

import (
	"context"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Stats tells the same numbers of every container.
func (e *Engine) Stats(_ context.Context, name string, _ bool, each func(record.Stats) error) error {
	var s record.Stats
	err := e.locked(name, func(b *box) error {
		s = record.Stats{ID: b.rec.ID, Name: b.rec.Name, Read: time.Now(), Online: 2, SystemCPU: uint64(time.Now().UnixNano()),
			Memory: record.MemoryStats{Usage: 3 << 20, Limit: 64 << 20, Details: map[string]uint64{"inactive_file": 1 << 20}}, Pids: record.PidsStats{Current: 1}}
		return nil
	})
	if err != nil {
		return err
	}
	return each(s)
}

// UpdateResources notes limits and warns of their memory.
func (e *Engine) UpdateResources(_ context.Context, name string, r record.Resources) (warnings []string, err error) {
	err = e.locked(name, func(b *box) error {
		b.rec.Resources = r
		if r.Memory > 0 {
			warnings = []string{"memory is short"}
		}
		return nil
	})
	return warnings, err
}

// Pause notes that a container stands still.
func (e *Engine) Pause(_ context.Context, name string) error { return e.pause(name, true) }

// Unpause notes that it goes on.
func (e *Engine) Unpause(_ context.Context, name string) error { return e.pause(name, false) }

func (e *Engine) pause(name string, on bool) error {
	return e.locked(name, func(b *box) error {
		if b.rec.State.Paused == on {
			return fault.Say(fault.Conflict, "Container "+b.rec.ID+" is as it is")
		}
		b.rec.State.Paused = on
		return nil
	})
}
