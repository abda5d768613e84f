package main

import (
	"context"
	"io"

	"fief/internal/snapshot"
	"fief/internal/snapshot/unpack"
	"fief/internal/words/record"
)

// layers is what images unpack into: a building of the snapshot store, filled
// by the extractor, visible when it is complete and on disk.
type layers struct{ store *snapshot.Store }

func (l layers) Has(diffID string) bool { return l.store.HasLayer(diffID) }

func (l layers) Remove(diffID string) error { return l.store.RemoveLayer(diffID) }

func (l layers) Unpack(ctx context.Context, diffID string, r io.Reader) (record.Layer, error) {
	return l.build(ctx, diffID, r, (*snapshot.Building).Commit)
}

// Replace is Unpack of a layer that is there and is damaged.
func (l layers) Replace(ctx context.Context, diffID string, r io.Reader) (record.Layer, error) {
	return l.build(ctx, diffID, r, (*snapshot.Building).Replace)
}

func (l layers) build(ctx context.Context, diffID string, r io.Reader, publish func(*snapshot.Building) error) (record.Layer, error) {
	b, err := l.store.Build(diffID)
	if err != nil {
		return record.Layer{}, err
	}
	defer b.Abort()
	facts, err := unpack.Tar(ctx, b.Dir, r, unpack.Limits{})
	if err != nil {
		return record.Layer{}, err
	}
	if err := publish(b); err != nil {
		return record.Layer{}, err
	}
	return record.Layer{
		DiffID: diffID, Size: facts.Bytes, Files: facts.Files, Opaque: facts.Opaque,
		MaxUID: facts.MaxUID, MaxGID: facts.MaxGID, PasswdUID: facts.PasswdUID, PasswdGID: facts.PasswdGID,
	}, nil
}

func (l layers) List() ([]string, error) { return l.store.Layers() }

// Differences unpacks the layer once more, beside the stored one, and compares
// the two: what the extractor makes of a tar is said nowhere else.
func (l layers) Differences(ctx context.Context, diffID string, r io.Reader) ([]string, error) {
	b, err := l.store.Build(diffID)
	if err != nil {
		return nil, err
	}
	defer b.Abort()
	if _, err := unpack.Tar(ctx, b.Dir, r, unpack.Limits{}); err != nil {
		return nil, err
	}
	return l.store.Differences(ctx, diffID, b)
}
