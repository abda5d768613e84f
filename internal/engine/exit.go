package engine

import (
	"log/slog"
	"strconv"
	"time"

	"fief/internal/monitor"
	"fief/internal/words/failpoint"
	"fief/internal/words/record"
)

// exitLost is the code of a container whose end nobody saw: that of SIGKILL,
// which is what ends its processes then.
const exitLost = 137

// watch follows a monitor until its container has ended.
func (e *Engine) watch(c *container, mon *monitor.Monitor) {
	for x := range mon.Exits() {
		if x.Target != "" {
			e.execEnded(x.Target, x.Code)
			continue
		}
		e.ended(c, record.Exit{Code: x.Code, At: x.At})
		mon.Close()
		return
	}
	e.lost(c)
}

// lost handles a monitor that is gone without a word: what it left in the run
// directory counts; else its container's processes are killed, since nothing
// holds their output any longer.
func (e *Engine) lost(c *container) {
	rec := c.record()
	if x, found := monitor.ReadExit(e.runDir(c.id)); found {
		e.ended(c, record.Exit{Code: x.Code, At: x.At})
		return
	}
	e.rooms.Processes.Kill(rec.State.PID, rec.State.StartedAt)
	e.ended(c, record.Exit{Code: exitLost, Error: "the container's monitor has gone", At: time.Now()})
}

// ended records a container's end, tells everyone, and removes a container
// that is removed at its end.
func (e *Engine) ended(c *container, exit record.Exit) {
	starved := e.killedForMemory(c.record())
	c.mu.Lock()
	c.mon, c.checks = nil, nil
	s := &c.rec.State
	ran := exit.At.Sub(s.StartedAt)
	s.Status, s.PID, s.ExitCode, s.Error, s.FinishedAt = record.Exited, 0, exit.Code, exit.Error, exit.At.UTC()
	s.OOMKilled, s.Paused = starved, false
	if s.Health != nil { // as Docker has it once nobody looks any more
		h := *s.Health
		h.Status = record.Unhealthy
		s.Health = &h
	}
	cancel, pause := c.again(ran)
	c.mu.Unlock()
	eps := c.record().Net.Endpoints
	e.detach(c)
	rec := c.record()
	failpoint.Hit("container-ended")
	e.endSessions(c.id)
	e.dismiss(c)
	e.disengage(rec)
	if starved {
		e.tell("oom", rec, nil)
	}
	if sharesProcesses(rec) {
		if err := e.rooms.Cgroups.Kill(groupOf(rec)); err != nil {
			slog.Warn("cannot end the processes a container left", "container", c.id, "error", err)
		}
	}
	e.dropGroup(rec)
	e.leaveVolumes(rec)
	e.tell("die", rec, map[string]string{
		"exitCode": strconv.Itoa(exit.Code), "execDuration": strconv.Itoa(int(ran.Seconds())),
	})
	e.tellEndpoints("disconnect", rec, eps)
	if rec.AutoRemove {
		e.table.remember(c.id, exit)
		e.discard(c, rec)
	} else {
		e.saveSoon(rec)
		e.writeRun(rec)
	}
	if cancel != nil {
		go e.restartAfter(c, cancel, pause)
	}
	c.wake(NextExit, exit)
	c.wake(NotRunning, exit)
	if rec.AutoRemove {
		c.wake(Gone, exit)
	}
}
