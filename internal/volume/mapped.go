package volume

import (
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// mapOf is the map that a mount is shown through: inside ids are those stored.
// Zero: as it is. f shows the stored owners.
func mapOf(f *os.File, m record.Mount, as As) (idmap.Pair, error) {
	switch {
	case m.Map == nil && m.Kind == "volume", m.Map != nil && m.Map.Kind == ask.MapUserns:
		return as.Pair, nil
	case m.Map == nil:
		return idmap.Pair{}, nil
	case m.Map.Kind == ask.MapCustom:
		return custom(m.Map, as.Pair)
	case m.Map.Kind == ask.MapUser:
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return idmap.Pair{}, sysx.Fault("look at", m.Source, err)
		}
		return matching(m, as, idmap.Host(st.Uid), idmap.Host(st.Gid))
	}
	return idmap.Pair{}, fault.New(fault.Invalid, "map the ids of", m.Source, "there is no kind "+m.Map.Kind, "")
}

func custom(m *record.MountMap, own idmap.Pair) (p idmap.Pair, err error) {
	if p.UID, err = idmap.MountMap(m.UID, own.UID); err != nil {
		return p, err
	}
	p.GID, err = idmap.MountMap(m.GID, own.GID)
	return p, err
}

// matching shows the owner of the source as the container's user. Other ids of the
// container are stored as the host ids they are, so that its programs may give
// files away and change their minds: a start-up script that runs as root and calls
// chown -R works, as one that finds everything as it wants it does. Ids of the
// host that are neither appear as nobody's.
//
// Only one id can be the owner's: a map is one to one on both sides
// (user_namespaces(7)).
func matching(m record.Mount, as As, uid, gid idmap.Host) (p idmap.Pair, err error) {
	user, group, err := as.host(m)
	if err != nil {
		return p, err
	}
	if user == uid && group == gid {
		return p, nil // nothing to translate, so that it works on every file system
	}
	if p.UID, err = idmap.Matching(uid, user, as.Pair.UID); err != nil {
		return p, err
	}
	p.GID, err = idmap.Matching(gid, group, as.Pair.GID)
	return p, err
}

// host is the container's user as the host knows it.
func (as As) host(m record.Mount) (uid, gid idmap.Host, err error) {
	if as.Pair.IsZero() {
		return idmap.Host(as.UID), idmap.Host(as.GID), nil
	}
	uid, known := as.Pair.UID.ToHost(as.UID)
	gid, also := as.Pair.GID.ToHost(as.GID)
	if !known || !also {
		return 0, 0, fault.New(fault.Invalid, "map the ids of", m.Source, "the container's map has not the user that its files are to belong to", "name another user, or give the container more ids")
	}
	return uid, gid, nil
}
