package record

import (
	"time"

	"fief/internal/words/idmap"
)

// IDKind says what somebody's claim on host ids rests on.
type IDKind string

// The kinds of claims.
const (
	IDUser       IDKind = "user"       // a user or group of the host
	IDSub        IDKind = "subid"      // a line of /etc/subuid or /etc/subgid
	IDEngine     IDKind = "engine"     // another engine: Podman, Docker, LXC, a kubelet …
	IDDaemon     IDKind = "daemon"     // another fief daemon's slab
	IDLease      IDKind = "lease"      // a container's own range
	IDMap        IDKind = "map"        // a container's explicit map
	IDReady      IDKind = "ready"      // a range kept ready for the next start
	IDProcess    IDKind = "process"    // a process that nobody registered
	IDQuarantine IDKind = "quarantine" // was leased; something of it may be left
	IDFree       IDKind = "free"       // may be leased
)

// IDRange is a claim on the host ids First to Last, both included.
type IDRange struct {
	First, Last idmap.Host
	UID, GID    bool // whether it is of user ids, group ids or both
	Kind        IDKind
	Holder      string    `json:",omitempty"` // user, engine, owner of the lease; the container's name where there is one
	Container   string    `json:",omitempty"` // id of the container, for its leases and maps
	Source      string    `json:",omitempty"` // where the claim is written: a file and line, a process
	Since       time.Time `json:",omitzero"`  // zero: not known
	Why         string    `json:",omitempty"` // of a quarantine: what is left
	Overlaps    []string  `json:",omitempty"` // holders of other claims on ids of this range, which should not be
}

// IDs is who has which host ids: what `fief ids` shows.
type IDs struct {
	Pool   PoolInfo
	Ranges []IDRange // by First
}

// Who is whose a host id, or the owner of a file or process, is: what `fief ids
// who` shows.
type Who struct {
	Asked  string // as typed
	UID    *WhoID // nil: not asked
	GID    *WhoID
	PID    int    // of the process that was asked for
	Exe    string // its command
	Path   string // the file that was asked for
	Origin string // of the namespace the ids are seen from: "host"
}

// WhoID is one host id.
type WhoID struct {
	Host      idmap.Host
	HostName  string       // the host's own name of it, if any
	Container string       // id of the container that has it, if any
	Name      string       // the container's
	Status    Status       // the container's
	Inside    idmap.Inside // what the container knows it as
	User      string       // the name that id has in the container's /etc/passwd or /etc/group
	Since     time.Time
	Claims    []IDRange // everybody who claims the id, containers included
}
