package engine

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"fief/internal/monitor"
	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// A monitor outlives the daemon that made it, and a daemon of another build may
// make plans that it cannot carry out. What needs no plan is asked of it all the
// same: its process, its log and its exit stay where they are. For what needs
// one, an exec session or a health check that was not armed, a monitor of the
// daemon's build stands in: it is given a pidfd of the container's process 1 and
// joins by that. Its run directory is one below the container's, by the number of
// its plans, so that the next daemon finds what it runs.
const standInPrefix = "plans-"

// carrier returns the monitor that can carry out plans of this build in a running
// container: its own, or a stand-in, which is made when there is none.
func (e *Engine) carrier(ctx context.Context, c *container, mon *monitor.Monitor) (*monitor.Monitor, error) {
	if mon.Understands() {
		return mon, nil
	}
	c.standing.Lock()
	defer c.standing.Unlock()
	c.mu.Lock()
	list, rec := slices.Clone(c.standIns), c.rec
	c.mu.Unlock()
	for _, m := range list {
		select {
		case <-m.Gone(): // and is about to leave the list
		default:
			if m.Understands() {
				return m, nil
			}
		}
	}
	m, err := e.standIn(ctx, rec)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	running := c.mon == mon
	if running {
		c.standIns = append(c.standIns, m)
	}
	c.mu.Unlock()
	if !running {
		m.Close()
		return nil, notRunning("", rec)
	}
	slog.Debug("a container's monitor is of another build; another one stands in", "container", rec.ID, "monitor", mon.PID, "build", mon.Label)
	go e.watchStandIn(c, m)
	return m, nil
}

func (e *Engine) standIn(ctx context.Context, rec record.Container) (*monitor.Monitor, error) {
	dir := filepath.Join(e.runDir(rec.ID), standInPrefix+strconv.FormatUint(uint64(wire.Plans), 16))
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return nil, fault.Wrap(classOf(err), "create", dir, err, "")
	}
	process, err := e.rooms.Processes.Handle(rec.State.PID, rec.State.StartedAt)
	if err != nil {
		return nil, err
	}
	defer process.Close()
	m, err := e.rooms.Monitors.Take(ctx)
	if err != nil {
		return nil, err
	}
	err = m.Adopt(ctx, monitor.Adoption{ID: rec.ID, Dir: dir, PID: rec.State.PID, Started: rec.State.StartedAt, PIDFD: process})
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// watchStandIn follows a stand-in until it is gone. What it ran is ended then, as
// nothing holds its output any longer, and who checked health is replaced. (Of a
// session that an earlier daemon had started nobody knows when it began, so its
// pid says too little: it is left to find its output closed.)
func (e *Engine) watchStandIn(c *container, m *monitor.Monitor) {
	for x := range m.Exits() {
		e.execEnded(x.Target, x.Code)
	}
	c.mu.Lock()
	at := slices.Index(c.standIns, m)
	if at >= 0 {
		c.standIns = slices.Delete(c.standIns, at, at+1)
	}
	checked, mon := c.checks == m, c.mon
	if checked {
		c.checks = nil
	}
	c.mu.Unlock()
	if at < 0 {
		return // it was dismissed
	}
	for _, s := range e.sessionsOf(c.id) {
		s.mu.Lock()
		by, rec, began := s.by, s.rec, s.began
		s.mu.Unlock()
		if by == m && rec.Running {
			e.rooms.Processes.Kill(rec.PID, began)
			e.endSession(s, exitLost)
		}
	}
	if checked && mon != nil {
		e.arm(c, mon)
	}
}

// dismiss parts from the stand-ins of a container that has ended: each ends when
// the last client has what a session wrote.
func (e *Engine) dismiss(c *container) {
	c.standing.Lock()
	defer c.standing.Unlock()
	c.mu.Lock()
	list := c.standIns
	c.standIns = nil
	c.mu.Unlock()
	for _, m := range list {
		m.Close()
	}
	for _, dir := range e.standInDirs(c.id) {
		os.RemoveAll(dir)
	}
}

func (e *Engine) standInDirs(id string) []string {
	dirs, _ := filepath.Glob(filepath.Join(e.runDir(id), standInPrefix+"*")) // the pattern is well formed
	return dirs
}

// findStandIns takes up what an earlier daemon's stand-ins run in a container.
// One for which nothing runs ended with that daemon, or does so now.
func (e *Engine) findStandIns(ctx context.Context, c *container) {
	for _, dir := range e.standInDirs(c.id) {
		m, err := monitor.Reconnect(ctx, dir)
		if err != nil {
			os.RemoveAll(dir)
			continue
		}
		watches, err := m.Watches(ctx)
		var s monitor.State
		if err == nil {
			s, err = m.State(ctx)
		}
		if err != nil || len(s.Execs) == 0 && !watches && !m.Understands() {
			m.Close()
			os.RemoveAll(dir)
			continue
		}
		for _, x := range s.Execs {
			e.table.addSession(&session{by: m, rec: record.Exec{ID: x.ID, Container: c.id, PID: x.PID, Started: true, Running: true}})
		}
		c.mu.Lock()
		c.standIns = append(c.standIns, m)
		if watches {
			c.checks = cmp.Or(c.checks, m)
		}
		c.mu.Unlock()
		go e.watchStandIn(c, m)
	}
}
