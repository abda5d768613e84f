package engine

import (
	"context"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// statsEvery is how often a stream of statistics tells: Docker's second.
const statsEvery = time.Second

// Stats tells each what a container uses of the machine: once, or with stream
// every second until ctx ends, each fails or the container is removed. One that
// does not run uses nothing.
func (e *Engine) Stats(ctx context.Context, name string, stream bool, each func(record.Stats) error) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		s, err := e.statsOf(c.record())
		if err != nil {
			return err
		}
		if err := each(s); err != nil || !stream {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if e.table.known(c.id) == nil {
			return nil
		}
	}
}

func (e *Engine) statsOf(rec record.Container) (s record.Stats, err error) {
	if rec.State.Status == record.Running {
		s, err = e.rooms.Cgroups.Stats(groupOf(rec))
		if fault.Is(err, fault.NotFound) { // it has just ended
			s, err = record.Stats{}, nil
		}
	}
	s.ID, s.Name = rec.ID, rec.Name
	return s, err
}
