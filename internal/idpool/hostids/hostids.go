// Package hostids reads what a host says about its ids: whose they are already,
// by the files of accounts and of subordinate ids, by name services, by what
// other engines have noted, and by what processes use.
package hostids

import "fief/internal/words/record"

// Claim is the ids from From up to, not including, To that somebody of the host
// has; To is at most 2^32.
type Claim struct {
	From, To uint64
	UID, GID bool          // of which kinds of ids
	Kind     record.IDKind // user, subid, engine or process
	Holder   string        // the user, the engine, the command of the process
	Source   string        // where it is said: a file and line, a directory, a process
}
