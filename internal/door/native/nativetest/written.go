package nativetest

import (
	"context"
	"io"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// Commit makes an image of that name.
func (e *Engine) Commit(ctx context.Context, a ask.Commit) (record.Image, error) {
	if err := e.locked(a.Container, func(*box) error { return nil }); err != nil {
		return record.Image{}, err
	}
	made, err := e.LoadLayout(ctx, ask.LoadImages{}, a.Name, nil)
	made[0].Author, made[0].Comment = a.Author, a.Message
	return made[0], err
}

// Export writes the container's id.
func (e *Engine) Export(_ context.Context, name string, to io.Writer) error {
	return e.locked(name, func(b *box) error {
		_, err := io.WriteString(to, "the files of "+name+"\n")
		return err
	})
}

// Changes lists one change of each kind, with a name that is no UTF-8.
func (e *Engine) Changes(_ context.Context, name string) (out []record.Change, err error) {
	err = e.locked(name, func(*box) error {
		out = []record.Change{{Kind: record.Modified, Path: "/etc"}, {Kind: record.Added, Path: "/etc/\xff"}, {Kind: record.Deleted, Path: "/gone"}}
		return nil
	})
	return out, err
}
