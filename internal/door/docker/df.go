package docker

import (
	"context"
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// diskUsage is the answer of GET /system/df before API 1.52.
type diskUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []struct{}
}

func (d *door) diskUsage(w http.ResponseWriter, r *request) error {
	out := diskUsage{Images: []image.Summary{}, Containers: []container.Summary{}, Volumes: []volume.Volume{}, BuildCache: []struct{}{}}
	kinds := r.Form["type"]
	for _, kind := range kinds {
		if !slices.Contains([]string{"container", "image", "volume", "build-cache"}, kind) {
			return invalid("unknown object type: %s", short(kind))
		}
	}
	want := func(kind string) bool { return len(kinds) == 0 || slices.Contains(kinds, kind) }
	var err error
	if want("container") {
		if out.Containers, err = d.sizedContainers(r.Context(), r.version); err != nil {
			return err
		}
	}
	if want("image") {
		if err := d.imageUsage(r.Context(), &out); err != nil {
			return err
		}
	}
	if want("volume") {
		if out.Volumes, err = d.volumeUsage(r.Context()); err != nil {
			return err
		}
	}
	return ok(w, out)
}

// sizedContainers is every container with what it takes on disk.
func (d *door) sizedContainers(ctx context.Context, version int) ([]container.Summary, error) {
	list, err := d.engine.List(ctx)
	if err != nil {
		return nil, err
	}
	out := []container.Summary{}
	imageOf := d.imageNames(ctx)
	for _, c := range list {
		s := summarize(c, version)
		s.Image = imageOf(c)
		s.SizeRw, s.SizeRootFs, err = d.sizeOf(ctx, c.ID)
		if fault.Is(err, fault.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (d *door) imageUsage(ctx context.Context, out *diskUsage) error {
	list, err := d.imageSummaries(ctx)
	if err != nil {
		return err
	}
	out.LayersSize = share(list)
	for _, img := range list {
		out.Images = append(out.Images, img.Summary)
	}
	return nil
}

// share fills in how much of each image others have as well, and returns the
// size of all layers.
func share(list []listed) int64 {
	var all []record.Image
	for _, s := range list {
		all = append(all, s.img)
	}
	u := record.Measure(all)
	for i := range list {
		list[i].SharedSize = u.Shared[list[i].img.ID]
	}
	return u.Layers
}
