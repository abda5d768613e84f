package engine

import (
	"context"

	"fief/internal/volume"
	"fief/internal/words/record"
)

type watchKey struct{}

// Watched is ctx with somebody who waits for a start: tell hears how far its long work
// is, a second after it began and every second from then on, and the end of while ends
// the work where it is. A start that runs its container by then goes on.
func Watched(ctx, while context.Context, tell func(record.Progress)) context.Context {
	return context.WithValue(ctx, watchKey{}, volume.Watch{Tell: tell, Stop: while.Done()})
}

func watchOf(ctx context.Context) volume.Watch {
	w, _ := ctx.Value(watchKey{}).(volume.Watch)
	return w
}
