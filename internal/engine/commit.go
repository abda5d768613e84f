package engine

import (
	"context"
	"errors"
	"io"
	"strings"

	"fief/internal/image"
	"fief/internal/snapshot"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Changes lists what a container, running or not, has changed in its root
// filesystem, as `docker diff` does.
func (e *Engine) Changes(ctx context.Context, name string) ([]record.Change, error) {
	c, err := e.table.find(name)
	if err != nil {
		return nil, err
	}
	w, err := e.writtenBy(c.record())
	if err != nil {
		return nil, err
	}
	list, err := e.rooms.Layers.Changes(ctx, w)
	return list, c.kept(err)
}

// Export writes the root filesystem of a container, running or not, as a tar
// with the ids that the container knows. An error before the first byte leaves
// to untouched; after a later one what was written must be thrown away.
func (e *Engine) Export(ctx context.Context, name string, to io.Writer) error {
	c, err := e.table.find(name)
	if err != nil {
		return err
	}
	rec := c.record()
	w, err := e.writtenBy(rec)
	if err != nil {
		return err
	}
	if err := c.kept(e.rooms.Layers.Export(ctx, to, w)); err != nil {
		return err
	}
	e.tell("export", rec, nil)
	return nil
}

// Commit makes an image of what a container has written. Its processes stand
// still meanwhile where there is a cgroup that can be frozen, unless that was
// not wanted; nothing else happens to the container either.
func (e *Engine) Commit(ctx context.Context, a ask.Commit) (record.Image, error) {
	c, err := e.claim(ctx, a.Container)
	if err != nil {
		return record.Image{}, err
	}
	defer c.free()
	rec := c.record()
	if rec.State.Status == record.Removing || rec.State.Status == record.Dead {
		return record.Image{}, fault.Say(fault.Conflict, "You cannot commit container "+rec.ID+" which is "+string(rec.State.Status))
	}
	if rec.Rootfs.Host {
		return record.Image{}, fault.New(fault.Unsupported, "commit container", rec.Name, "it was made from the built-in image, whose /usr is the host's",
			"run it from an image that was pulled or imported")
	}
	base, err := e.rooms.Images.Resolve(rec.ImageID)
	if err != nil {
		return record.Image{}, err
	}
	w, err := e.writtenBy(rec)
	if err != nil {
		return record.Image{}, err
	}
	want := image.Commit{Ask: a, Base: base, Container: configOf(rec, base), CreatedBy: strings.Join(append([]string{rec.Path}, rec.Args...), " ")}
	img, err := e.rooms.Images.Commit(ctx, want, func(to io.Writer) (int64, error) { return e.writeLayer(ctx, c, w, !a.NoPause, to) })
	if err == nil {
		e.tell("commit", rec, map[string]string{"comment": a.Message, "imageID": img.ID, "imageRef": first(img.Names...)})
	}
	return img, err
}

// writeLayer reads what a container has written while it stands still. It goes
// on as soon as that is read. Preconditions: the claim is held.
func (e *Engine) writeLayer(ctx context.Context, c *container, w snapshot.Written, pause bool, to io.Writer) (int64, error) {
	if pause && c.record().State.Status == record.Running {
		thaw, err := e.freeze(ctx, c.record())
		if err != nil {
			return 0, err
		}
		defer thaw()
	}
	n, err := e.rooms.Layers.WriteLayer(ctx, to, w)
	return n, c.kept(err)
}

// kept is err, or that the container was removed: then what was read of its files
// is not all.
func (c *container) kept(err error) error {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if !gone {
		return err
	}
	return fault.Wrap(fault.Conflict, "read the files of container", c.id, errors.New("it was removed meanwhile"), "")
}

// writtenBy names what a container's root filesystem is stored in.
func (e *Engine) writtenBy(rec record.Container) (snapshot.Written, error) {
	pair, err := pairOf(rec.Identity)
	way, _ := e.wayOf(rec, pair)
	return snapshot.Written{Upper: rec.Rootfs.Upper, Layers: rec.Rootfs.Layers, Host: rec.Rootfs.Host, Pair: pair, Way: way}, err
}

// configOf is what a container was made to run as, in the form of an image.
func configOf(rec record.Container, base record.Image) ask.CommitConfig {
	return ask.CommitConfig{
		User: rec.User, Env: rec.Env, Entrypoint: rec.Entrypoint, Cmd: rec.Cmd, WorkDir: rec.WorkDir, Labels: rec.Labels, StopSignal: rec.StopSignal,
		Volumes: base.Config.Volumes, ExposedPorts: base.Config.ExposedPorts, Shell: base.Config.Shell,
	}
}
