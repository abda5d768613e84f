// Package event carries what happened to containers and images to whoever
// listens: the events endpoint, `fief events`, waiting verbs.
package event

import (
	"context"
	"errors"
	"sync"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// backlog is how many events a slow listener may be behind before it loses
// the oldest; a listener must never be able to stall a container's start.
const backlog = 256

// Bus delivers events to listeners. The zero Bus is ready. Its lock is a leaf:
// nothing is called while it is held.
type Bus struct {
	mu        sync.Mutex
	listeners map[*listener]struct{} // guarded by mu
	past      []record.Event         // guarded by mu; the last backlog events
}

type listener struct{ queue chan record.Event }

// Publish stamps the event with the time, unless it has one, and hands it to
// every listener without waiting for any.
func (b *Bus) Publish(e record.Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.past = append(b.past, e)
	if len(b.past) > backlog {
		b.past = append(b.past[:0], b.past[len(b.past)-backlog:]...)
	}
	for l := range b.listeners {
		l.offer(e)
	}
}

// offer drops the oldest queued event when the listener is full.
func (l *listener) offer(e record.Event) {
	for {
		select {
		case l.queue <- e:
			return
		default:
		}
		select {
		case <-l.queue:
		default:
		}
	}
}

// errPast ends the listening at an event after the span's end.
var errPast = errors.New("the asked time is over")

// Listen calls each with every event of the span until that is over, ctx ends or
// each fails; it returns each's error, nil when it came to its end. What was
// published before is delivered also then: a listener whose time is over before
// it is served still hears of everything in that time.
// Only the last 256 events are remembered.
func (b *Bus) Listen(ctx context.Context, span ask.Events, each func(record.Event) error) error {
	if span.Until.IsZero() {
		return b.listen(ctx, span.Since, each)
	}
	if span.Since.IsZero() && span.Until.Before(time.Now()) {
		return nil // what is past was not asked for
	}
	ctx, cancel := context.WithDeadline(ctx, span.Until)
	defer cancel()
	err := b.listen(ctx, span.Since, func(e record.Event) error {
		if e.At.After(span.Until) {
			return errPast
		}
		return each(e)
	})
	if errors.Is(err, errPast) {
		return nil
	}
	return err
}

func (b *Bus) listen(ctx context.Context, since time.Time, each func(record.Event) error) error {
	l := &listener{queue: make(chan record.Event, backlog)}
	old := b.join(l, since)
	defer b.leave(l)
	for _, e := range old {
		if err := each(e); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return l.drain(each)
		case e := <-l.queue:
			if err := each(e); err != nil {
				return err
			}
		}
	}
}

// drain hands over what is queued, without waiting.
func (l *listener) drain(each func(record.Event) error) error {
	for {
		select {
		case e := <-l.queue:
			if err := each(e); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (b *Bus) join(l *listener, since time.Time) (old []record.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[*listener]struct{}{}
	}
	b.listeners[l] = struct{}{}
	if since.IsZero() {
		return nil
	}
	for _, e := range b.past {
		if !e.At.Before(since) {
			old = append(old, e)
		}
	}
	return old
}

func (b *Bus) leave(l *listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.listeners, l)
}
