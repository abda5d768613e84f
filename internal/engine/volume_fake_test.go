package engine

import (
	"context"
	"os"

	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// volumesFake holds volumes that have no files.
type volumesFake map[string]record.Volume

func (f volumesFake) Create(want ask.CreateVolume, container string) (record.Volume, bool, error) {
	if v, ok := f[want.Name]; ok {
		return v, false, nil
	}
	v := record.Volume{Name: want.Name, Driver: ask.LocalDriver, Labels: want.Labels}
	if v.Name == "" {
		v.Name, v.Anonymous, v.Container = ref.NewID(), true, container
	}
	v.Mountpoint = "/volumes/" + v.Name
	f[v.Name] = v
	return v, true, nil
}

func (f volumesFake) Get(name string) (record.Volume, error) {
	if v, ok := f[name]; ok {
		return v, nil
	}
	return record.Volume{}, errFake
}

func (f volumesFake) List() (out []record.Volume) {
	for _, v := range f {
		out = append(out, v)
	}
	return out
}

func (f volumesFake) Keep(name string) error {
	v := f[name]
	v.Container = ""
	f[name] = v
	return nil
}

func (f volumesFake) Doom(name string) (func() error, error) {
	return func() error { delete(f, name); return nil }, nil
}

func (volumesFake) Use(string, string) error { return nil }

func (volumesFake) Free(string, string) {}

func (volumesFake) Fill(string, func(*os.File) (bool, error)) error { return nil }

func (volumesFake) Mount(record.Mount, volume.As) (*os.File, error) { return nil, errFake }

func (volumesFake) Size(string) (int64, error) { return 0, nil }

func (volumesFake) Verify() []record.Problem { return nil }

func (volumesFake) Settle(func(record.Volume) bool) {}

func (*layersFake) CopyDir(context.Context, []string, bool, string, *os.File) (bool, error) {
	return false, errFake
}
