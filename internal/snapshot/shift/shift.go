// Package shift makes stored files appear under a container's ids: through
// idmapped mounts where kernel and file system have them, else by shifted
// shadows or copies of the layers. It also joins layers and a writable layer to one
// overlay mount, by descriptor or, before Linux 6.15, by path.
package shift

import (
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// Way names how stored files appear under a map. The zero Way asks for the
// best one.
type Way string

// The ways, best first; Plain is for containers without a user namespace,
// whose ids are those on disk.
const (
	Idmapped Way = "idmapped" // detached idmapped mounts as layers, by descriptor
	Attached Way = "attached" // idmapped mounts attached in a private mount namespace, by path
	Metacopy Way = "metacopy" // a shadow of each image with host ids, one per map; data stays in the layers
	Reflink  Way = "reflink"  // a copy of each layer with host ids, one per map, that shares its blocks
	Copy     Way = "copy"     // a copy of each layer with host ids, one per map
	Plain    Way = "plain"    // as stored
)

// ParseWay reads what a user said in --storage-opt shift=…; empty is the best.
func ParseWay(s string) (Way, error) {
	switch w := Way(s); w {
	case "", Idmapped, Attached, Metacopy, Reflink, Copy:
		return w, nil
	}
	return "", fault.New(fault.Invalid, "use way of shifting", s, "there is no such way", "ways are idmapped, attached, metacopy, reflink and copy")
}

// HostIDs reports whether files are on disk with the host ids of one map, those
// of the writable layer as well; else they have inside ids, and fit every map.
func (w Way) HostIDs() bool { return w == Metacopy || w == Reflink || w == Copy }

// Check refuses maps that cannot own a root file system: the directories fief
// makes belong to inside id 0.
func Check(pair idmap.Pair) error {
	_, uid := pair.UID.ToHost(0)
	_, gid := pair.GID.ToHost(0)
	if uid && gid {
		return nil
	}
	return fault.New(fault.Invalid, "use id map", "", "it does not map container id 0", "map container id 0, to which / belongs")
}

// ForMounter returns pair with one more id on either side: host id 0, under an
// inside id that pair does not use. overlayfs makes its work directory and its
// whiteouts as the process that mounted it, host root, and ids that an idmapped
// mount does not map cannot own new files (EOVERFLOW); without the extra id the
// overlay silently becomes read-only. A side that maps host 0 is unchanged.
//
// Processes in the container cannot use the extra id: their user namespace
// has no map for it.
func ForMounter(pair idmap.Pair) (idmap.Pair, error) {
	uid, err := withRoot(pair.UID)
	if err != nil {
		return idmap.Pair{}, err
	}
	gid, err := withRoot(pair.GID)
	return idmap.Pair{UID: uid, GID: gid}, err
}

func withRoot(m idmap.Map) (idmap.Map, error) {
	if _, ok := m.ToInside(0); ok {
		return m, nil
	}
	spans := m.Spans()
	if len(spans) >= idmap.MaxExtents {
		return idmap.Map{}, fault.New(fault.Invalid, "use id map", "",
			"it has as many extents as the kernel takes, and the writable layer needs one more", "join neighbouring extents")
	}
	return idmap.New(append(spans, idmap.Span{In: free(spans), Out: 0, N: 1})...)
}

// free returns the highest inside id that can be mapped or, when the map has
// it, the lowest that is free. There is one: a map of all ids would map host 0.
// It is the same for nearly all maps, as work directories and whiteouts belong
// to it on disk: under a map that lacks it they could not be used or removed, and
// a container that gets another map would find its root read-only. spans are
// sorted by In.
func free(spans []idmap.Span) idmap.Inside {
	if len(spans) == 0 {
		return idmap.Max
	}
	last := spans[len(spans)-1]
	if end := uint64(last.In) + uint64(last.N); end <= idmap.Max {
		return idmap.Max
	}
	var next uint64
	for _, s := range spans {
		if uint64(s.In) > next {
			break
		}
		next = uint64(s.In) + uint64(s.N)
	}
	return idmap.Inside(next)
}
