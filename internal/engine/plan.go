package engine

import (
	"context"

	"fief/internal/words/ask"
)

// Plan returns the launch plan of a container that is not started, in words.
// The container is made and forgotten again, so that what is shown is what a
// start would do.
func (e *Engine) Plan(_ context.Context, a ask.Container) (string, error) {
	a.AutoRemove = true
	c, _, err := e.make(a, nil)
	if err != nil {
		return "", err
	}
	defer e.forget(c)
	rec := c.record()
	if err := e.writeRun(rec); err != nil {
		return "", err
	}
	b, err := e.prepare(c, rec, nil)
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
