package nativetest

import (
	"context"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// CreateVolume makes a volume.
func (e *Engine) CreateVolume(_ context.Context, want ask.CreateVolume) (record.Volume, error) {
	if err := ask.CheckVolumeName(want.Name); err != nil {
		return record.Volume{}, err
	}
	v := record.Volume{Name: want.Name, Driver: ask.LocalDriver, Labels: want.Labels, Options: want.Options, Mountpoint: "/volumes/" + want.Name + "/_data"}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.volumes = append(e.volumes, v)
	return v, nil
}

// Volumes returns every volume.
func (e *Engine) Volumes(context.Context) ([]record.Volume, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]record.Volume{}, e.volumes...), nil
}

// Volume returns one volume.
func (e *Engine) Volume(_ context.Context, name string) (record.Volume, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.volumes {
		if v.Name == name {
			return v, nil
		}
	}
	return record.Volume{}, fault.Say(fault.NotFound, "get "+name+": no such volume")
}

// RemoveVolume removes a volume.
func (e *Engine) RemoveVolume(_ context.Context, name string, force bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, v := range e.volumes {
		if v.Name == name {
			e.volumes = append(e.volumes[:i:i], e.volumes[i+1:]...)
			return nil
		}
	}
	if force {
		return nil
	}
	return fault.Say(fault.NotFound, "get "+name+": no such volume")
}

// VolumeSize says that there is nothing in any volume.
func (e *Engine) VolumeSize(context.Context, string) (int64, error) { return 0, nil }
