package native

import (
	"context"
	"io"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// copier copies files into and out of containers.
type copier interface {
	StatPath(ctx context.Context, id, path string) (record.PathStat, error)
	ReadPath(ctx context.Context, id, path string) (record.PathStat, io.ReadCloser, error)
	WritePath(ctx context.Context, id string, c ask.CopyIn, r io.Reader) error
}

// archives answers the verbs about files in containers.
func (k *call) archives(v wire.Verb) (any, error) {
	if v == wire.WritePath {
		c, err := decode[wire.CopyInCall](k)
		if err != nil {
			return nil, err
		}
		f, err := k.upload()
		if err != nil {
			return nil, err
		}
		return nil, k.engine.WritePath(k.ctx, c.ID, c.CopyIn, f)
	}
	p, err := decode[wire.PathCall](k)
	if err != nil {
		return nil, err
	}
	if v == wire.StatPath {
		return k.engine.StatPath(k.ctx, p.ID, p.Path)
	}
	return k.readPath(p)
}

// readPath writes the archive into the client's file.
func (k *call) readPath(p wire.PathCall) (any, error) {
	to, err := k.upload()
	if err != nil {
		return nil, err
	}
	stat, content, err := k.engine.ReadPath(k.ctx, p.ID, p.Path)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	_, err = io.Copy(to, content)
	return stat, fault.Wrap(fault.ClassOf(err), "write", "archive", err, "")
}
