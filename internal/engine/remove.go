package engine

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

func signalNumber(sig syscall.Signal) string { return strconv.Itoa(int(sig)) }

// Remove deletes a container with its writable layer and its log, and gives its
// ids back. A running one is refused unless forced, which kills it first.
func (e *Engine) Remove(ctx context.Context, name string, how ask.Remove) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	select {
	case c.claim <- struct{}{}:
	default:
		if c.record().State.Status == record.Removing {
			return fault.Say(fault.Conflict, "removal of container "+name+" is already in progress")
		}
		if err := c.take(ctx); err != nil {
			return err
		}
	}
	defer c.free()
	ctx = context.WithoutCancel(ctx)
	rec := c.record()
	if rec.State.Up() {
		if !how.Force && rec.State.Paused {
			return fault.Say(fault.Conflict, `cannot remove container "`+rec.Name+`": container is paused and must be unpaused first`)
		}
		if !how.Force {
			return fault.Say(fault.Conflict, `cannot remove container "`+rec.Name+
				`": container is running: stop the container before removing or force remove`)
		}
		now := 0
		if err := e.stopClaimed(ctx, c, ask.Stop{Signal: "SIGKILL", Timeout: &now}); err != nil && !fault.Is(err, fault.NotModified) {
			return err
		}
	}
	if !c.removing() {
		return nil // it removed itself at its end
	}
	err = error(nil)
	if !how.Volumes {
		err = e.keepVolumes(rec)
	}
	if err == nil {
		err = e.unrecord(c)
	}
	if err != nil {
		e.writeRun(c.change(func(r *record.Container) { r.State.Status = record.Exited }))
		return err
	}
	failpoint.Hit("container-unrecorded")
	e.forget(c)
	if how.Volumes {
		e.dropVolumes(rec, true)
	}
	return nil
}

// unrecord removes a container from state.db. Its run directory says before that
// it is being removed: a daemon killed between the two steps, or before the end
// of forget, would be followed by one that takes the container up from there,
// without its files.
func (e *Engine) unrecord(c *container) error {
	rec := c.record()
	if rec.AutoRemove {
		return nil
	}
	if err := e.writeRun(rec); err != nil { // no room: without a record there it is state.db that counts
		os.Remove(filepath.Join(e.runDir(rec.ID), runRecord))
	}
	failpoint.Hit("container-removing")
	return e.rooms.Containers.Delete(rec.ID)
}

// removing marks a container as being removed; false when it is gone already.
func (c *container) removing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	c.rec.State.Status = record.Removing
	return true
}

// forget gives back everything a container holds that is not in state.db.
func (e *Engine) forget(c *container) {
	rec := c.record()
	e.discard(c, rec)
	c.wake(NextExit, record.Exit{Code: rec.State.ExitCode, Error: rec.State.Error, At: rec.State.FinishedAt})
	c.wake(NotRunning, record.Exit{Code: rec.State.ExitCode, Error: rec.State.Error, At: rec.State.FinishedAt})
	c.wake(Gone, record.Exit{Code: rec.State.ExitCode, Error: rec.State.Error, At: rec.State.FinishedAt})
}

// discard takes a container out of the table and drops what it had on disk.
// The name is free again only when nothing of it can be found any more.
func (e *Engine) discard(c *container, rec record.Container) {
	e.detach(c)
	c.mu.Lock()
	already := c.gone
	c.gone = true
	mapped := c.mapped
	c.mapped = nil
	c.mu.Unlock()
	if already {
		return
	}
	c.dropPending()
	e.table.drop(c.id)
	e.rooms.Layers.DropUpper(rec.Rootfs.Upper)
	e.dropCopies(rec)
	// Usually gone since its end. While there is a record, a daemon killed before
	// this line is followed by one that comes here; after it nobody knows the group.
	e.dropGroup(rec)
	failpoint.Hit("container-dropped")
	e.dropVolumes(rec, rec.AutoRemove)
	e.rooms.IDs.Release(rec.ID, leftovers(rec)...)
	failpoint.Hit("container-released")
	e.dropRun(rec.ID)
	removeLogs(rec)
	closeMapped(mapped)
	e.table.release(rec.Name)
	e.tell("destroy", rec, nil)
}

// dropCopies removes the copies of layers that were made for a range of the
// container's own, where nothing can be idmapped.
func (e *Engine) dropCopies(rec record.Container) {
	pair, err := pairOf(rec.Identity)
	if err != nil || rec.Identity.Lease == nil {
		return
	}
	if err := e.rooms.Layers.DropCopies(pair); err != nil {
		slog.Warn("cannot remove shifted copies", "container", rec.ID, "error", err)
	}
}

// removeLogs removes a container's log and what rotation left of it.
func removeLogs(rec record.Container) {
	if rec.LogPath == "" {
		return
	}
	for _, ending := range []string{"", ".new", ".gz.new"} {
		os.Remove(rec.LogPath + ending)
	}
	for i := 1; i < rec.Log.MaxFile; i++ {
		os.Remove(rec.LogPath + "." + strconv.Itoa(i))
		os.Remove(rec.LogPath + "." + strconv.Itoa(i) + ".gz")
	}
}

// Rename gives a container another name.
func (e *Engine) Rename(ctx context.Context, name, to string) error {
	c, err := e.claim(ctx, name)
	if err != nil {
		return err
	}
	defer c.free()
	if len(to) > 0 && to[0] == '/' {
		to = to[1:]
	}
	if err := checkRename(c.record().Name, to); err != nil {
		return err
	}
	if err := e.table.reserve(to, c.id); err != nil {
		return err
	}
	old := c.record().Name
	rec := c.change(func(r *record.Container) { r.Name = to })
	if err := e.keep(c); err != nil {
		c.change(func(r *record.Container) { r.Name = old })
		e.table.release(to)
		return err
	}
	e.table.release(old)
	if len(rec.Net.Endpoints) > 0 {
		e.rooms.Networks.Rename(rec.ID, rec.Name)
	}
	e.tell("rename", rec, map[string]string{"oldName": "/" + old})
	return nil
}
