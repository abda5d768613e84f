package engine

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"fief/internal/monitor"
	"fief/internal/monitor/wire"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// What a health check does that does not say (docker-run(1), and moby
// daemon/health.go).
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
)

// mergeHealth lays what was asked over what the image says.
func mergeHealth(asked *ask.Health, image *record.Health) *record.Health {
	if asked == nil {
		return image
	}
	h := record.Health(*asked)
	if image == nil {
		return &h
	}
	if len(h.Test) == 0 {
		h.Test = slices.Clone(image.Test)
	}
	h.Interval, h.Timeout = cmp.Or(h.Interval, image.Interval), cmp.Or(h.Timeout, image.Timeout)
	h.StartPeriod, h.StartInterval = cmp.Or(h.StartPeriod, image.StartPeriod), cmp.Or(h.StartInterval, image.StartInterval)
	h.Retries = cmp.Or(h.Retries, image.Retries)
	return &h
}

// probeCommand is what a check runs.
func probeCommand(rec record.Container) []string {
	if rec.Health.Test[0] == "CMD" {
		return rec.Health.Test[1:]
	}
	shell := rec.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), rec.Health.Test[1])
}

// arm makes a running container's monitor check its health. One that does so
// already, as it did while there was no daemon, is left alone: what is checked
// does not change while a container runs.
func (e *Engine) arm(c *container, mon *monitor.Monitor) {
	rec := c.record()
	if !rec.Health.Probes() {
		return
	}
	by, armed, err := e.checker(c, mon)
	if err == nil {
		go e.followHealth(c, by)
	}
	if err == nil && !armed {
		err = e.armed(rec, by)
	}
	if err != nil && !fault.Is(err, fault.Exists) && !over(c, mon, err) {
		slog.Warn("a container's health is not checked", "container", rec.ID, "error", err)
	}
}

// checker finds the monitor that checks a container's health, and whether it
// does so already. It is the container's own but for one that does not understand
// plans of this build and was not told before: then it is its stand-in.
func (e *Engine) checker(c *container, mon *monitor.Monitor) (by *monitor.Monitor, armed bool, err error) {
	c.mu.Lock()
	by = c.checks
	c.mu.Unlock()
	if by != nil {
		return by, true, nil
	}
	if mon.Understands() {
		return mon, false, nil
	}
	if armed, err = mon.Watches(context.Background()); err != nil || armed {
		return mon, armed, err
	}
	if by, err = e.carrier(context.Background(), c, mon); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mon != mon {
		return nil, false, notRunning("check", c.rec)
	}
	c.checks = by
	return by, false, nil
}

func (e *Engine) armed(rec record.Container, mon *monitor.Monitor) error {
	b, err := e.prepareExec(rec, ask.Exec{Cmd: probeCommand(rec), AttachOut: true, AttachErr: true})
	if err != nil {
		return err
	}
	defer b.close()
	encoded, err := b.encode()
	if err != nil {
		return err
	}
	failpoint.Hit("health-arming")
	h := rec.Health
	return mon.Watch(context.Background(), monitor.Probe{
		Interval: cmp.Or(h.Interval, probeInterval), Timeout: cmp.Or(h.Timeout, probeTimeout), StartPeriod: h.StartPeriod,
		StartInterval: cmp.Or(h.StartInterval, probeStartInterval), Retries: cmp.Or(h.Retries, probeRetries),
		Plan: encoded, Names: b.plan.Files, PlanFiles: b.slots(),
	})
}

// checkedBy is the monitor that checks the health of a container whose own is
// mon.
func (c *container) checkedBy(mon *monitor.Monitor) *monitor.Monitor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.checks, mon)
}

// followHealth takes note of what probes find for as long as there is the
// monitor.
func (e *Engine) followHealth(c *container, mon *monitor.Monitor) {
	for {
		select {
		case <-mon.HealthChanged():
			e.noteHealth(c, mon)
		case <-mon.Gone():
			return
		}
	}
}

func (e *Engine) noteHealth(c *container, mon *monitor.Monitor) {
	found := stateOfHealth(mon.Health())
	changed := false
	rec := c.change(func(r *record.Container) {
		if cmp.Or(c.checks, c.mon) != mon || r.State.Health == nil {
			return
		}
		changed = r.State.Health.Status != found.Status
		r.State.Health = &found
	})
	if changed {
		e.tell("health_status: "+found.Status, rec, nil)
		e.saveSoon(rec)
	}
}

func stateOfHealth(h monitor.Health) record.HealthState {
	out := record.HealthState{Status: record.HealthStarting, FailingStreak: h.Streak}
	switch h.State {
	case wire.Healthy:
		out.Status = record.Healthy
	case wire.Unhealthy:
		out.Status = record.Unhealthy
	}
	for _, r := range h.Results {
		out.Log = append(out.Log, record.HealthResult{Start: r.Start, End: r.End, ExitCode: r.Code, Output: r.Output})
	}
	return out
}

// Healthcheck runs a container's check now and returns what it found.
func (e *Engine) Healthcheck(ctx context.Context, name string) (record.HealthResult, error) {
	c, err := e.table.find(name)
	if err != nil {
		return record.HealthResult{}, err
	}
	if !c.record().Health.Probes() {
		return record.HealthResult{}, fault.Say(fault.Conflict, "container "+c.record().Name+" has no defined healthcheck")
	}
	mon, err := c.monitor("check")
	if err != nil {
		return record.HealthResult{}, err
	}
	mon = c.checkedBy(mon)
	if err := mon.CheckNow(ctx); err != nil {
		return record.HealthResult{}, err
	}
	e.noteHealth(c, mon)
	list := mon.Health().Results
	if len(list) == 0 {
		return record.HealthResult{}, fault.Wrap(fault.Internal, "check", name, errors.New("the probe left no result"), "")
	}
	last := list[len(list)-1]
	return record.HealthResult{Start: last.Start, End: last.End, ExitCode: last.Code, Output: last.Output}, nil
}
