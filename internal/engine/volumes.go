package engine

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"

	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// volumes keeps directories that outlive containers.
type volumes interface {
	// Create makes a volume, or returns the one of this name. One without a name
	// is the container's.
	Create(want ask.CreateVolume, container string) (_ record.Volume, made bool, err error)
	Get(name string) (record.Volume, error)
	List() []record.Volume
	// Keep makes an anonymous volume outlive its container.
	Keep(name string) error
	// Doom takes a volume from everybody's sight; remove deletes it.
	Doom(name string) (remove func() error, err error)
	// Use and Free frame the time in which a container has a volume mounted.
	Use(name, user string) error
	Free(name, user string)
	// Fill fills an empty volume by what copy makes in a directory.
	Fill(name string, copy func(dst *os.File) (bool, error)) error
	// Mount makes a detached mount of a volume.
	Mount(m record.Mount, as volume.As) (*os.File, error)
	Size(name string) (int64, error)
	Verify() []record.Problem
	// Settle removes what belongs to nobody: volumes that orphan names, mounts
	// that no running container has.
	Settle(orphan func(record.Volume) bool)
}

// CreateVolume makes a volume, or returns the one that has this name.
func (e *Engine) CreateVolume(_ context.Context, want ask.CreateVolume) (record.Volume, error) {
	v, made, err := e.rooms.Volumes.Create(want, "")
	if err != nil {
		return v, err
	}
	if made {
		e.tellVolume("create", v, nil)
	}
	v.Users = e.usersOfVolume(v.Name)
	return v, nil
}

// Volumes returns every volume with who has it, by name.
func (e *Engine) Volumes(context.Context) ([]record.Volume, error) {
	users := map[string][]string{}
	for _, c := range e.table.all() {
		rec := c.record()
		for _, name := range volumesOf(rec) {
			users[name] = append(users[name], rec.ID)
		}
	}
	out := e.rooms.Volumes.List()
	for i := range out {
		out[i].Users = users[out[i].Name]
	}
	return out, nil
}

// Volume finds one volume by its name. NotFound in Docker's words.
func (e *Engine) Volume(_ context.Context, name string) (record.Volume, error) {
	v, err := e.rooms.Volumes.Get(name)
	if err == nil {
		v.Users = e.usersOfVolume(name)
	}
	return v, err
}

// VolumeSize is how many bytes are in a volume's files.
func (e *Engine) VolumeSize(_ context.Context, name string) (int64, error) {
	return e.rooms.Volumes.Size(name)
}

// RemoveVolume deletes a volume with its files. One that a container has, whether
// it runs or not, is a Conflict. With force a missing one is no fault.
func (e *Engine) RemoveVolume(_ context.Context, name string, force bool) error {
	v, err := e.rooms.Volumes.Get(name)
	if err == nil {
		err = e.removeVolume(v, "")
	}
	if force && fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// removeVolume removes a volume that no container but except has. Preconditions:
// Engine.using is not held.
func (e *Engine) removeVolume(v record.Volume, except string) error {
	e.using.Lock() // no container may come to have it between the look and the doom
	users := slices.DeleteFunc(e.usersOfVolume(v.Name), func(id string) bool { return id == except })
	if len(users) > 0 {
		e.using.Unlock()
		return fault.Say(fault.Conflict, "remove "+v.Name+": volume is in use - ["+strings.Join(users, ", ")+"]")
	}
	remove, err := e.rooms.Volumes.Doom(v.Name)
	e.using.Unlock()
	if err != nil {
		return err
	}
	if err := remove(); err != nil {
		return err
	}
	e.tellVolume("destroy", v, nil)
	return nil
}

func (e *Engine) usersOfVolume(name string) (out []string) {
	for _, c := range e.table.all() {
		if rec := c.record(); slices.Contains(volumesOf(rec), name) {
			out = append(out, rec.ID)
		}
	}
	return out
}

// volumesOf are the names of a container's volumes, each once.
func volumesOf(rec record.Container) (out []string) {
	for _, m := range rec.Mounts {
		if m.Kind == string(ask.Volume) && !slices.Contains(out, m.Name) {
			out = append(out, m.Name)
		}
	}
	return out
}

func (e *Engine) tellVolume(action string, v record.Volume, more map[string]string) {
	attrs := map[string]string{"driver": v.Driver}
	for k, value := range more {
		attrs[k] = value
	}
	e.rooms.Events.Publish(record.Event{Type: "volume", Action: action, ID: v.Name, Attrs: attrs})
}

// enterVolumes has the volumes of a container that is about to start mounted and
// filled. On failure nothing is mounted for it.
func (e *Engine) enterVolumes(rec record.Container) error {
	for _, m := range rec.Mounts {
		if m.Kind != string(ask.Volume) {
			continue
		}
		if err := e.enterVolume(rec, m, rec.ID); err != nil {
			e.freeVolumes(rec, rec.ID)
			return err
		}
	}
	for _, m := range rec.Mounts {
		if m.Kind == string(ask.Volume) {
			e.tellVolume("mount", record.Volume{Name: m.Name, Driver: ask.LocalDriver}, mountAttrs(rec, m))
		}
	}
	return nil
}

func mountAttrs(rec record.Container, m record.Mount) map[string]string {
	access := "true"
	if m.ReadOnly {
		access = "false"
	}
	return map[string]string{"container": rec.ID, "destination": m.Target, "read/write": access, "propagation": m.Propagation}
}

// enterVolume mounts a volume for user, and fills it with what the image has at
// its place: once for each container, as Docker does when it makes one.
func (e *Engine) enterVolume(rec record.Container, m record.Mount, user string) error {
	if err := e.rooms.Volumes.Use(m.Name, user); err != nil {
		return err
	}
	if m.NoCopy || m.Ready || m.Subpath != "" {
		return nil
	}
	return e.rooms.Volumes.Fill(m.Name, func(dst *os.File) (bool, error) {
		return e.rooms.Layers.CopyDir(context.Background(), rec.Rootfs.Layers, rec.Rootfs.Host, m.Target, dst)
	})
}

// leaveVolumes ends a running container's use of its volumes.
func (e *Engine) leaveVolumes(rec record.Container) {
	e.freeVolumes(rec, rec.ID)
	for _, m := range rec.Mounts {
		if m.Kind == string(ask.Volume) {
			e.tellVolume("unmount", record.Volume{Name: m.Name, Driver: ask.LocalDriver}, map[string]string{"container": rec.ID})
		}
	}
}

func (e *Engine) freeVolumes(rec record.Container, user string) {
	for _, name := range volumesOf(rec) {
		e.rooms.Volumes.Free(name, user)
	}
}

// rejoinVolumes is for a container that has outlived its daemon.
func (e *Engine) rejoinVolumes(rec record.Container) {
	for _, name := range volumesOf(rec) {
		if err := e.rooms.Volumes.Use(name, rec.ID); err != nil {
			slog.Warn("a running container's volume cannot be used", "container", rec.ID, "volume", name, "error", err)
		}
	}
}

// settleVolumes removes what killed daemons left of volumes. Preconditions: all
// containers are in the table, and the running ones have rejoined.
func (e *Engine) settleVolumes() {
	e.rooms.Volumes.Settle(func(v record.Volume) bool {
		return v.Container != "" && e.table.known(v.Container) == nil && len(e.usersOfVolume(v.Name)) == 0
	})
}

// volumesReady notes that the first start has done what it does to the files of
// mounts.
func (c *container) volumesReady() {
	c.change(func(r *record.Container) {
		if !slices.ContainsFunc(r.Mounts, func(m record.Mount) bool { return !m.Ready && (m.Chown || m.Kind == string(ask.Volume)) }) {
			return
		}
		r.Mounts = slices.Clone(r.Mounts) // copies of the record have the old list
		for i := range r.Mounts {
			r.Mounts[i].Ready = r.Mounts[i].Chown || r.Mounts[i].Kind == string(ask.Volume)
		}
	})
}

// keepVolumes makes the anonymous volumes of a container that is removed without
// them outlive it.
func (e *Engine) keepVolumes(rec record.Container) error {
	for _, name := range volumesOf(rec) {
		if err := e.rooms.Volumes.Keep(name); err != nil {
			return err
		}
	}
	return nil
}

// dropVolumes removes the anonymous volumes of a container that is gone and that
// no other container has: all with everything, else those that are this
// container's alone, which were not kept.
//
// Before all containers are known none is removed: settleVolumes does that.
func (e *Engine) dropVolumes(rec record.Container, everything bool) {
	select {
	case <-e.recovered:
	default:
		return
	}
	for _, name := range volumesOf(rec) {
		v, err := e.rooms.Volumes.Get(name)
		if err != nil || !v.Anonymous || !everything && v.Container != rec.ID {
			continue
		}
		err = e.removeVolume(v, rec.ID)
		if fault.Is(err, fault.Conflict) {
			err = e.rooms.Volumes.Keep(name)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			slog.Warn("cannot remove a container's volume", "container", rec.ID, "volume", name, "error", err)
		}
	}
}
