package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"fief/internal/snapshot"
	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// The modes of record.Identity.
const (
	modeAuto      = "auto"      // a range of its own from the pool
	modeNomap     = "nomap"     // the same, asked for as a map without the caller's ids
	modeKeepID    = "keep-id"   // the same but for the caller's ids
	modeRemap     = "remap"     // the daemon's range (userns-remap)
	modeMap       = "map"       // explicit extents
	modeContainer = "container" // another container's user namespace
	modePath      = "ns"        // a user namespace that is there already
	modeHost      = "host"      // no user namespace
)

// wish is all that decides a container's ids.
type wish struct {
	asked  ask.Userns
	user   string // as asked for; empty: the image's
	caller *ask.Caller
	image  record.Image
	donors []record.Container // whose namespaces are shared
}

// identify decides a container's ids and records them. It returns the store's
// view under the map when one was at hand, else nil. What the pool granted
// belongs to rec.ID and is the caller's to release, also after a failure.
func (e *Engine) identify(rec *record.Container, w wish) (mapped *snapshot.Mapped, err error) {
	asked := w.asked
	if _, open := asked.(ask.UsernsDefault); open {
		asked = e.defaultUserns(w.donors)
	}
	switch u := asked.(type) {
	case ask.UsernsHost:
		rec.Identity = record.Identity{Mode: modeHost}
	case ask.UsernsAuto:
		mapped, err = e.identifyAuto(rec, modeAuto, u, w.image)
	case ask.UsernsNomap:
		// No range of the pool has the ids of a user, so that any will do.
		mapped, err = e.identifyAuto(rec, modeNomap, ask.UsernsAuto{}, w.image)
	case ask.UsernsKeepID:
		err = e.identifyKept(rec, u, w)
	case ask.UsernsMap:
		err = e.identifyMap(rec, u)
	case ask.UsernsContainer:
		err = e.identifyJoined(rec, u.Container)
	case ask.UsernsPath:
		err = e.identifyPath(rec, u.Path)
	case ask.UsernsDefault: // userns-remap
		rec.Identity = identity(modeRemap, e.cfg.Remap, nil)
		err = e.rooms.IDs.Share(rec.ID, e.cfg.Remap)
	default:
		err = fault.New(fault.Internal, "choose ids", rec.Name, "unknown kind of user namespace", "")
	}
	rec.Identity.Asked, rec.Identity.Since = ask.UsernsText(w.asked), time.Now().UTC()
	return mapped, err
}

// defaultUserns is what a container gets that asks for nothing: the user
// namespace of the container whose other namespaces it shares, in which alone
// it can use them, as in Docker; else the daemon's. A donor without a user
// namespace gives none away: its namespaces are then used from a range of the
// container's own. UsernsDefault stands for the daemon's range.
func (e *Engine) defaultUserns(donors []record.Container) ask.Userns {
	for _, d := range donors {
		if d.Identity.Mode != modeHost {
			return ask.UsernsContainer{Container: d.ID}
		}
	}
	switch {
	case !e.cfg.Remap.IsZero():
		return ask.UsernsDefault{}
	case e.cfg.Userns != nil:
		return e.cfg.Userns
	}
	return ask.UsernsAuto{}
}

// identifyMap takes the ranges of names, then what was written out.
func (e *Engine) identifyMap(rec *record.Container, u ask.UsernsMap) error {
	pair := u.Pair
	if u.SubUID != "" || u.SubGID != "" {
		named, err := e.rooms.Accounts.Named(u.SubUID, u.SubGID)
		if err != nil {
			return err
		}
		if pair.UID, err = idmap.New(append(named.UID.Spans(), pair.UID.Spans()...)...); err != nil {
			return err
		}
		if pair.GID, err = idmap.New(append(named.GID.Spans(), pair.GID.Spans()...)...); err != nil {
			return err
		}
	}
	if err := pair.CheckRoot(); err != nil {
		return err
	}
	rec.Identity = identity(modeMap, pair, nil)
	return e.rooms.IDs.Hold(rec.ID, pair)
}

// identifyAuto grants a range: a ready one when the usual size is enough. An
// image with ids above 65535 gets a range that holds them; the facts were
// recorded when its layers were unpacked.
func (e *Engine) identifyAuto(rec *record.Container, mode string, u ask.UsernsAuto, img record.Image) (*snapshot.Mapped, error) {
	need, err := needed(u.Size, rec, img)
	if err != nil {
		return nil, err
	}
	if need == rangeSize && u.Extra.IsZero() {
		if b := e.berths.take(); b != nil {
			e.rooms.IDs.Rename(b.owner, rec.ID)
			rec.Identity = identity(mode, b.pair, &b.lease)
			return b.mapped, nil
		}
	}
	return nil, e.identifyRange(rec, mode, need, u.Extra)
}

// identifyRange leases a range and lays extra, which may be empty, over it.
func (e *Engine) identifyRange(rec *record.Container, mode string, size uint32, extra idmap.Pair) error {
	lease, err := e.rooms.IDs.Lease(rec.ID, size)
	if err != nil {
		return err
	}
	pair, err := idmap.Range(lease.Base, size)
	if err != nil {
		return err
	}
	if !extra.IsZero() {
		if pair, err = pair.With(extra); err != nil {
			return err
		}
		if err := e.rooms.IDs.Hold(rec.ID, extra); err != nil {
			return err
		}
	}
	rec.Identity = identity(mode, pair, &lease)
	return nil
}

// identifyKept maps the caller's ids to what they are to be inside, and the
// rest to a range of the container's own. Podman maps everything to itself for
// root (pkg/util/utils.go, GetKeepIDMapping); here host root is never among
// the ids.
func (e *Engine) identifyKept(rec *record.Container, u ask.UsernsKeepID, w wish) error {
	uid, hostUID, err := kept("uid", u.UID, w.caller, func(c *ask.Caller) uint32 { return c.UID })
	if err != nil {
		return err
	}
	gid, hostGID, err := kept("gid", u.GID, w.caller, func(c *ask.Caller) uint32 { return c.GID })
	if err != nil {
		return err
	}
	if w.user == "" {
		rec.User = fmt.Sprintf("%d:%d", uid, gid)
	}
	size, err := needed(u.Size, rec, w.image)
	if err != nil {
		return err
	}
	var extra idmap.Pair
	if extra.UID, err = idmap.New(idmap.Span{In: uid, Out: hostUID, N: 1}); err != nil {
		return err
	}
	if extra.GID, err = idmap.New(idmap.Span{In: gid, Out: hostGID, N: 1}); err != nil {
		return err
	}
	return e.identifyRange(rec, modeKeepID, size, extra)
}

// kept is one id of the caller, inside and on the host. Where nobody is known
// to call, or root does, the id that was asked for is kept.
func kept(kind string, asked *idmap.Inside, caller *ask.Caller, of func(*ask.Caller) uint32) (idmap.Inside, idmap.Host, error) {
	switch {
	case caller != nil && of(caller) != 0 && asked != nil:
		return *asked, idmap.Host(of(caller)), nil
	case caller != nil && of(caller) != 0:
		return idmap.Inside(of(caller)), idmap.Host(of(caller)), nil
	case asked != nil && *asked != 0:
		return *asked, idmap.Host(*asked), nil
	}
	return 0, 0, fault.New(fault.Invalid, "keep "+kind, "0", "it is the host's root that asks, and root is not kept",
		"name the user to keep: --userns=keep-id:uid=1000,gid=1000; for no mapping at all use --userns=host")
}

// identifyJoined takes the maps of another container.
func (e *Engine) identifyJoined(rec *record.Container, name string) error {
	donor, err := e.donor(name)
	if err != nil {
		return err
	}
	if donor.Identity.Mode == modeHost {
		return fault.New(fault.Invalid, "share the user namespace of container", donor.Name, "it has none of its own",
			"use --userns=host to run without one")
	}
	rec.Identity = record.Identity{Mode: modeContainer, UID: donor.Identity.UID, GID: donor.Identity.GID, Joined: donor.ID}
	pair, err := pairOf(rec.Identity)
	if err != nil {
		return err
	}
	return e.rooms.IDs.Share(rec.ID, pair)
}

// identifyPath takes the maps of a user namespace that somebody else has made.
func (e *Engine) identifyPath(rec *record.Container, path string) error {
	ns, pair, err := e.rooms.Spaces.UserAt(path)
	if err != nil {
		return err
	}
	ns.Close()
	if err := pair.CheckRoot(); err != nil {
		return err
	}
	rec.Identity = identity(modePath, pair, nil)
	rec.Identity.Joined = path
	return e.rooms.IDs.Share(rec.ID, pair)
}

// needed is the number of ids to map: what was asked, else 65536, or more when
// the image owns files with higher ids or names users with such, or the
// container is to run as one.
func needed(asked uint32, rec *record.Container, img record.Image) (uint32, error) {
	if asked != 0 {
		return asked, nil
	}
	highest := uint64(rangeSize - 1)
	for _, l := range img.Layers {
		highest = max(highest, uint64(l.MaxUID), uint64(l.MaxGID), uint64(l.PasswdUID), uint64(l.PasswdGID))
	}
	for _, word := range append(strings.SplitN(rec.User, ":", 2), rec.Groups...) {
		if id, err := strconv.ParseUint(word, 10, 32); err == nil {
			highest = max(highest, id)
		}
	}
	if highest > idmap.Max-1 {
		return 0, fault.New(fault.Unsupported, "map the ids of", img.ID, fmt.Sprintf("id %d is in use, and no range has so many ids", highest),
			"give a map with --uidmap and --gidmap")
	}
	return uint32(highest) + 1, nil
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

// Hold tells the pool what containers found at start hold besides their leases.
// It must be called before anything is leased.
func Hold(p ids, stored []record.Container) {
	for _, rec := range stored {
		if err := hold(p, rec); err != nil {
			slog.Error("cannot reserve a container's ids", "container", rec.ID, "error", err)
		}
	}
}

func hold(p ids, rec record.Container) error {
	pair, err := pairOf(rec.Identity)
	if err != nil || pair.IsZero() {
		return err
	}
	switch {
	case rec.Identity.Mode == modeMap:
		return p.Hold(rec.ID, pair)
	case rec.Identity.Lease == nil:
		return p.Share(rec.ID, pair)
	}
	extra, err := beyond(pair, *rec.Identity.Lease)
	if err != nil || extra.IsZero() {
		return err
	}
	return p.Hold(rec.ID, extra)
}

// beyond is the part of a pair that is not of a lease.
func beyond(pair idmap.Pair, lease record.Lease) (out idmap.Pair, err error) {
	leased := func(s idmap.Span) bool {
		return s.Out >= lease.Base && uint64(s.Out)+uint64(s.N) <= uint64(lease.Base)+uint64(lease.Size)
	}
	if out.UID, err = idmap.New(slices.DeleteFunc(pair.UID.Spans(), leased)...); err != nil {
		return out, err
	}
	out.GID, err = idmap.New(slices.DeleteFunc(pair.GID.Spans(), leased)...)
	return out, err
}

// leftovers are the directories of the host in which files with a container's
// host ids may stay behind: what it could write and was not idmapped. A
// read-only bind counts when the container had capabilities beyond the usual:
// with CAP_SYS_ADMIN its root could make it writable.
func leftovers(rec record.Container) []string {
	if rec.Identity.Mode == modeHost {
		return nil
	}
	var out []string
	for _, m := range rec.Mounts {
		if m.Kind == string(ask.Bind) && (!m.ReadOnly || len(rec.CapAdd) > 0) {
			out = append(out, volume.Trees(m.Source, m.Recursive)...)
		}
	}
	return out
}
