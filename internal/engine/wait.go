package engine

import (
	"context"

	"fief/internal/words/record"
)

// Wait returns a channel that gets one exit and is closed. The waiter is
// registered before Wait returns, so that a start after it cannot be missed.
// A container that was removed a moment ago is still known by its full id: a
// client whose daemon was restarted asks for the exit it missed.
func (e *Engine) Wait(_ context.Context, name string, when WaitFor) (<-chan record.Exit, error) {
	c, err := e.table.find(name)
	if err == nil {
		return c.await(when), nil
	}
	exit, known := e.table.lately(name)
	if !known {
		return nil, err
	}
	ch := make(chan record.Exit, 1)
	ch <- exit
	close(ch)
	return ch, nil
}

// await registers a waiter. A container that is not running satisfies
// NotRunning at once.
func (c *container) await(when WaitFor) <-chan record.Exit {
	ch := make(chan record.Exit, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	over := when == NotRunning && !c.rec.State.Up() || when == Gone && c.gone
	if over {
		ch <- record.Exit{Code: c.rec.State.ExitCode, Error: c.rec.State.Error, At: c.rec.State.FinishedAt}
		close(ch)
		return ch
	}
	if c.waiters == nil {
		c.waiters = map[WaitFor][]chan record.Exit{}
	}
	c.waiters[when] = append(c.waiters[when], ch)
	return ch
}

// wake gives every waiter of one kind its exit.
func (c *container) wake(when WaitFor, exit record.Exit) {
	c.mu.Lock()
	list := c.waiters[when]
	delete(c.waiters, when)
	c.mu.Unlock()
	for _, ch := range list {
		ch <- exit
		close(ch)
	}
}
