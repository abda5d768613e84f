package image

import (
	"context"
	"errors"
	"slices"
	"sync"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/opencontainers/go-digest"
)

// joins are the jobs that run, by what they are. Who wants what is being done
// joins it: it is done once, everybody sees its progress, and it ends early
// only when everybody has left.
type joins[K comparable, R any] struct {
	mu      sync.Mutex // held before a joint's
	running map[K]*joint[R]
}

// joint is one job that runs, for those who wait for it.
type joint[R any] struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when result and err are set

	mu      sync.Mutex
	waiters map[*waiter]bool
	shown   []record.Progress // the last of every bar, and every sentence: what who joins late has missed

	result R
	err    error
}

// job does what is waited for, and tells how far it is.
type job[R any] func(context.Context, func(record.Progress)) (R, error)

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
// are as they were. A pull of what is being pulled with the same credentials
// joins that pull.
func (s *Store) Pull(ctx context.Context, want ask.PullImage, tell func(record.Progress)) (record.Image, error) {
	img, _, err := s.pulls.do(ctx, want, func(ctx context.Context, tell func(record.Progress)) (record.Image, error) {
		return s.pull(ctx, want, tell)
	}, tell)
	if err == errLeft {
		err = fault.Wrap(fault.Canceled, "pull", want.Name, context.Cause(ctx), "")
	}
	return img, err
}

// errLeft is a waiter's, whose context has ended.
var errLeft = errors.New("nobody waits any more")

// do takes part in the job that runs under key, or starts run, which begun
// says. tell may be nil; it is called on the caller's goroutine, not in the
// job's. When the context ends the error is errLeft; the job goes on if others
// wait for it, and has ended otherwise.
func (js *joins[K, R]) do(ctx context.Context, key K, run job[R], tell func(record.Progress)) (result R, begun bool, err error) {
	if ctx.Err() != nil {
		return result, false, errLeft
	}
	j, m, begun := js.join(ctx, key, run)
	for {
		select {
		case <-m.wake:
			j.pass(m, tell)
		case <-j.done:
			j.pass(m, tell)
			return j.result, begun, j.err
		case <-ctx.Done():
			if js.leave(key, j, m) {
				<-j.done // nobody wants it: what it began is undone when it has ended
				if j.err == nil {
					return j.result, begun, nil // it was through
				}
			}
			return result, begun, errLeft
		}
	}
}

func (js *joins[K, R]) join(ctx context.Context, key K, run job[R]) (j *joint[R], m *waiter, begun bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	m = &waiter{wake: make(chan struct{}, 1)}
	if j := js.running[key]; j != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.waiters[m] = true
		m.todo = slices.Clone(j.shown)
		m.wake <- struct{}{}
		return j, m, false
	}
	if js.running == nil {
		js.running = map[K]*joint[R]{}
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	j = &joint[R]{cancel: cancel, done: make(chan struct{}), waiters: map[*waiter]bool{m: true}}
	js.running[key] = j
	go func() {
		defer cancel()
		j.result, j.err = run(own, j.tell)
		js.mu.Lock()
		if js.running[key] == j {
			delete(js.running, key)
		}
		js.mu.Unlock()
		close(j.done)
	}()
	return j, m, true
}

// leave reports whether m was the last. A job that nobody waits for can no
// more be joined, and ends.
func (js *joins[K, R]) leave(key K, j *joint[R], m *waiter) (last bool) {
	js.mu.Lock()
	defer js.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.waiters, m)
	if len(j.waiters) > 0 {
		return false
	}
	if js.running[key] == j {
		delete(js.running, key)
	}
	j.cancel()
	return true
}

// tell keeps one step for everybody. It never waits.
func (j *joint[R]) tell(p record.Progress) {
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
func (j *joint[R]) pass(m *waiter, tell func(record.Progress)) {
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

// layer gets a layer, together with every other pull that wants the same one
// now, whatever else they pull and from where. It is downloaded once, with the
// credentials of whom began; who has left no longer matters to the others, and
// when it fails the next one begins anew, from where its own image is.
func (p *pull) layer(ctx context.Context, want layerJob) (record.Layer, error) {
	key := arrivingLayer{want.blob.Digest, want.diffID, want.blob.Size}
	tell := p.tell.pass
	if _, twice := p.heard.LoadOrStore(key, true); twice { // the image has it twice
		tell = nil
	}
	for {
		l, begun, err := p.coming.do(ctx, key, func(ctx context.Context, tell func(record.Progress)) (record.Layer, error) {
			q := *p
			q.tell = newTeller(tell)
			return q.Store.layer(ctx, want, q.fetch, q.tell)
		}, tell)
		if err == errLeft {
			return l, fault.Wrap(fault.Canceled, "wait for", "layer "+want.diffID, context.Cause(ctx), "")
		}
		if err == nil || begun {
			return l, err
		}
	}
}

// arrivingLayer is a layer as an image names it: what it is stored as, and what
// it unpacks to.
type arrivingLayer struct {
	blob   digest.Digest
	diffID string
	size   int64
}
