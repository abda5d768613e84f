package nativetest

import (
	"context"
	"strconv"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// leased is what the first container of a test engine has; each later one has
// the next range.
const leased = 524288

// IDs lists a host with a user, a group, an overlap, and a lease for each
// container.
func (e *Engine) IDs(context.Context) (record.IDs, error) {
	at := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	both := func(first, last idmap.Host, kind record.IDKind, holder string) record.IDRange {
		return record.IDRange{First: first, Last: last, UID: true, GID: true, Kind: kind, Holder: holder}
	}
	out := record.IDs{Pool: record.PoolInfo{First: leased, Last: 1878982655, Free: 20660, Quarantined: 1}}
	root, user, group := both(0, 0, record.IDUser, "root"), both(1000, 1000, record.IDUser, "alice"), both(65534, 65534, record.IDUser, "nogroup")
	user.GID, group.UID = false, false
	alice, bob := both(100000, 165535, record.IDSub, "alice"), both(165000, 230535, record.IDSub, "bob")
	alice.Source, alice.Overlaps = "/etc/subuid:1", []string{"bob"}
	bob.Source, bob.Overlaps, bob.GID = "/etc/subuid:2", []string{"alice"}, false
	out.Ranges = []record.IDRange{root, user, group, alice, bob}
	e.mu.Lock()
	defer e.mu.Unlock()
	next := idmap.Host(leased)
	for _, b := range e.boxes {
		r := both(next, next+65535, record.IDLease, b.rec.Name)
		r.Container, r.Since, r.Source = b.id, at, "state.db"
		out.Ranges = append(out.Ranges, r)
		next += 65536
	}
	left := both(next, next+65535, record.IDQuarantine, "gone")
	left.Why = "files of it are left in /srv"
	out.Ranges = append(out.Ranges, left, both(next+65536, next+131071, record.IDReady, ""),
		both(next+131072, next+262143, record.IDFree, ""), both(next+262144, 1878982655, record.IDFree, ""))
	return out, nil
}

// Who knows alice, who is uid 1000, and the ids of containers, whose uid 101 is
// nginx.
func (e *Engine) Who(ctx context.Context, w ask.Who) (record.Who, error) {
	out := record.Who{Asked: w.Asked, Path: w.Path, PID: w.PID, Origin: "host"}
	if w.PID == 42 {
		n := uint32(leased + 101)
		w.UID, w.GID, out.Exe = &n, &n, "nginx"
	} else if w.PID != 0 {
		return out, fault.Say(fault.NotFound, "No such process: "+strconv.Itoa(w.PID))
	}
	out.UID, out.GID = e.whose(ctx, w.UID, true), e.whose(ctx, w.GID, false)
	return out, nil
}

func (e *Engine) whose(ctx context.Context, id *uint32, uid bool) *record.WhoID {
	if id == nil {
		return nil
	}
	out := &record.WhoID{Host: idmap.Host(*id)}
	all, _ := e.IDs(ctx) // it does not fail
	for _, r := range all.Ranges {
		if r.Kind == record.IDFree || out.Host < r.First || out.Host > r.Last || uid && !r.UID || !uid && !r.GID {
			continue
		}
		out.Claims = append(out.Claims, r)
		if r.Kind == record.IDUser {
			out.HostName = r.Holder
		}
		if r.Container != "" {
			out.Container, out.Name, out.Status, out.Since = r.Container, r.Holder, record.Running, r.Since
			out.Inside, out.User = idmap.Inside(out.Host-r.First), "nginx"
		}
	}
	return out
}

// Update gives a stopped container an identity of this mode.
func (e *Engine) Update(_ context.Context, name string, u ask.Userns, _ *ask.Caller) (c record.Container, err error) {
	err = e.locked(name, func(b *box) error {
		if b.rec.State.Status == record.Running {
			return fault.New(fault.Conflict, "give other ids to", b.rec.Name, "it is running", "stop it first")
		}
		b.ask.Userns, b.rec.Identity = u, record.Identity{Mode: "auto"}
		switch m := u.(type) {
		case ask.UsernsHost:
			b.rec.Identity.Mode = "host"
		case ask.UsernsMap:
			b.rec.Identity = record.Identity{Mode: "map", UID: m.Pair.UID.Spans(), GID: m.Pair.GID.Spans()}
		}
		c = b.rec
		return nil
	})
	return c, err
}
