package engine

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"fief/internal/spec"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// IDs says who has which host ids. Claims of containers carry their names and
// the times since which they have held.
func (e *Engine) IDs(context.Context) (record.IDs, error) {
	ranges, err := e.rooms.IDs.Holders()
	if err != nil {
		return record.IDs{}, err
	}
	for i := range ranges {
		e.identifyHolder(&ranges[i])
	}
	return record.IDs{Pool: e.rooms.IDs.Info(), Ranges: ranges}, nil
}

// identifyHolder puts names to the owners of a claim, which the pool knows by the
// ids of their containers.
func (e *Engine) identifyHolder(r *record.IDRange) {
	if r.Kind == record.IDReady {
		r.Holder = "" // nobody's yet
	}
	for i, o := range r.Overlaps {
		if c := e.table.known(o); c != nil {
			r.Overlaps[i], _ = c.called()
		}
	}
	c := e.table.known(r.Holder)
	if c == nil {
		return
	}
	name, since := c.called()
	r.Holder, r.Container = name, c.id
	if r.Since.IsZero() {
		r.Since = since
	}
}

// called is a container's name, and since when it has had its ids.
func (c *container) called() (name string, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Name, cmp.Or(c.rec.Identity.Since, c.rec.Created)
}

// Who says whose a host id is: the host's own user, the containers that have it
// in their map, and everybody else who claims it.
func (e *Engine) Who(ctx context.Context, w ask.Who) (record.Who, error) {
	out := record.Who{Asked: w.Asked, PID: w.PID, Path: w.Path}
	if w.PID != 0 {
		uid, gid, exe, err := e.rooms.Processes.Owner(w.PID)
		if err != nil {
			return out, err
		}
		w.UID, w.GID, out.Exe = &uid, &gid, exe
	}
	if w.UID == nil && w.GID == nil {
		return out, fault.New(fault.Invalid, "look up", w.Asked, "it names neither an id nor a process nor a file", "say a uid, gid:N, pid:N or a path")
	}
	all, err := e.IDs(ctx)
	if err != nil {
		return out, err
	}
	if w.UID != nil {
		out.UID = e.whose(idmap.Host(*w.UID), true, all.Ranges)
	}
	if w.GID != nil {
		out.GID = e.whose(idmap.Host(*w.GID), false, all.Ranges)
	}
	return out, nil
}

// whose looks one id up. Of several containers that map it, one that runs
// counts before one that does not.
func (e *Engine) whose(id idmap.Host, isUID bool, ranges []record.IDRange) *record.WhoID {
	out := &record.WhoID{Host: id}
	if isUID {
		out.HostName = e.rooms.Accounts.UserName(id)
	} else {
		out.HostName = e.rooms.Accounts.GroupName(id)
	}
	for _, r := range ranges {
		if r.First <= id && id <= r.Last && (isUID && r.UID || !isUID && r.GID) && r.Kind != record.IDFree {
			out.Claims = append(out.Claims, r)
		}
	}
	rec, inside, ok := e.holderOf(id, isUID)
	if !ok {
		return out
	}
	out.Container, out.Name, out.Status, out.Inside = rec.ID, rec.Name, rec.State.Status, inside
	out.Since = cmp.Or(rec.Identity.Since, rec.Created)
	out.User = e.nameInside(rec, inside, isUID)
	return out
}

// holderOf finds the container that has a host id in its map, by rank the first,
// and what it knows it as.
func (e *Engine) holderOf(id idmap.Host, isUID bool) (best record.Container, inside idmap.Inside, ok bool) {
	for _, c := range e.table.all() {
		rec := c.record()
		pair, err := pairOf(rec.Identity)
		if err != nil || ok && rank(rec) >= rank(best) {
			continue
		}
		m := pair.GID
		if isUID {
			m = pair.UID
		}
		if as, has := m.ToInside(id); has {
			best, inside, ok = rec, as, true
		}
	}
	return best, inside, ok
}

func rank(rec record.Container) int {
	switch {
	case rec.State.Status == record.Running && rec.Identity.Mode != modeContainer:
		return 0
	case rec.State.Status == record.Running:
		return 1
	}
	return 2
}

// nameInside is the name that an id has in a container's own files; empty when
// they have none, or cannot be read.
func (e *Engine) nameInside(rec record.Container, id idmap.Inside, isUID bool) string {
	name := "etc/group"
	if isUID {
		name = "etc/passwd"
	}
	var text []byte
	if rec.State.Status == record.Running {
		root, err := e.rooms.Processes.Root(rec.State.PID, rec.State.StartedAt)
		if err != nil {
			return ""
		}
		defer root.Close()
		text, _ = spec.ReadIDFile(root, name)
	} else {
		text = e.stored(rec, name)
	}
	return nameOf(text, uint32(id))
}

// stored reads a file of a container that does not run from its layers.
func (e *Engine) stored(rec record.Container, name string) []byte {
	f, err := e.rooms.Layers.Open(rec.Rootfs.Upper, rec.Rootfs.Layers, name)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := spec.ReadBounded(f)
	return text
}

// nameOf finds an id in the text of a passwd or group file.
func nameOf(text []byte, id uint32) string {
	want := strconv.FormatUint(uint64(id), 10)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(line, ":", 4)
		if len(fields) == 4 && fields[2] == want {
			return fields[0]
		}
	}
	return ""
}

// Update gives a stopped container other ids. Its files are stored with inside
// ids, so none is rewritten. On failure it has the old ones.
func (e *Engine) Update(ctx context.Context, name string, asked ask.Userns, caller *ask.Caller) (record.Container, error) {
	c, err := e.claim(ctx, name)
	if err != nil {
		return record.Container{}, err
	}
	defer c.free()
	rec := c.record()
	if err := e.mayUpdate(rec); err != nil {
		return rec, err
	}
	donors := e.donorsOf(rec)
	if err := e.oneUserns(donors, asked); err != nil {
		return rec, err
	}
	next := rec
	next.ID = "update-" + rec.ID // the new ids are its while the old ones are still the container's
	img, _ := e.rooms.Images.Resolve(first(rec.ImageID, rec.Image))
	mapped, err := e.identify(&next, wish{asked: asked, user: rec.User, caller: caller, image: img, donors: donors})
	closeMapped(mapped)
	next.ID = rec.ID
	if err == nil {
		err = e.checkShared(next)
	}
	if err == nil {
		err = e.keepIdentity(c, next.Identity)
	}
	if err != nil {
		e.rooms.IDs.Release("update-" + rec.ID)
		return rec, err
	}
	failpoint.Hit("ids-changed")
	e.rooms.IDs.Release(rec.ID, leftovers(rec)...)
	e.rooms.IDs.Rename("update-"+rec.ID, rec.ID)
	next = c.record()
	e.tell("update", next, nil)
	return next, nil
}

func (e *Engine) mayUpdate(rec record.Container) error {
	switch {
	case rec.State.Status == record.Running:
		return fault.New(fault.Conflict, "change the ids of container", rec.Name, "it is running", "stop it first: fief stop "+rec.Name)
	case rec.State.Status == record.Removing, rec.State.Status == record.Dead:
		return fault.Say(fault.Conflict, "container is marked for removal and cannot be updated")
	}
	return e.keepsMap(rec)
}

// donorsOf are the containers whose namespaces a container shares, as far as
// they still exist.
func (e *Engine) donorsOf(rec record.Container) (out []record.Container) {
	for _, s := range shared {
		id, ok := donorOf(*s.mode(&rec))
		if !ok {
			continue
		}
		if c, err := e.table.find(id); err == nil {
			out = append(out, c.record())
		}
	}
	return out
}

// keepIdentity writes other ids to disk, or leaves the old ones.
func (e *Engine) keepIdentity(c *container, id record.Identity) error {
	old := c.record().Identity
	c.change(func(r *record.Container) { r.Identity = id })
	err := e.keep(c)
	if err != nil {
		c.change(func(r *record.Container) { r.Identity = old })
	}
	return err
}
