package native

import (
	"bytes"
	"context"

	"fief/internal/door/native/wire"
	"fief/internal/words/record"
)

// logs streams a container's log. Lines that come faster than the client
// reads are sent many to a packet; a line that comes alone goes at once.
func (k *call) logs() error {
	l, err := decode[wire.LogsCall](k)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	lines := make(chan record.LogLine, 64)
	sent := make(chan error, 1)
	go func() {
		err := k.sendLines(lines)
		cancel()
		sent <- err
	}()
	err = k.engine.Logs(ctx, l.ID, l.Logs, func(line record.LogLine) error {
		line.Text = bytes.Clone(line.Text) // the engine may use its buffer again
		select {
		case lines <- line:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	close(lines)
	if sendErr := <-sent; sendErr != nil {
		return sendErr
	}
	return err
}

// sendLines sends lines until they end. Preconditions: lines is closed at the
// end by the sender.
func (k *call) sendLines(lines <-chan record.LogLine) error {
	for line := range lines {
		body := wire.AppendLine(nil, line)
		for more := true; more && len(body) < wire.ChunkSize/2; {
			select {
			case next, ok := <-lines:
				if more = ok; ok {
					body = wire.AppendLine(body, next)
				}
			default:
				more = false
			}
		}
		if err := k.send(wire.Data, body); err != nil {
			return err
		}
	}
	return nil
}
