package native

import (
	"context"
	"io"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// committer reads what containers have written.
type committer interface {
	Commit(ctx context.Context, a ask.Commit) (record.Image, error)
	Export(ctx context.Context, name string, to io.Writer) error
	Changes(ctx context.Context, name string) ([]record.Change, error)
}

// written answers the verbs about what a container has written.
func (k *call) written(v wire.Verb) (any, error) {
	if v == wire.Commit {
		a, err := decode[ask.Commit](k)
		if err != nil {
			return nil, err
		}
		return k.engine.Commit(k.ctx, a)
	}
	n, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	if v == wire.Changes {
		return nil, k.sendChanges(n.Name)
	}
	f, err := k.upload()
	if err != nil {
		return nil, err
	}
	return nil, k.engine.Export(k.ctx, n.Name, f)
}

// sendChanges sends them in pieces: there may be millions.
func (k *call) sendChanges(name string) error {
	all, err := k.engine.Changes(k.ctx, name)
	if err != nil {
		return err
	}
	var piece []byte
	for i, c := range all {
		piece = wire.AppendChange(piece, c)
		if len(piece) < wire.ChunkSize/2 && i < len(all)-1 {
			continue
		}
		if err := k.send(wire.Data, piece); err != nil {
			return err
		}
		piece = piece[:0]
	}
	return nil
}
