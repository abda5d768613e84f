package record

import "time"

// External is the runtime that a container was started by last, when that is
// not fief itself.
type External struct {
	Path  string
	Args  []string      `json:",omitempty"`
	Limit time.Duration `json:",omitempty"` // of a call; zero: a minute
	Kind  RuntimeKind
}

// RuntimeKind is a runtime whose ways are known, by the name that it has for
// itself; empty: another one.
type RuntimeKind string

// The kinds.
const (
	Crun  RuntimeKind = "crun"
	Runsc RuntimeKind = "runsc"
)

// NoCgroups are the words that make a runtime leave cgroups alone; nil: it
// enters the one that the configuration names.
func (k RuntimeKind) NoCgroups() []string {
	switch k {
	case Crun: // which also refuses hosts with both versions otherwise
		return []string{"--cgroup-manager=disabled"}
	case Runsc:
		return []string{"--ignore-cgroups"}
	}
	return nil
}

// Sandboxed reports whether what a runtime starts is not the container's own
// process but one in which all of them run.
func (k RuntimeKind) Sandboxed() bool { return k == Runsc }
