package ask

import "fief/internal/words/idmap"

// Userns says which user namespace and map a container gets: one of the types
// below and nothing else.
type Userns interface{ userns() }

// UsernsDefault leaves the choice to the daemon: its remapped range when it
// has one (userns-remap), else what it is configured to, else a range of the
// container's own.
type UsernsDefault struct{}

// UsernsAuto asks for a range of the container's own, whatever the daemon's
// default. Size is the number of ids, 0 for 65536 or what the image needs.
// Extra is mapped as it is and takes its container ids out of the range
// (uidmapping=, gidmapping=).
type UsernsAuto struct {
	Size  uint32
	Extra idmap.Pair
}

// UsernsHost asks for no user namespace at all.
type UsernsHost struct{}

// UsernsMap asks for the ranges that SubUID and SubGID have in /etc/subuid and
// /etc/subgid, laid from container id 0 upward in file order, and then for
// exactly the spans of Pair. A name may be empty, which is no range, and so may
// be Pair, but not both.
type UsernsMap struct {
	Pair           idmap.Pair
	SubUID, SubGID string
}

// UsernsKeepID asks for a map in which the caller's host ids are UID and GID
// inside, by default the same as outside, and everything else is of a range of
// the container's own. The process runs as UID:GID unless another user is asked
// for. Size is the number of ids, 0 for 65536 or what the image needs.
type UsernsKeepID struct {
	UID, GID *idmap.Inside
	Size     uint32
}

// UsernsNomap asks for a map in which the caller's own ids are not.
type UsernsNomap struct{}

// UsernsContainer asks for the user namespace of another container.
type UsernsContainer struct{ Container string }

// UsernsPath asks for the user namespace that a file of nsfs stands for.
type UsernsPath struct{ Path string }

func (UsernsDefault) userns()   {}
func (UsernsAuto) userns()      {}
func (UsernsHost) userns()      {}
func (UsernsMap) userns()       {}
func (UsernsKeepID) userns()    {}
func (UsernsNomap) userns()     {}
func (UsernsContainer) userns() {}
func (UsernsPath) userns()      {}
