package engine

import (
	"context"
	"log/slog"
	"syscall"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Pause stops the processes of a running container until Unpause. It stays
// paused over a restart of the daemon.
func (e *Engine) Pause(ctx context.Context, name string) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	switch {
	case rec.State.Status != record.Running:
		return fault.Say(fault.Conflict, "Container "+rec.ID+" is not running")
	case rec.State.Paused:
		return fault.Say(fault.Conflict, "Container "+rec.ID+" is already paused")
	}
	if err := e.rooms.Cgroups.Freeze(ctx, groupOf(rec)); err != nil {
		return err
	}
	failpoint.Hit("container-frozen")
	e.setPaused(c, true)
	e.tell("pause", rec, nil)
	return nil
}

// Unpause lets a paused container go on.
func (e *Engine) Unpause(ctx context.Context, name string) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	if !rec.State.Paused {
		return fault.Say(fault.Conflict, "Container "+rec.ID+" is not paused")
	}
	// On record first: a daemon killed in between is followed by one that lets go
	// on what is not on record as paused.
	e.setPaused(c, false)
	failpoint.Hit("container-unpausing")
	if err := e.rooms.Cgroups.Thaw(groupOf(rec)); err != nil {
		e.setPaused(c, true)
		return err
	}
	e.tell("unpause", rec, nil)
	return nil
}

// setPaused notes it, unless the container has ended meanwhile.
func (e *Engine) setPaused(c *container, paused bool) {
	rec := c.change(func(r *record.Container) { r.State.Paused = paused && r.State.Status == record.Running })
	e.saveSoon(rec)
	if err := e.writeRun(rec); err != nil {
		slog.Warn("cannot note that a container is paused", "container", rec.ID, "error", err)
	}
}

// resumeFor lets a paused container take a signal that is to end it, as Docker
// does: it acts on it only when it goes on.
func (e *Engine) resumeFor(c *container, sig syscall.Signal) {
	rec := c.record()
	end, err := parseSignal(first(rec.StopSignal, "SIGTERM"))
	if !rec.State.Paused || sig != syscall.SIGKILL && (err != nil || sig != end) {
		return
	}
	e.thaw(rec)
	e.setPaused(c, false)
	e.tell("unpause", rec, nil)
}

// refusePaused is Docker's answer to who wants something of a container that
// stands still.
func refusePaused(rec record.Container, what string) error {
	if !rec.State.Paused {
		return nil
	}
	return fault.Say(fault.Conflict, "Container "+rec.ID+" is paused, unpause the container before "+what)
}

// freeze stops a container's processes until thaw is called. Paused, without a
// cgroup of its own, or with one that is gone since it has just ended, it does
// nothing.
func (e *Engine) freeze(ctx context.Context, rec record.Container) (thaw func(), err error) {
	if rec.State.Paused {
		return func() {}, nil
	}
	err = e.rooms.Cgroups.Freeze(ctx, groupOf(rec))
	if fault.Is(err, fault.Unsupported) || fault.Is(err, fault.NotFound) {
		return func() {}, nil
	}
	return func() { e.thaw(rec) }, err
}

func (e *Engine) thaw(rec record.Container) {
	err := e.rooms.Cgroups.Thaw(groupOf(rec))
	if err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Unsupported) {
		slog.Error("a container stands still and cannot be let go on", "container", rec.ID, "error", err)
	}
}
