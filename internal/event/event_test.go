package event

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

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
		done <- b.Listen(context.Background(), start, func(e record.Event) error {
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
	if err := b.Listen(ctx, time.Time{}, func(record.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
}
