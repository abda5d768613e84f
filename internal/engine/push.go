package engine

import (
	"context"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// Push stores an image, or every tag of a repository, at a registry.
func (e *Engine) Push(ctx context.Context, a ask.PushImage, progress func(record.Progress)) ([]record.Pushed, error) {
	done, err := e.rooms.Images.Push(ctx, a, progress)
	if len(done) > 0 {
		if img, err := e.rooms.Images.Resolve(a.Name); err == nil {
			e.tellImage("push", img, a.Name)
		}
	}
	return done, err
}

// Login asks a registry whether it takes credentials, which are not kept.
func (e *Engine) Login(ctx context.Context, a ask.RegistryAuth) (record.LoggedIn, error) {
	return e.rooms.Images.Login(ctx, a)
}
