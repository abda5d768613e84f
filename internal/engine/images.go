package engine

import (
	"context"
	"io"
	"slices"
	"strings"

	"fief/internal/image"
	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// Pull fetches an image and unpacks its layers.
func (e *Engine) Pull(ctx context.Context, a ask.PullImage, progress func(record.Progress)) (record.Image, error) {
	img, err := e.rooms.Images.Pull(ctx, a, progress)
	if err == nil {
		e.tellImage("pull", img, a.Name)
	}
	return img, err
}

// Load takes images from an archive.
func (e *Engine) Load(ctx context.Context, a ask.LoadImages, r io.Reader, progress func(record.Progress)) ([]record.Image, error) {
	list, err := e.rooms.Images.Load(ctx, a, r, progress)
	e.tellLoaded(list)
	return list, err
}

// LoadLayout takes images from an OCI layout directory of the host.
func (e *Engine) LoadLayout(ctx context.Context, a ask.LoadImages, dir string, progress func(record.Progress)) ([]record.Image, error) {
	list, err := e.rooms.Images.LoadLayout(ctx, a, dir, progress)
	e.tellLoaded(list)
	return list, err
}

// Import makes an image of one layer from a root filesystem tar.
func (e *Engine) Import(ctx context.Context, a ask.ImportImage, r io.Reader) (record.Image, error) {
	img, err := e.rooms.Images.Import(ctx, a, r)
	if err == nil {
		e.tellImage("import", img, a.Name)
	}
	return img, err
}

// Images returns every image.
func (e *Engine) Images(context.Context) ([]record.Image, error) { return e.rooms.Images.List(), nil }

// Image finds one image by name, digest, id or unique id prefix.
func (e *Engine) Image(_ context.Context, name string) (record.Image, error) {
	return e.rooms.Images.Resolve(name)
}

// ImageFor is Image of a platform, "os/arch[/variant]"; empty: the one that the
// name stands for.
func (e *Engine) ImageFor(_ context.Context, name, platform string) (record.Image, error) {
	return e.rooms.Images.ResolveFor(name, platform)
}

// Tag gives an image another name.
func (e *Engine) Tag(_ context.Context, src, dst string) error {
	err := e.rooms.Images.Tag(src, dst)
	if err == nil {
		img, _ := e.rooms.Images.Resolve(dst)
		e.tellImage("tag", img, dst)
	}
	return err
}

// RemoveImage removes a name, and the image with its last name.
func (e *Engine) RemoveImage(_ context.Context, name string, force bool) ([]record.Removed, error) {
	e.using.Lock() // no container may be made of it between the look and the removal
	defer e.using.Unlock()
	img, err := e.rooms.Images.Resolve(name)
	if err != nil {
		return nil, err
	}
	gone, err := e.rooms.Images.Remove(name, force, e.usersOf)
	for _, r := range gone {
		if r.Untagged != "" {
			e.tellImage("untag", img, r.Untagged)
		} else {
			e.tellImage("delete", img, r.Deleted)
		}
	}
	return gone, err
}

// usersOf lists the containers made from an image, which keep its layers in
// use whether they run or not.
func (e *Engine) usersOf(imageID string) []image.Use {
	var out []image.Use
	for _, c := range e.table.all() {
		if rec := c.record(); rec.ImageID == imageID || mountsImage(rec, imageID) {
			out = append(out, image.Use{ID: rec.ID, Running: rec.State.Status == record.Running})
		}
	}
	slices.SortFunc(out, func(a, b image.Use) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (e *Engine) tellLoaded(list []record.Image) {
	for _, img := range list {
		e.tellImage("load", img, img.ID)
	}
}

func (e *Engine) tellImage(action string, img record.Image, name string) {
	e.rooms.Events.Publish(record.Event{Type: "image", Action: action, ID: img.ID, Attrs: map[string]string{"name": name}})
}
