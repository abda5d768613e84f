package native

import (
	"context"

	"fief/internal/door/native/wire"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// verifier is an engine that can look through what it stores.
type verifier interface {
	Verify(ctx context.Context, repair bool, progress func(record.Progress)) (record.Verification, error)
}

func (k *call) verify() (any, error) {
	e, ok := k.engine.(verifier)
	if !ok {
		return nil, fault.New(fault.Unsupported, "verify", "store", "this engine has none", "")
	}
	r, err := decode[wire.Look](k)
	if err != nil {
		return nil, err
	}
	return e.Verify(k.ctx, r.Repair, k.progress)
}
