package engine

import (
	"fief/internal/snapshot"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// The modes of record.Identity.
const (
	modeAuto  = "auto"  // a range of its own from the pool
	modeRemap = "remap" // the daemon's range (userns-remap)
	modeMap   = "map"   // explicit extents
	modeHost  = "host"  // no user namespace
)

// identify decides a new container's ids and records them. It returns the
// store's view under the map when one was at hand, else nil. The lease, if
// any, belongs to rec.ID and is the caller's to release.
func (e *Engine) identify(rec *record.Container, want ask.Userns, img record.Image) (*snapshot.Mapped, error) {
	switch u := want.(type) {
	case ask.UsernsHost:
		rec.Identity = record.Identity{Mode: modeHost}
		return nil, nil
	case ask.UsernsMap:
		return nil, e.identifyMap(rec, u.Pair)
	case ask.UsernsAuto:
		return e.identifyAuto(rec, u.Size, img)
	case ask.UsernsDefault:
		if e.cfg.Remap.IsZero() {
			return e.identifyAuto(rec, 0, img)
		}
		rec.Identity = identity(modeRemap, e.cfg.Remap, nil)
		return nil, nil
	}
	return nil, fault.New(fault.Internal, "choose ids", rec.Name, "unknown kind of user namespace", "")
}

func (e *Engine) identifyMap(rec *record.Container, pair idmap.Pair) error {
	if err := pair.CheckRoot(); err != nil {
		return err
	}
	if err := e.rooms.IDs.Hold(rec.ID, pair); err != nil {
		return err
	}
	rec.Identity = identity(modeMap, pair, nil)
	return nil
}

// identifyAuto grants a range: a ready one when the usual size is enough. An
// image with ids above 65535 gets a range that holds them; the facts were
// recorded when its layers were unpacked.
func (e *Engine) identifyAuto(rec *record.Container, size uint32, img record.Image) (*snapshot.Mapped, error) {
	need := needed(size, img)
	if need == rangeSize {
		if b := e.berths.take(); b != nil {
			e.rooms.IDs.Rename(b.owner, rec.ID)
			rec.Identity = identity(modeAuto, b.pair, &b.lease)
			return b.mapped, nil
		}
	}
	lease, err := e.rooms.IDs.Lease(rec.ID, need)
	if err != nil {
		return nil, err
	}
	pair, err := idmap.Range(lease.Base, need)
	if err != nil {
		e.rooms.IDs.Release(rec.ID)
		return nil, err
	}
	rec.Identity = identity(modeAuto, pair, &lease)
	return nil, nil
}

// needed is the number of ids to map: what was asked, else 65536, or more when
// the image owns files with higher ids.
func needed(asked uint32, img record.Image) uint32 {
	if asked != 0 {
		return asked
	}
	n := uint32(rangeSize)
	for _, l := range img.Layers {
		n = max(n, uint32(l.MaxUID)+1, uint32(l.MaxGID)+1)
	}
	return n
}

func identity(mode string, pair idmap.Pair, lease *record.Lease) record.Identity {
	return record.Identity{Mode: mode, UID: pair.UID.Spans(), GID: pair.GID.Spans(), Lease: lease}
}

// pairOf rebuilds the pair of a record; the zero Pair in mode host.
func pairOf(id record.Identity) (idmap.Pair, error) {
	if id.Mode == modeHost {
		return idmap.Pair{}, nil
	}
	uid, err := idmap.New(id.UID...)
	if err != nil {
		return idmap.Pair{}, err
	}
	gid, err := idmap.New(id.GID...)
	return idmap.Pair{UID: uid, GID: gid}, err
}
