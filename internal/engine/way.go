package engine

import (
	"fief/internal/snapshot"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// firstWay says how a new container's files will appear: as it asks, or as the
// store does it.
func (e *Engine) firstWay(asked string) record.Rootfs {
	if asked != "" {
		return record.Rootfs{Way: asked, Why: askedFor, Asked: asked}
	}
	way, why := e.rooms.Layers.Way()
	return record.Rootfs{Way: way, Why: why}
}

const askedFor = "asked for by --storage-opt shift"

// wayOf says which way a container must be shown, and why; empty is the store's.
// What it wrote has either inside ids or the host ids of its map: after a change
// of kernel or data root the store may have a way that does the other, by which
// its files would be somebody else's.
func (e *Engine) wayOf(rec record.Container, pair idmap.Pair) (way, why string) {
	r := rec.Rootfs
	switch own, _ := e.rooms.Layers.Way(); {
	case pair.IsZero():
		return "", ""
	case r.Asked != "":
		return r.Asked, askedFor
	case r.Way != "" && snapshot.HostIDs(r.Way) != snapshot.HostIDs(own):
		return r.Way, "its writable layer was written this way"
	}
	return "", ""
}

// keepsMap refuses another map for a container whose writable layer has, or
// would get, the host ids of one.
func (e *Engine) keepsMap(rec record.Container) error {
	own, _ := e.rooms.Layers.Way()
	for _, way := range []string{own, rec.Rootfs.Way, rec.Rootfs.Asked} {
		if snapshot.HostIDs(way) {
			return fault.New(fault.Unsupported, "change the ids of container", rec.Name,
				"it is not idmapped but shifted by "+way+": what it wrote is stored with its host ids", "create a new container and copy the files")
		}
	}
	return nil
}
