package ask

import (
	"fmt"
	"strings"

	"fief/internal/words/fault"
)

// SpaceMode is the closed set of ways to a namespace.
type SpaceMode string

// The modes; the zero value is a namespace of the container's own. For ipc
// there are more: by default others may join it, a private one they may not, a
// shareable one is the default said aloud, and none is a private one without
// /dev/shm.
const (
	SpaceDefault   SpaceMode = ""
	SpacePrivate   SpaceMode = "private"
	SpaceHost      SpaceMode = "host"
	SpaceShareable SpaceMode = "shareable"
	SpaceNone      SpaceMode = "none"
	SpaceContainer SpaceMode = "container"
)

// Space says which namespace of one kind a container gets. Container is the
// name or id of the container that has it, in mode container.
type Space struct {
	Mode      SpaceMode
	Container string
}

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
	switch value {
	case "", "private", "host":
		return Space{Mode: SpaceMode(value)}, nil
	case "shareable", "none":
		if kind == "ipc" {
			return Space{Mode: SpaceMode(value)}, nil
		}
	}
	modes := `use "host", "private" or "container:NAME"`
	if kind == "ipc" {
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
