package ask

import (
	"fmt"
	"strings"

	"fief/internal/words/fault"
)

// SpaceMode is the closed set of ways to a namespace.
type SpaceMode string

// The modes; the zero value is a namespace of the container's own. Two are for
// ipc only: a private one is its own and cannot be joined by others, and none is
// a private one without /dev/shm.
const (
	SpaceOwn       SpaceMode = ""
	SpacePrivate   SpaceMode = "private"
	SpaceHost      SpaceMode = "host"
	SpaceNone      SpaceMode = "none"
	SpaceContainer SpaceMode = "container"
)

// Space says which namespace of one kind a container gets. Container is the
// name or id of the container that has it, in mode container.
type Space struct {
	Mode      SpaceMode
	Container string
}

// Foreign reports whether s is the host's or another container's.
func (s Space) Foreign() bool { return s.Mode == SpaceHost || s.Mode == SpaceContainer }

// String is what a user types for s.
func (s Space) String() string {
	if s.Mode == SpaceContainer {
		return "container:" + s.Container
	}
	return string(s.Mode)
}

// ParseSpace reads the value of --pid, --ipc, --uts or --cgroupns; kind is the
// flag's name without dashes. Errors are of class Invalid, in Docker's words.
func ParseSpace(kind, value string) (Space, error) {
	if name, ok := strings.CutPrefix(value, "container:"); ok {
		if name == "" {
			return Space{}, fault.Say(fault.Invalid, fmt.Sprintf("--%s: invalid %s mode: container: needs the name or id of a container", kind, spaceWord(kind)))
		}
		return Space{Mode: SpaceContainer, Container: name}, nil
	}
	ipc := kind == "ipc"
	switch {
	case value == "", value == "private" && !ipc, value == "shareable" && ipc:
		return Space{}, nil
	case value == "host", ipc && (value == "private" || value == "none"):
		return Space{Mode: SpaceMode(value)}, nil
	}
	modes := `use "host", "private" or "container:NAME"`
	if ipc {
		modes = `use "host", "private", "shareable", "none" or "container:NAME"`
	}
	f := fault.Say(fault.Invalid, fmt.Sprintf("--%s: invalid %s mode: %.64q", kind, spaceWord(kind), value))
	f.Hint = modes
	return Space{}, f
}

// spaceWord is Docker's word for a kind in its refusals.
func spaceWord(kind string) string {
	if kind == "cgroupns" {
		return "CGROUP"
	}
	return strings.ToUpper(kind)
}
