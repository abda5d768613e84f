package engine

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fief/internal/monitor"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Stored returns every container that is known from before: from state.db, and
// from the run directories, whose records are newer.
func Stored(cfg Config, db documents) ([]record.Container, error) {
	e := &Engine{cfg: cfg}
	for _, dir := range []string{filepath.Join(cfg.ExecRoot, "c"), filepath.Join(cfg.DataRoot, "logs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(classOf(err), "create", dir, err, "")
		}
	}
	found, err := e.readRuns()
	if err != nil {
		return nil, err
	}
	err = db.Each(func(id string, raw []byte) error {
		if _, newer := found[id]; newer {
			return nil
		}
		var rec record.Container
		if err := json.Unmarshal(raw, &rec); err != nil {
			return fault.Wrap(fault.Corrupt, "read container", id, err, "")
		}
		found[id] = rec
		return nil
	})
	var out []record.Container
	for _, rec := range found {
		out = append(out, rec)
	}
	return out, err
}

// recoveries is how many containers are looked at at a time, hearings how many
// monitors are waited for.
const (
	recoveries = 32
	hearings   = 4
)

// answerWait bounds how long a monitor may take to answer. It is long: on a
// machine with more to do than it has processors for, hundreds of monitors have
// to be scheduled first, and who does not answer is taken for gone.
const answerWait = time.Minute

// Recover takes up every container of an earlier daemon: ended ones by what their
// monitors left, half-removed ones are removed, and of running ones it makes sure
// that their monitors listen, which is all that a list of containers has to know.
// The monitors themselves are heard afterwards, in the background; a verb waits
// for that of its container. It must end before any verb is called. What its
// policy says to restart is started once it has ended: a container that ends while
// there is no daemon waits for the next one.
func (e *Engine) Recover(ctx context.Context, stored []record.Container) error {
	uppers, ids := map[string]bool{}, map[string]bool{}
	var pairs []idmap.Pair
	var all []*container
	e.adopt(stored)
	for _, rec := range stored {
		uppers[rec.Rootfs.Upper], ids[rec.ID] = true, true
		if pair, err := pairOf(rec.Identity); err == nil {
			pairs = append(pairs, pair)
		}
		c := &container{id: rec.ID, rec: rec, claim: make(chan struct{}, 1)}
		if err := e.table.reserve(rec.Name, rec.ID); err != nil {
			slog.Warn("two containers have one name", "name", rec.Name, "container", rec.ID)
		}
		e.table.add(c)
		all = append(all, c)
	}
	abreast(all, recoveries, func(c *container) { e.recoverOne(ctx, c) })
	e.settleVolumes()
	e.settleNetworks()
	e.sweepLogs(ids)
	e.sweepReplaced()
	if err := e.rooms.Layers.SweepCopies(pairs); err != nil {
		return err
	}
	if err := e.rooms.Layers.SweepUppers(uppers); err != nil {
		return err
	}
	e.hearNow = sync.OnceFunc(func() { abreast(all, recoveries, (*container).heard) })
	close(e.recovered)
	go e.hearAll(all)
	return nil
}

// hearAll hears the monitors of what runs, few at a time and not at once: with
// hundreds of them it is their answers that a first list of containers, which
// needs none, would wait behind. Who needs one earlier asks it himself.
func (e *Engine) hearAll(all []*container) {
	if e.cfg.Calm != nil {
		select {
		case <-e.cfg.Calm:
		case <-e.closing:
			return
		}
	}
	abreast(all, hearings, (*container).heard)
}

// heard returns once the container's monitor has been heard.
func (c *container) heard() {
	if c.hear != nil {
		c.hear()
	}
}

// abreast calls do for each container, for so many of them at a time.
func abreast(all []*container, width int, do func(*container)) {
	var each sync.WaitGroup
	room := make(chan struct{}, width)
	for _, c := range all {
		room <- struct{}{}
		each.Go(func() {
			defer func() { <-room }()
			do(c)
		})
	}
	each.Wait()
}

// sweepLogs removes the logs of containers that no longer exist: a power cut
// comes between the end of a container's record and that of its log.
func (e *Engine) sweepLogs(keep map[string]bool) {
	dir := filepath.Join(e.cfg.DataRoot, "logs")
	names, err := os.ReadDir(dir)
	if err != nil {
		slog.Warn("cannot look for logs that were left", "error", err)
	}
	for _, n := range names {
		id, _, ours := strings.Cut(n.Name(), "-")
		if ours && !keep[id] {
			os.Remove(filepath.Join(dir, n.Name()))
		}
	}
}

// recoverOne does what has to be done for a container before any verb is called.
func (e *Engine) recoverOne(ctx context.Context, c *container) {
	rec := c.rec
	if rec.State.Status == record.Removing {
		e.rooms.Containers.Delete(rec.ID)
		e.forget(c)
		return
	}
	k, err := monitor.Knock(e.runDir(rec.ID))
	if err != nil {
		e.recoverEnded(c, rec, err)
		return
	}
	e.rejoinVolumes(rec)                                           // before those that nobody uses are settled
	if rec.State.Status != record.Running || rec.Health.Probes() { // only the monitor knows what to show
		e.hear(ctx, c, rec, k)
		return
	}
	c.hear = sync.OnceFunc(func() { e.hear(ctx, c, rec, k) })
}

// hear waits for the monitor of a container that runs.
func (e *Engine) hear(ctx context.Context, c *container, rec record.Container, k *monitor.Knocked) {
	if rec.State.Status == record.Running && !rec.State.Paused {
		e.thaw(rec) // a daemon that was killed in a commit has left it standing still
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	mon, err := k.Greet(ctx)
	if err != nil {
		e.recoverEnded(c, rec, err)
		return
	}
	e.takeUp(ctx, c, mon)
}

// recoverEnded takes up a container that has no monitor: err says why.
func (e *Engine) recoverEnded(c *container, rec record.Container, err error) {
	held := fault.Is(err, fault.Busy) || fault.Is(err, fault.Unsupported)
	if !held {
		e.freeVolumes(rec, rec.ID)
		e.disengage(rec) // also what a monitor that was killed had begun
	}
	exit, left := monitor.ReadExit(e.runDir(rec.ID))
	switch {
	case held: // it runs, and is not ours to end
		slog.Error("a container's monitor is not for this daemon", "container", rec.ID, "error", err)
	case !rec.AutoRemove && (rec.State.Status == record.Exited || rec.State.Status == record.Restarting):
		e.clearGroup(rec)
		e.resume(c)
	case left:
		e.ended(c, record.Exit{Code: exit.Code, At: exit.At})
	case rec.State.Status == record.Running:
		e.rooms.Processes.Kill(rec.State.PID, rec.State.StartedAt)
		e.ended(c, record.Exit{Code: exitLost, Error: "the container did not outlive the machine or its monitor", At: time.Now()})
	case rec.AutoRemove:
		e.clearGroup(rec)
		e.forget(c)
	default:
		e.clearGroup(rec)
	}
}

// takeUp asks a monitor that was found again what runs.
func (e *Engine) takeUp(ctx context.Context, c *container, mon *monitor.Monitor) {
	s, err := mon.State(ctx)
	if err != nil || s.PID == 0 {
		// It has ended in the meantime: its exit is sent again, or is on disk.
		go e.watch(c, mon)
		return
	}
	c.mu.Lock()
	c.mon = mon
	known := c.rec.State.Status == record.Running && c.rec.State.PID == s.PID
	if c.rec.State.Status != record.Running {
		c.rec.State = record.State{Status: record.Running, StartedAt: s.Started.UTC(), Restarts: c.rec.State.Restarts}
	}
	if c.rec.State.Health == nil && c.rec.Health.Probes() {
		c.rec.State.Health = &record.HealthState{Status: record.HealthStarting}
	}
	c.rec.State.PID = s.PID
	rec := c.rec
	c.mu.Unlock()
	for _, x := range s.Execs {
		e.table.addSession(&session{rec: record.Exec{ID: x.ID, Container: c.id, PID: x.PID, Started: true, Running: true}})
	}
	e.findStandIns(ctx, c)
	if !known {
		e.saveSoon(rec)
	}
	rec = e.endPassing(c)
	e.nameAgain(rec)
	go e.watch(c, mon)
	if by := c.checkedBy(mon); rec.Health.Probes() {
		if watches, _ := by.Watches(ctx); watches {
			e.noteHealth(c, by)
		}
	}
	go e.arm(c, mon)
}
