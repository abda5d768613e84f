package engine

import (
	"context"

	"fief/internal/words/record"
)

// Verify reads everything stored of images and says what is not as it must be.
// It changes nothing and may take as long as reading the disk does.
func (e *Engine) Verify(ctx context.Context, progress func(record.Progress)) (record.Verification, error) {
	return e.rooms.Images.Verify(ctx, progress)
}
