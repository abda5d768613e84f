package engine

import (
	"context"
	"io"

	"fief/internal/words/ask"
)

// Save writes images as one archive. An error before the first byte leaves w
// untouched; after a later one what was written must be thrown away.
func (e *Engine) Save(ctx context.Context, a ask.SaveImages, w io.Writer) error {
	err := e.rooms.Images.Save(ctx, a, w)
	if err != nil {
		return err
	}
	for _, name := range a.Names {
		if img, err := e.rooms.Images.Resolve(name); err == nil {
			e.tellImage("save", img, img.ID)
		}
	}
	return nil
}
