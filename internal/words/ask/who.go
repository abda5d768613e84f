package ask

// Who asks whose an id is. One of the fields is set: a host uid, a process, or
// the owners of a file, which the client has looked up.
type Who struct {
	Asked    string // as typed
	UID, GID *uint32
	PID      int
	Path     string // UID and GID are its owners
}
