package native

import (
	"context"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// verifier is an engine that can look through what it stores.
type verifier interface {
	Verify(ctx context.Context, progress func(record.Progress)) (record.Verification, error)
}

func (k *call) verify() (any, error) {
	e, ok := k.engine.(verifier)
	if !ok {
		return nil, fault.New(fault.Unsupported, "verify", "store", "this engine has none", "")
	}
	return e.Verify(k.ctx, k.progress)
}
