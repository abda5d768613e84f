package native

import (
	"context"

	"fief/internal/door/native/wire"
	"fief/internal/words/record"
)

// limiter is what containers may use and use.
type limiter interface {
	Stats(ctx context.Context, id string, stream bool, each func(record.Stats) error) error
	UpdateResources(ctx context.Context, id string, r record.Resources) (warnings []string, err error)
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
}

// resources answers the verbs about limits.
func (k *call) resources(v wire.Verb) (any, error) {
	if v == wire.UpdateResources {
		u, err := decode[wire.ResourcesCall](k)
		if err != nil {
			return nil, err
		}
		return k.engine.UpdateResources(k.lasting(), u.ID, u.Resources)
	}
	n, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	switch v {
	case wire.Pause:
		return nil, k.engine.Pause(k.lasting(), n.Name)
	case wire.Unpause:
		return nil, k.engine.Unpause(k.lasting(), n.Name)
	}
	var one record.Stats
	err = k.engine.Stats(k.ctx, n.Name, false, func(s record.Stats) error {
		one = s
		return nil
	})
	return one, err
}
