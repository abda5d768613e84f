package engine

import (
	"context"
	"log/slog"
	"time"

	"fief/internal/monitor"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// exitNoStart is the exit code docker records when a start failed for another
// reason than the command (docker-run(1): 125 is the client's word for it).
const exitNoStart = 128

// Start starts a created or exited container. NotModified when it runs
// already. On failure the container stays as it was, with the reason in its
// state, or is removed when it is one that is removed at its end.
func (e *Engine) Start(ctx context.Context, name string) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	rec := c.record()
	if rec.State.Status == record.Restarting {
		return fault.Say(fault.NotModified, "container "+rec.Name+" is already running")
	}
	if rec.State.Status != record.Running {
		if img, err := e.rooms.Images.Resolve(rec.ImageID); err == nil {
			if err := whole(img, rec.Image); err != nil {
				return err
			}
		}
		c.begin()
	}
	return e.startClaimed(ctx, c, nil)
}

// Run creates a container, attaches to it and starts it.
func (e *Engine) Run(ctx context.Context, a ask.Container, at Attach, traced bool) (Started, error) {
	tr := newTrace(traced)
	c, warnings, err := e.make(a, tr)
	if err != nil {
		return Started{}, err
	}
	if err := c.take(ctx); err != nil {
		e.forget(c)
		return Started{}, err
	}
	defer c.free()
	if err := e.keepSoon(c); err != nil {
		e.drop(c)
		return Started{}, err
	}
	e.tell("create", c.record(), nil)
	when := NextExit
	if a.AutoRemove {
		when = Gone
	}
	exit := c.await(when)
	if err := c.attachEarly(at); err != nil {
		e.drop(c)
		return Started{}, err
	}
	if err := e.startClaimed(ctx, c, tr); err != nil {
		return Started{}, err
	}
	return Started{Container: c.record(), Warnings: warnings, Exit: exit, Trace: tr.list()}, nil
}

// drop forgets a container that nobody was told of, also where it was kept.
func (e *Engine) drop(c *container) {
	if c.removing() {
		if err := e.unrecord(c); err != nil {
			slog.Warn("a container that was never started is still on record", "container", c.id, "error", err)
		}
	}
	e.forget(c)
}

// keepSoon is keep for a container that is about to run: its record is in the
// run directory at once and in state.db a moment later, so that a start waits
// for no disk. A power cut in that moment loses a container that no one was
// told of.
func (e *Engine) keepSoon(c *container) error {
	rec := c.record()
	if err := e.writeRun(rec); err != nil {
		return err
	}
	failpoint.Hit("container-kept")
	if !rec.AutoRemove {
		e.rooms.Containers.PutSoon(rec.ID, rec)
	}
	return nil
}

// startClaimed starts a container. Preconditions: the claim is held.
func (e *Engine) startClaimed(ctx context.Context, c *container, tr *trace) error {
	rec := c.record()
	if rec.State.Paused {
		return fault.Say(fault.Conflict, "cannot start a paused container, try unpause instead")
	}
	if rec.State.Status == record.Running {
		return fault.Say(fault.NotModified, "container "+rec.Name+" is already running")
	}
	if rec.State.Status == record.Removing || rec.State.Status == record.Dead {
		return fault.Say(fault.Conflict, "container is marked for removal and cannot be started")
	}
	c.copies.end()
	err := e.launch(ctx, c, tr)
	if err == nil {
		return nil
	}
	e.startFailed(c, err)
	return err
}

// startFailed notes why a start failed, tells those who wait, and removes a
// container that is removed at its end (docker/cli#5053: a waiter that is not
// told hangs).
func (e *Engine) startFailed(c *container, err error) {
	code := fault.ExitCodeOf(err)
	if code == 125 {
		code = exitNoStart
	}
	rec := c.change(func(r *record.Container) {
		r.State.Error, r.State.ExitCode, r.State.FinishedAt = err.Error(), code, time.Now().UTC()
		if r.State.Status == record.Restarting {
			r.State.Status = record.Exited // as Docker has it: no policy helps where a start fails
		}
	})
	c.dropPending()
	exit := record.Exit{Code: code, Error: err.Error(), At: rec.State.FinishedAt}
	c.wake(NextExit, exit)
	c.wake(NotRunning, exit)
	if rec.AutoRemove {
		e.forget(c)
		return
	}
	e.saveSoon(rec)
}

// launch takes the container through every doorway.
func (e *Engine) launch(ctx context.Context, c *container, tr *trace) (err error) {
	rec := c.record()
	b, err := e.prepare(ctx, c, rec, tr)
	if err != nil {
		return err
	}
	defer b.close()
	var back undo
	defer back.unless(&err)
	back.then(func() { e.leaveVolumes(rec) })
	back.then(func() { e.dropGroup(rec) })
	back.then(func() { e.detach(c) })
	back.then(func() { e.disengage(c.record()) })
	encoded, err := b.encode()
	if err != nil {
		return err
	}
	log, err := e.logOf(rec)
	if err != nil {
		return err
	}
	mon, err := e.rooms.Monitors.Take(ctx)
	if err != nil {
		return err
	}
	back.then(mon.Close)
	tr.mark("monitor taken")
	run := monitor.Run{
		ID: rec.ID, Dir: e.runDir(rec.ID), Log: log,
		TTY: rec.TTY, Console: rec.Console, OpenStdin: rec.OpenStdin, StdinOnce: rec.StdinOnce,
		Plan: encoded, Names: b.plan.Files, PlanFiles: b.slots(), Attach: c.takePending(),
		Net: b.net,
	}
	defer closeAttached(run.Attach)
	plugging := func() {}
	if b.hand != nil {
		run.Box, run.Offer = b.hand.Box, b.hand.Offer
		plugging = b.hand.Plug(ctx, c.record().Net, func(n record.Net) error { return e.plugged(c, n) })
	}
	failpoint.Hit("container-starting")
	begun := time.Now().UTC() // clients ask for the log since then: nothing of it is older
	pid, err := mon.Start(ctx, run)
	plugging()
	failpoint.Hit("container-started")
	tr.mark("started")
	if err != nil {
		return b.explain(err)
	}
	e.named(rec)
	e.started(c, mon, pid, begun)
	return nil
}

// started records that a container runs and begins to watch it.
func (e *Engine) started(c *container, mon *monitor.Monitor, pid int, begun time.Time) {
	c.mu.Lock()
	c.mon = mon
	c.rec.State = record.State{Status: record.Running, PID: pid, StartedAt: begun, Restarts: c.rec.State.Restarts}
	if c.rec.Health.Probes() {
		c.rec.State.Health = &record.HealthState{Status: record.HealthStarting}
	}
	rec := c.rec
	c.mu.Unlock()
	e.tellEndpoints("connect", rec, rec.Net.Endpoints)
	e.tell("start", rec, nil)
	e.saveSoon(rec)
	if err := e.writeRun(rec); err != nil { // with the pid: the next daemon kills it if its monitor is gone by then
		slog.Warn("cannot note that a container runs", "container", rec.ID, "error", err)
	}
	go e.watch(c, mon)
	go e.arm(c, mon)
}

// saveSoon writes a changed record behind.
func (e *Engine) saveSoon(rec record.Container) {
	if rec.AutoRemove {
		return
	}
	e.rooms.Containers.PutSoon(rec.ID, rec)
}
