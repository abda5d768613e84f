package event

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

var errEnough = errors.New("enough")

func TestListenSeesPastAndPresentOnce(t *testing.T) {
	var b Bus
	start := time.Now()
	b.Publish(record.Event{Action: "create"})
	got := make(chan string, 4)
	done := make(chan error, 1)
	go func() {
		done <- b.Listen(context.Background(), ask.Events{Since: start}, func(e record.Event) error {
			got <- e.Action
			if e.Action == "die" {
				return errEnough
			}
			return nil
		})
	}()
	if a := <-got; a != "create" {
		t.Fatalf("first event %q", a)
	}
	b.Publish(record.Event{Action: "die"})
	if a := <-got; a != "die" {
		t.Fatalf("second event %q", a)
	}
	if err := <-done; !errors.Is(err, errEnough) {
		t.Fatalf("Listen returned %v", err)
	}
	if len(b.listeners) != 0 {
		t.Fatal("listener left behind")
	}
}

// A listener that does not keep up loses the oldest events; Publish never waits.
func TestSlowListenerNeverStallsPublish(t *testing.T) {
	var b Bus
	l := &listener{queue: make(chan record.Event, backlog)}
	b.join(l, time.Time{})
	for i := range 3 * backlog {
		b.Publish(record.Event{Action: strconv.Itoa(i)})
	}
	if first := <-l.queue; first.Action != strconv.Itoa(2*backlog) {
		t.Fatalf("oldest kept event is %s, want %d", first.Action, 2*backlog)
	}
}

func TestListenEndsWithContext(t *testing.T) {
	var b Bus
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Listen(ctx, ask.Events{}, func(record.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// A listener whose time has come has heard of everything before it: select
// takes any of two ready cases, so one of a hundred tries would be short.
func TestListenersEndHearsWhatWasBefore(t *testing.T) {
	for range 100 {
		var b Bus
		ctx, cancel := context.WithCancel(context.Background())
		joined := make(chan struct{})
		heard := 0
		done := make(chan struct{})
		b.Publish(record.Event{Action: "first"})
		go func() {
			defer close(done)
			b.Listen(ctx, ask.Events{Since: time.Unix(0, 0)}, func(record.Event) error {
				if heard++; heard == 1 {
					close(joined)
					<-ctx.Done()
				}
				return nil
			})
		}()
		<-joined
		for range 3 {
			b.Publish(record.Event{Action: "queued"})
		}
		cancel()
		<-done
		if heard != 4 {
			t.Fatalf("heard of %d events, not 4", heard)
		}
	}
}

// The end of a span ends the listening: with what was before it, and nothing of
// what came after, also when all of that is past.
func TestListenEndsWithSpan(t *testing.T) {
	var b Bus
	begun := time.Now()
	for i, name := range []string{"first", "last", "after"} {
		b.Publish(record.Event{Action: name, At: begun.Add(time.Duration(i) * time.Second)})
	}
	heard := func(span ask.Events) (list []string) {
		t.Helper()
		if err := b.Listen(context.Background(), span, func(e record.Event) error {
			list = append(list, e.Action)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := heard(ask.Events{Since: begun, Until: begun.Add(time.Second)}); !slices.Equal(got, []string{"first", "last"}) {
		t.Errorf("heard %q between the first and the last", got)
	}
	if got := heard(ask.Events{Until: begun.Add(-time.Second)}); got != nil {
		t.Errorf("heard %q although the end was past before all of it", got)
	}
	if got := heard(ask.Events{Since: begun.Add(3 * time.Second), Until: time.Now().Add(20 * time.Millisecond)}); got != nil {
		t.Errorf("heard %q of what was before the span", got)
	}
}
