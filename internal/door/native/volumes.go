package native

import (
	"context"
	"regexp"
	"slices"

	"fief/internal/door/native/wire"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// volumes is everything about volumes.
type volumes interface {
	CreateVolume(ctx context.Context, want ask.CreateVolume) (record.Volume, error)
	Volumes(ctx context.Context) ([]record.Volume, error)
	Volume(ctx context.Context, name string) (record.Volume, error)
	RemoveVolume(ctx context.Context, name string, force bool) error
	VolumeSize(ctx context.Context, name string) (int64, error)
}

// volumes answers the verbs about volumes.
func (k *call) volumes(v wire.Verb) (any, error) {
	switch v {
	case wire.VolumeCreate:
		want, err := decode[ask.CreateVolume](k)
		if err != nil {
			return nil, err
		}
		return k.engine.CreateVolume(k.lasting(), want)
	case wire.VolumeList:
		return k.volumeList()
	case wire.VolumeRemove:
		r, err := decode[wire.RemoveCall](k)
		if err != nil {
			return nil, err
		}
		return nil, k.engine.RemoveVolume(k.lasting(), r.Name, r.Force)
	}
	n, err := decode[wire.Name](k)
	if err != nil {
		return nil, err
	}
	if v == wire.VolumeSize {
		return k.engine.VolumeSize(k.ctx, n.Name)
	}
	return k.engine.Volume(k.ctx, n.Name)
}

// volumeList matches names here: regular expressions are not linked into fief.
func (k *call) volumeList() (any, error) {
	l, err := decode[wire.ListCall](k)
	if err != nil {
		return nil, err
	}
	names, err := nameFilters(l.Names)
	if err != nil {
		return nil, err
	}
	all, err := k.engine.Volumes(k.ctx)
	if err != nil || len(names) == 0 {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(v record.Volume) bool {
		return !slices.ContainsFunc(names, func(re *regexp.Regexp) bool { return re.MatchString(v.Name) })
	}), nil
}
