package engine

import (
	"cmp"
	"context"
	"runtime"
	"slices"

	"fief/internal/words/record"
)

// List returns every container, newest first.
func (e *Engine) List(context.Context) ([]record.Container, error) {
	var out []record.Container
	for _, c := range e.table.all() {
		out = append(out, c.record())
	}
	slices.SortStableFunc(out, func(a, b record.Container) int { return cmp.Compare(b.Created.UnixNano(), a.Created.UnixNano()) })
	return out, nil
}

// Inspect returns a container's record with the ids of its running sessions.
func (e *Engine) Inspect(ctx context.Context, name string) (record.Container, error) {
	c, err := e.table.find(name)
	if err != nil {
		return record.Container{}, err
	}
	rec := c.settled(ctx)
	e.table.mu.RLock()
	defer e.table.mu.RUnlock()
	for id, s := range e.table.execs {
		if s.rec.Container == c.id && s.record().Running {
			rec.Execs = append(rec.Execs, id)
		}
	}
	return rec, nil
}

// ended returns a channel that is closed when the container runs no more.
func ended(c *container) <-chan struct{} {
	done := make(chan struct{})
	exit := c.await(NotRunning)
	go func() {
		<-exit
		close(done)
	}()
	return done
}

// Size returns how many bytes a container has written, and how many its root
// filesystem holds in all; of the built-in image's /usr, which is the host's,
// nothing is counted.
func (e *Engine) Size(ctx context.Context, name string) (written, shown int64, err error) {
	c, err := e.table.find(name)
	if err != nil {
		return 0, 0, err
	}
	fs := c.record().Rootfs
	return e.rooms.Layers.Size(ctx, fs.Upper, fs.Layers)
}

// Top lists the processes of a running container, as the host sees them.
func (e *Engine) Top(_ context.Context, name string, args []string) (record.Top, error) {
	c, err := e.table.find(name)
	if err != nil {
		return record.Top{}, err
	}
	rec := c.record()
	if rec.State.Status != record.Running {
		return record.Top{}, notRunning("", rec)
	}
	var pids []int
	if sharesProcesses(rec) {
		if pids, err = e.rooms.Cgroups.Pids(groupOf(rec)); err != nil {
			return record.Top{}, err
		}
	}
	top, err := e.rooms.Processes.Top(rec.State.PID, pids, args)
	if err == nil {
		e.tell("top", rec, nil)
	}
	return top, err
}

// Info describes the daemon and the machine.
func (e *Engine) Info(context.Context) (record.Info, error) {
	i := e.cfg.Host
	i.DataRoot, i.ExecRoot = e.cfg.DataRoot, e.cfg.ExecRoot
	i.Shift, i.ShiftWhy = e.rooms.Layers.Way()
	i.Userns, i.RemapUser = true, e.cfg.RemapName
	i.Runtimes, i.DefaultRuntime, i.LogDriver = e.cfg.Runtimes, e.cfg.Runtime, first(e.cfg.Log.Driver, "json-file")
	i.Images = len(e.rooms.Images.List())
	i.Pool = e.rooms.IDs.Info()
	i.Goroutines = runtime.NumGoroutine()
	for _, c := range e.table.all() {
		i.Containers++
		if s := c.record().State; s.Status == record.Running {
			i.Running++
			if s.Paused {
				i.Running--
				i.Paused++
			}
		}
	}
	i.Stopped = i.Containers - i.Running - i.Paused
	return i, nil
}
