package docker

import (
	"context"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// CreateVolume keeps nothing: the fake has one volume, "kept", which a container
// has.
func (f *fake) CreateVolume(_ context.Context, want ask.CreateVolume) (record.Volume, error) {
	if err := ask.CheckVolumeName(want.Name); err != nil {
		return record.Volume{}, err
	}
	return record.Volume{Name: want.Name, Driver: ask.LocalDriver, Labels: want.Labels, Options: want.Options, Mountpoint: "/v/" + want.Name + "/_data"}, nil
}

func (f *fake) Volumes(ctx context.Context) ([]record.Volume, error) {
	v, err := f.Volume(ctx, "kept")
	return []record.Volume{v}, err
}

func (f *fake) Volume(_ context.Context, name string) (record.Volume, error) {
	if name != "kept" {
		return record.Volume{}, fault.Say(fault.NotFound, "get "+name+": no such volume")
	}
	return record.Volume{Name: "kept", Driver: ask.LocalDriver, Created: time.Unix(1, 0).UTC(), Mountpoint: "/v/kept/_data", Users: []string{"c1"}}, nil
}

func (f *fake) RemoveVolume(_ context.Context, name string, force bool) error {
	switch {
	case name == "kept":
		return fault.Say(fault.Conflict, "remove kept: volume is in use - [c1]")
	case force:
		return nil
	}
	return fault.Say(fault.NotFound, "get "+name+": no such volume")
}

func (f *fake) VolumeSize(context.Context, string) (int64, error) { return 7, nil }
