package engine

import (
	"context"
	"io"

	"fief/internal/image"
	"fief/internal/snapshot"
	"fief/internal/words/record"
)

func (f *imagesFake) Commit(_ context.Context, want image.Commit, layer func(io.Writer) (int64, error)) (record.Image, error) {
	if _, err := layer(io.Discard); err != nil {
		return record.Image{}, err
	}
	return record.Image{ID: "sha256:committed", Config: record.ImageConfig{User: want.Container.User}}, nil
}

func (f *layersFake) Changes(context.Context, snapshot.Written) ([]record.Change, error) {
	return []record.Change{{Kind: record.Added, Path: "/new"}}, nil
}

func (f *layersFake) WriteLayer(context.Context, io.Writer, snapshot.Written) (int64, error) {
	return 1, nil
}

func (f *layersFake) Export(_ context.Context, to io.Writer, w snapshot.Written) error {
	_, err := io.WriteString(to, w.Upper)
	return err
}

func (noCgroups) Freeze(context.Context, string) error { return nil }
func (noCgroups) Thaw(string) error                    { return nil }
