package image

import (
	"context"
	"slices"
	"sync"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// joins are the pulls that run. A pull of what is being pulled with the same
// credentials joins it: there is one download, everybody sees its progress,
// and it ends early only when everybody has left. Pulls that are not the same
// but share layers wait for each other's layers (see Store.busy).
type joins struct {
	mu      sync.Mutex // held before a joint's
	running map[ask.PullImage]*joint
}

// joint is one pull that runs, for those who wait for it.
type joint struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when img and err are set

	mu      sync.Mutex
	waiters map[*waiter]bool
	shown   []record.Progress // the last of every bar, and every sentence: what who joins late has missed

	img record.Image
	err error
}

// waiter is who waits. What there is to tell is kept here until its own
// goroutine tells it, so that one who does not listen holds up nobody else.
type waiter struct {
	wake chan struct{} // holds a token while there is something to tell
	todo []record.Progress
}

// Pull fetches an image, or with All every tag of a repository, whose last is
// then returned. tell (nil: nobody listens) hears Docker's words, on the
// caller's goroutine. When Pull returns without error the image is on disk;
// else, unless somebody else pulls the same, names, images, layers and blobs
// are as they were.
func (s *Store) Pull(ctx context.Context, want ask.PullImage, tell func(record.Progress)) (record.Image, error) {
	if err := ctx.Err(); err != nil {
		return record.Image{}, fault.Wrap(fault.Canceled, "pull", want.Name, context.Cause(ctx), "")
	}
	j, m := s.joins.join(ctx, want, s.pull)
	for {
		select {
		case <-m.wake:
			j.pass(m, tell)
		case <-j.done:
			j.pass(m, tell)
			return j.img, j.err
		case <-ctx.Done():
			if s.joins.leave(want, j, m) {
				<-j.done // nobody wants it: what it began is undone when it has ended
				if j.err == nil {
					return j.img, nil // it was through
				}
			}
			return record.Image{}, fault.Wrap(fault.Canceled, "pull", want.Name, context.Cause(ctx), "")
		}
	}
}

// join takes part in the pull that runs, or starts it.
func (js *joins) join(ctx context.Context, want ask.PullImage, pull puller) (*joint, *waiter) {
	js.mu.Lock()
	defer js.mu.Unlock()
	m := &waiter{wake: make(chan struct{}, 1)}
	if j := js.running[want]; j != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.waiters[m] = true
		m.todo = slices.Clone(j.shown)
		m.wake <- struct{}{}
		return j, m
	}
	if js.running == nil {
		js.running = map[ask.PullImage]*joint{}
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	j := &joint{cancel: cancel, done: make(chan struct{}), waiters: map[*waiter]bool{m: true}}
	js.running[want] = j
	go func() {
		defer cancel()
		j.img, j.err = pull(own, want, j.tell)
		js.mu.Lock()
		if js.running[want] == j {
			delete(js.running, want)
		}
		js.mu.Unlock()
		close(j.done)
	}()
	return j, m
}

// puller is a pull for one who waits.
type puller func(context.Context, ask.PullImage, func(record.Progress)) (record.Image, error)

// leave reports whether m was the last. A pull that nobody waits for can no
// more be joined, and ends.
func (js *joins) leave(want ask.PullImage, j *joint, m *waiter) (last bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.waiters, m)
	if len(j.waiters) > 0 {
		return false
	}
	if js.running[want] == j {
		delete(js.running, want)
	}
	j.cancel()
	return true
}

// tell keeps one step for everybody. It never waits.
func (j *joint) tell(p record.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.IndexFunc(j.shown, func(old record.Progress) bool { return old.ID == p.ID && p.ID != "" })
	if i < 0 {
		j.shown = append(j.shown, p)
	} else {
		j.shown[i] = p
	}
	for m := range j.waiters {
		m.add(p)
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// add appends a step, or replaces the one before of the same bar and words:
// only the newest number of bytes is of interest.
func (m *waiter) add(p record.Progress) {
	if p.ID != "" {
		for i, old := range slices.Backward(m.todo) {
			if old.ID == p.ID {
				if old.Status == p.Status {
					m.todo[i] = p
					return
				}
				break
			}
		}
	}
	m.todo = append(m.todo, p)
}

// pass tells a waiter what has been kept for it.
func (j *joint) pass(m *waiter, tell func(record.Progress)) {
	j.mu.Lock()
	todo := m.todo
	m.todo = nil
	j.mu.Unlock()
	if tell == nil {
		return
	}
	for _, p := range todo {
		tell(p)
	}
}
