package engine

import (
	"context"
	"log/slog"
	"slices"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Plan returns the launch plan of a container that is not started, in words.
// The container is made and forgotten again, so that what is shown is what a
// start would do.
func (e *Engine) Plan(ctx context.Context, a ask.Container) (string, error) {
	a.AutoRemove = true
	had := e.rooms.Volumes.List()
	c, _, err := e.make(a, nil)
	if err != nil {
		return "", err
	}
	defer e.forget(c)
	defer e.takeBackVolumes(c, had)
	rec := c.change(func(r *record.Container) {
		r.Mounts = slices.Clone(r.Mounts)
		for i := range r.Mounts {
			r.Mounts[i].Ready = true // nothing is started: no owner changes, and no volume is filled
		}
	})
	if err := e.writeRun(rec); err != nil {
		return "", err
	}
	b, err := e.prepare(ctx, c, rec, nil)
	if err != nil {
		return "", err
	}
	defer b.close()
	defer e.dropGroup(rec)
	defer e.detach(c)
	defer e.leaveVolumes(rec)
	if b.errand != nil {
		return b.describe(), nil
	}
	return b.plan.String(), nil
}

// takeBackVolumes removes the volumes that were made for a container which is not to
// be: not those there were, nor those that another has come to have.
func (e *Engine) takeBackVolumes(c *container, had []record.Volume) {
	rec := c.record()
	for _, name := range volumesOf(rec) {
		if slices.ContainsFunc(had, func(v record.Volume) bool { return v.Name == name }) {
			continue
		}
		v, err := e.rooms.Volumes.Get(name)
		if err == nil {
			err = e.removeVolume(v, rec.ID)
		}
		if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			slog.Warn("cannot remove a volume that was made to show a plan", "volume", name, "error", err)
		}
	}
}
