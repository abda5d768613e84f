package engine

import (
	"context"
	"log/slog"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// The pause before a restart: twice the last one each time, from the first up to
// the longest, and the first again after a run of some length (moby
// daemon/container/restartmanager.go).
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	longRun      = 10 * time.Second
)

// restarting is a container's waiting for its next start.
type restarting struct {
	pause  time.Duration // the last one; 0: there was none
	cancel chan struct{} // closed to give up; nil unless it waits
}

// next returns the pause before a restart after a run of this length.
func (r *restarting) next(ran time.Duration) time.Duration {
	switch {
	case ran >= longRun || r.pause == 0:
		r.pause = firstPause
	default:
		r.pause = min(2*r.pause, longestPause)
	}
	return r.pause
}

// comesBack reports whether a container's policy starts it again after its end,
// by itself or by a user.
func comesBack(rec record.Container) bool {
	switch rec.Restart {
	case "always", "unless-stopped":
		return !rec.State.Stopped
	case "on-failure":
		return !rec.State.Stopped && rec.State.ExitCode != 0 && (rec.RestartMax == 0 || rec.State.Restarts < rec.RestartMax)
	}
	return false
}

// again makes a container that has just ended wait for its restart, if its
// policy says so. Preconditions: c.mu held, the end is in c.rec.
func (c *container) again(ran time.Duration) (cancel chan struct{}, pause time.Duration) {
	if !comesBack(c.rec) {
		return nil, 0
	}
	c.rec.State.Status = record.Restarting
	c.rec.State.Restarts++
	c.restarting.cancel = make(chan struct{})
	return c.restarting.cancel, c.restarting.next(ran)
}

// restartAfter starts a container again after a pause, unless somebody has
// stopped or started it meanwhile or the daemon ends: then the next one does.
func (e *Engine) restartAfter(c *container, cancel <-chan struct{}, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for _, wait := range []<-chan time.Time{timer.C, nil} {
		recovered := e.recovered
		if wait != nil {
			recovered = nil // after the pause, and not before the daemon is ready
		}
		select {
		case <-wait:
		case <-recovered:
		case <-cancel:
			return
		case <-e.closing:
			return
		}
	}
	if c.take(context.Background()) != nil {
		return
	}
	defer c.free()
	select {
	case <-cancel:
		return
	case <-e.closing:
		return
	default:
	}
	if err := e.startClaimed(context.Background(), c, nil); err != nil && !fault.Is(err, fault.NotModified) {
		slog.Warn("cannot restart a container", "container", c.id, "error", err)
	}
}

// giveUp ends the waiting for a restart; false when there was none. The
// container has ended then. Preconditions: the claim is held.
func (e *Engine) giveUp(c *container) bool {
	c.mu.Lock()
	waits := c.rec.State.Status == record.Restarting
	if waits {
		c.rec.State.Status = record.Exited
		c.rec.State.Stopped = true
	}
	if c.restarting.cancel != nil {
		close(c.restarting.cancel)
		c.restarting.cancel = nil
	}
	rec := c.rec
	c.mu.Unlock()
	if waits {
		e.saveSoon(rec)
		exit := record.Exit{Code: rec.State.ExitCode, Error: rec.State.Error, At: rec.State.FinishedAt}
		c.wake(NextExit, exit)
		c.wake(NotRunning, exit)
	}
	return waits
}

// begin makes a start the first one to the policy: a user asked for it.
func (c *container) begin() {
	c.change(func(r *record.Container) { r.State.Restarts, r.State.Stopped = 0, false })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.restarting.cancel != nil {
		close(c.restarting.cancel)
	}
	c.restarting = restarting{}
}

// stopping notes that a user ends the container: its policy does not start it
// again. It is on record before the signal, for the next daemon too.
func (e *Engine) stopping(c *container) {
	rec := c.change(func(r *record.Container) { r.State.Stopped = true })
	if rec.Restart != "" && rec.Restart != "no" {
		e.saveSoon(rec)
		if err := e.writeRun(rec); err != nil {
			slog.Warn("cannot note that a container is stopped by hand", "container", rec.ID, "error", err)
		}
	}
}

// resume starts what ran, or waited to, before the daemon ended, as the policies
// say: always means also what was stopped by hand.
func (e *Engine) resume(c *container) {
	c.mu.Lock()
	s := &c.rec.State
	waited := s.Status == record.Restarting
	if !waited && (s.Status != record.Exited || s.StartedAt.IsZero()) {
		c.mu.Unlock()
		return
	}
	if !waited && !comesBack(c.rec) && c.rec.Restart != "always" {
		c.mu.Unlock()
		return
	}
	if !waited {
		s.Restarts++
	}
	s.Status, s.Stopped = record.Restarting, false
	c.restarting.cancel = make(chan struct{})
	cancel := c.restarting.cancel
	c.mu.Unlock()
	go e.restartAfter(c, cancel, firstPause)
}

// UpdateRestart gives a container another restart policy; it counts from its
// next end on.
func (e *Engine) UpdateRestart(ctx context.Context, name string, p ask.RestartPolicy) error {
	if err := p.Check(); err != nil {
		return err
	}
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	switch {
	case rec.State.Status == record.Removing || rec.State.Status == record.Dead:
		return fault.Say(fault.Conflict, `Cannot update container `+rec.ID+`: container is marked for removal and cannot be "update"`)
	case rec.AutoRemove && p.Restarts():
		return fault.Say(fault.Invalid, "Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	rec = c.change(func(r *record.Container) { r.Restart, r.RestartMax = first(p.Name, "no"), p.MaxRetries })
	if err := e.keep(c); err != nil {
		return err
	}
	e.tell("update", rec, nil)
	return nil
}
