package wire

import (
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// Container is ask.Container in a form that JSON can carry: its Userns is one
// of several types there and a tagged struct here, which hides the other.
type Container struct {
	ask.Container
	Userns Userns
}

// Userns is ask.Userns as a tagged struct.
type Userns struct {
	Kind     string // "", "auto", "host", "map"
	Size     uint32
	UID, GID []idmap.Span
}

// PackContainer makes the carried form of c.
func PackContainer(c ask.Container) Container {
	out := Container{Container: c}
	switch u := c.Userns.(type) {
	case ask.UsernsAuto:
		out.Userns = Userns{Kind: "auto", Size: u.Size}
	case ask.UsernsHost:
		out.Userns = Userns{Kind: "host"}
	case ask.UsernsMap:
		out.Userns = Userns{Kind: "map", UID: u.Pair.UID.Spans(), GID: u.Pair.GID.Spans()}
	}
	out.Container.Userns = nil
	return out
}

// Unpack returns the ask that was packed. Maps are checked again: what comes
// over a socket proves nothing.
func (c Container) Unpack() (ask.Container, error) {
	out := c.Container
	switch c.Userns.Kind {
	case "":
		out.Userns = ask.UsernsDefault{}
	case "auto":
		out.Userns = ask.UsernsAuto{Size: c.Userns.Size}
	case "host":
		out.Userns = ask.UsernsHost{}
	case "map":
		uid, err := idmap.New(c.Userns.UID...)
		if err != nil {
			return out, err
		}
		gid, err := idmap.New(c.Userns.GID...)
		if err != nil {
			return out, err
		}
		out.Userns = ask.UsernsMap{Pair: idmap.Pair{UID: uid, GID: gid}}
	default:
		return out, fault.New(fault.Invalid, "use user namespace", c.Userns.Kind, "unknown kind", "")
	}
	return out, nil
}

// ListCall lists containers: those whose name, with or without a slash before
// it, fits one of the regular expressions, or all when there is none.
type ListCall struct{ Names []string }

// EventsCall asks for events, from Since on when it is not zero.
type EventsCall struct{ Since time.Time }

// Name is a call about one object.
type Name struct{ Name string }

// RunCall asks for a container that runs at once.
type RunCall struct {
	Container Container
	Attach    Attached
	Trace     bool
	Wait      bool // answer Exit when the container ends; else the call ends with Started
}

// Attached says which of the descriptors that came along are to be connected.
type Attached struct {
	Stdin, Stdout, Stderr bool
	DetachKeys            []byte
}

// ExecCall asks for a process in a running container.
type ExecCall struct {
	ID     string
	Exec   ask.Exec
	Attach Attached
	Wait   bool
}

// CreatedReply answers Create.
type CreatedReply struct {
	ID       string
	Warnings []string
}

// AttachCall connects descriptors with a container.
type AttachCall struct {
	ID     string
	Attach Attached
}

// WaitCall waits for a container: For is an engine.WaitFor.
type WaitCall struct {
	ID  string
	For uint8
}

// StopCall stops or restarts a container.
type StopCall struct {
	ID   string
	Stop ask.Stop
}

// KillCall sends a signal, by name or number.
type KillCall struct{ ID, Signal string }

// RemoveCall removes a container or an image.
type RemoveCall struct {
	Name  string
	Force bool
}

// RenameCall gives New to what is known as Old.
type RenameCall struct{ Old, New string }

// LogsCall reads a container's log. Zero times mean no bound.
type LogsCall struct {
	ID   string
	Logs ask.Logs
}

// TopCall lists a container's processes.
type TopCall struct {
	ID     string
	PsArgs []string
}

// SizeReply is what a container takes on disk, in bytes.
type SizeReply struct {
	Upper int64 // its writable layer
	Whole int64 // that and its image
}
