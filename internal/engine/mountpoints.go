package engine

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/snapshot"
	"fief/internal/spec"
	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// mounted decides what is mounted in a container, as Docker does: what other
// containers have (--volumes-from), over it what was asked for, and a new volume
// for each path that the image names and nothing else is at. Volumes that are not
// there are made; back takes back those without a name.
func (e *Engine) mounted(rec *record.Container, a ask.Container, img record.Image, back *undo) error {
	for _, from := range a.VolumesFrom {
		if err := e.mountsFrom(rec, from); err != nil {
			return err
		}
		rec.VolumesFrom = append(rec.VolumesFrom, from.String())
	}
	asked := map[string]bool{}
	for _, m := range a.Mounts {
		target, err := targetOf(m)
		if err != nil {
			return err
		}
		if asked[target] {
			return fault.Say(fault.Invalid, "Duplicate mount point: "+target)
		}
		if m.Kind == ask.Volume && m.Source == "" && mountedAt(rec.Mounts, target) {
			continue
		}
		asked[target] = true
		point, err := e.mountPoint(rec.ID, m, target, a.VolumeDriver, back)
		if err != nil {
			return err
		}
		rec.Mounts = append(slices.DeleteFunc(rec.Mounts, func(o record.Mount) bool { return o.Target == target }), point)
	}
	for _, name := range slices.Sorted(slices.Values(img.Config.Volumes)) {
		target := path.Clean("/" + name)
		if mountedAt(rec.Mounts, target) {
			continue
		}
		point, err := e.mountPoint(rec.ID, ask.Mount{Kind: ask.Volume, Target: target}, target, a.VolumeDriver, back)
		if err != nil {
			return err
		}
		point.Implied = true
		rec.Mounts = append(rec.Mounts, point)
	}
	return nil
}

func mountedAt(mounts []record.Mount, target string) bool {
	return slices.ContainsFunc(mounts, func(m record.Mount) bool { return m.Target == target })
}

// mountsFrom takes over the binds, volumes and images of another container. They
// are filled already, or were not to be.
func (e *Engine) mountsFrom(rec *record.Container, from ask.VolumesFrom) error {
	c, err := e.table.find(from.Container)
	if fault.Is(err, fault.NotFound) {
		// No 404: `docker run` takes every 404 of a create for a missing image.
		return fault.Say(fault.Invalid, "No such container: "+from.Container)
	}
	if err != nil {
		return err
	}
	for _, m := range c.record().Mounts {
		if m.Kind == string(ask.Tmpfs) {
			continue
		}
		m.ReadOnly, m.Implied, m.NoCopy = m.ReadOnly || from.ReadOnly, true, true
		rec.Mounts = append(slices.DeleteFunc(rec.Mounts, func(o record.Mount) bool { return o.Target == m.Target }), m)
	}
	return nil
}

// targetOf cleans the place of a mount and refuses places where nothing can be.
// What governs the kernel is not covered by volumes, which an image may ask for:
// programs would take what is written there for the kernel's word.
func targetOf(m ask.Mount) (string, error) {
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return "", fault.Say(fault.Invalid, "invalid mount config: mount path must be absolute and not the root: "+m.Target)
	}
	target := path.Clean(m.Target)
	return target, checkGoverned(m.Kind, target)
}

func checkGoverned(kind ask.MountKind, target string) error {
	if kind == ask.Tmpfs && target == "/proc" {
		return fault.Say(fault.Invalid, `"/proc" cannot be mounted because it is not of type proc`)
	}
	for _, dir := range []string{"/proc", "/sys"} {
		if (kind == ask.Volume || kind == ask.Image) && (target == dir || strings.HasPrefix(target, dir+"/")) {
			return fault.Say(fault.Invalid, fmt.Sprintf("%q cannot be mounted because it is inside %s", target, dir))
		}
	}
	return nil
}

// mountPoint makes the record of a mount. driver is that of volumes that name none.
func (e *Engine) mountPoint(container string, m ask.Mount, target, driver string, back *undo) (record.Mount, error) {
	point := record.Mount{
		Kind: string(m.Kind), Source: m.Source, Target: target, ReadOnly: m.ReadOnly, ReadOnlyTop: m.ReadOnlyTop, Recursive: m.Recursive,
		Propagation: m.Propagation, NoExec: m.NoExec, NoSuid: m.NoSuid, NoDev: m.NoDev, Chown: m.Chown, Map: m.Map, Subpath: m.Subpath,
		TmpfsSize: m.TmpfsSize, TmpfsMode: m.TmpfsMode, TmpfsExec: m.TmpfsExec, TmpfsOptions: m.TmpfsOptions,
		CreateSrc: m.CreateSrc, NoCopy: m.NoCopy, Short: m.Short,
	}
	switch m.Kind {
	case ask.Volume:
		return point, e.volumePoint(&point, m, container, cmp.Or(m.Driver, driver), back)
	case ask.Image:
		return point, e.imagePoint(&point)
	case ask.Bind:
		if !m.CreateSrc {
			return point, volume.CheckSource(m.Source)
		}
	}
	return point, nil
}

func (e *Engine) volumePoint(point *record.Mount, m ask.Mount, container, driver string, back *undo) error {
	if err := checkGoverned(m.Kind, point.Target); err != nil {
		return err
	}
	v, made, err := e.rooms.Volumes.Create(ask.CreateVolume{Name: m.Source, Driver: driver, Options: m.Options, Labels: m.Labels}, container)
	if fault.Is(err, fault.NotFound) {
		return fault.Say(fault.Invalid, err.Error()) // no 404, as in mountsFrom
	}
	if err != nil {
		return err
	}
	if made {
		e.tellVolume("create", v, nil)
	}
	if v.Anonymous && made {
		back.then(func() { e.dropVolumes(record.Container{ID: container, Mounts: []record.Mount{*point}}, false) })
	}
	point.Name, point.Driver, point.Source, point.Recursive = v.Name, v.Driver, v.Mountpoint, true
	return nil
}

func (e *Engine) imagePoint(point *record.Mount) error {
	img, err := e.rooms.Images.Resolve(point.Source)
	if fault.Is(err, fault.NotFound) {
		return fault.Say(fault.Invalid, err.Error()) // no 404, as in mountsFrom
	}
	if err == nil && img.Host {
		err = fault.New(fault.Unsupported, "mount image", point.Source, "its /usr is the host's", "bind the host's directory")
	}
	if err == nil {
		err = whole(img, point.Source)
	}
	if err != nil {
		return err
	}
	point.Name, point.Image, point.ReadOnly = point.Source, img.ID, true
	for _, l := range img.Layers {
		if l.Opaque {
			point.Layers = nil
		}
		point.Layers = append(point.Layers, l.DiffID)
	}
	return nil
}

// mountsImage reports whether a container has the files of an image mounted.
func mountsImage(rec record.Container, imageID string) bool {
	return slices.ContainsFunc(rec.Mounts, func(m record.Mount) bool { return m.Image == imageID && imageID != "" })
}

// mountUser is the container's user; root is its root file system.
type mountUser struct {
	pair idmap.Pair
	root *os.File
	uid  uint32
	gid  uint32

	watch volume.Watch
}

// userOf is who a configuration starts.
func userOf(b *bundle, config *specs.Spec, pair idmap.Pair) mountUser {
	return mountUser{pair: pair, root: b.files["rootfs"], uid: config.Process.User.UID, gid: config.Process.User.GID, watch: b.watch}
}

// as says whom a mount is shown to: the container's user, or the one that its map
// names, as the container's own files have it.
func (u mountUser) as(m record.Mount) (volume.As, error) {
	as := volume.As{Pair: u.pair, UID: idmap.Inside(u.uid), GID: idmap.Inside(u.gid), Watch: u.watch}
	if m.Map == nil || m.Map.User == "" {
		return as, nil
	}
	uid, gid, _, _, err := spec.LookupUser(u.root, m.Map.User, nil)
	as.UID, as.GID = idmap.Inside(uid), idmap.Inside(gid)
	return as, err
}

// detached makes what is to be seen at a mount point that is no new file system.
func (e *Engine) detached(rec record.Container, m record.Mount, u mountUser) (*os.File, error) {
	if m.Kind == string(ask.Image) {
		return e.imageMount(rec, m, u.pair)
	}
	as, err := u.as(m)
	if err != nil {
		return nil, err
	}
	if m.Kind == string(ask.Volume) {
		return e.rooms.Volumes.Mount(m, as)
	}
	if m.CreateSrc {
		if err := volume.MakeSource(m.Source); err != nil {
			return nil, err
		}
	}
	return volume.Prepare(m, as)
}

// imageMount shows the files of an image under the container's ids.
func (e *Engine) imageMount(rec record.Container, m record.Mount, pair idmap.Pair) (*os.File, error) {
	way, _ := e.wayOf(rec, pair)
	mapped, err := e.rooms.Layers.Maps(pair, way)
	if err != nil {
		return nil, err
	}
	defer func() { go mapped.Close() }() // waits for the kernel, as in prepareRoot
	root, err := e.rooms.Layers.Rootfs(snapshot.Request{Mapped: mapped, Layers: m.Layers})
	if err != nil {
		return nil, err
	}
	return volume.View(root.FD, m)
}
