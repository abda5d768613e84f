package wire

import (
	"fmt"

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

// Userns is ask.Userns as a tagged struct. Each field serves the kinds that its
// comment names.
type Userns struct {
	Kind             string        // "" (default), "auto", "host", "map", "keep-id", "nomap", "container", "ns"
	Size             uint32        // auto, keep-id
	UID, GID         []idmap.Span  // map; auto: what it is to map besides
	SubUID, SubGID   string        // map
	KeepUID, KeepGID *idmap.Inside // keep-id
	Name             string        // container: its name or id; ns: the path
}

// Look says what Verify is to do about what it finds.
type Look struct{ Repair bool }

// PackContainer makes the carried form of c.
func PackContainer(c ask.Container) Container {
	out := Container{Container: c, Userns: packUserns(c.Userns)}
	out.Container.Userns = nil
	return out
}

func packUserns(u ask.Userns) Userns {
	switch u := u.(type) {
	case nil, ask.UsernsDefault:
		return Userns{}
	case ask.UsernsAuto:
		return Userns{Kind: "auto", Size: u.Size, UID: u.Extra.UID.Spans(), GID: u.Extra.GID.Spans()}
	case ask.UsernsHost:
		return Userns{Kind: "host"}
	case ask.UsernsMap:
		return Userns{Kind: "map", UID: u.Pair.UID.Spans(), GID: u.Pair.GID.Spans(), SubUID: u.SubUID, SubGID: u.SubGID}
	case ask.UsernsKeepID:
		return Userns{Kind: "keep-id", KeepUID: u.UID, KeepGID: u.GID, Size: u.Size}
	case ask.UsernsNomap:
		return Userns{Kind: "nomap"}
	case ask.UsernsContainer:
		return Userns{Kind: "container", Name: u.Container}
	case ask.UsernsPath:
		return Userns{Kind: "ns", Name: u.Path}
	}
	return Userns{Kind: "of a type that cannot be sent"} // refused by unpack: the default would be somebody's surprise
}

// Unpack returns the ask that was packed. Maps and modes are checked again:
// what comes over a socket proves nothing.
func (c Container) Unpack() (ask.Container, error) {
	out := c.Container
	for _, s := range []struct {
		kind  string
		space *ask.Space
	}{{"pid", &out.PID}, {"ipc", &out.IPC}, {"uts", &out.UTS}, {"cgroupns", &out.Cgroupns}} {
		space, err := ask.ParseSpace(s.kind, s.space.String())
		if err != nil {
			return out, err
		}
		*s.space = space
	}
	var err error
	out.Userns, err = c.Userns.unpack()
	return out, err
}

func (u Userns) unpack() (ask.Userns, error) {
	pair, err := u.pair()
	if err != nil {
		return nil, err
	}
	switch u.Kind {
	case "":
		return ask.UsernsDefault{}, nil
	case "auto":
		return ask.UsernsAuto{Size: u.Size, Extra: pair}, nil
	case "host":
		return ask.UsernsHost{}, nil
	case "map":
		if pair.IsZero() && u.SubUID == "" && u.SubGID == "" {
			return nil, badUserns(u.Kind, "it maps nothing")
		}
		return ask.UsernsMap{Pair: pair, SubUID: u.SubUID, SubGID: u.SubGID}, nil
	case "keep-id":
		return ask.UsernsKeepID{UID: u.KeepUID, GID: u.KeepGID, Size: u.Size}, nil
	case "nomap":
		return ask.UsernsNomap{}, nil
	case "container", "ns":
		return u.named()
	}
	return nil, badUserns(u.Kind, "unknown kind")
}

// named returns a user namespace that is somebody else's.
func (u Userns) named() (ask.Userns, error) {
	switch {
	case u.Name == "":
		return nil, badUserns(u.Kind, "it names none")
	case u.Kind == "ns":
		return ask.UsernsPath{Path: u.Name}, nil
	}
	return ask.UsernsContainer{Container: u.Name}, nil
}

func (u Userns) pair() (p idmap.Pair, err error) {
	if p.UID, err = idmap.New(u.UID...); err != nil {
		return idmap.Pair{}, err
	}
	p.GID, err = idmap.New(u.GID...)
	return p, err
}

func badUserns(kind, why string) error {
	return fault.New(fault.Invalid, "use user namespace", fmt.Sprintf("%.64q", kind), why, "")
}

// ListCall lists containers: those whose name, with or without a slash before
// it, fits one of the regular expressions, or all when there is none.
type ListCall struct{ Names []string }

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
	Name    string
	Force   bool
	Volumes bool // of a container: with its anonymous volumes
}

// LayoutCall loads the OCI layout in the directory Name.
type LayoutCall struct {
	Name string
	ask.LoadImages
}

// ImageCall asks for an image, for a platform "os/arch[/variant]" unless empty.
type ImageCall struct{ Name, Platform string }

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
