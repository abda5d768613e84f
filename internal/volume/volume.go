// Package volume turns what a user asked to be mounted into detached mounts,
// ready to be put into a container.
package volume

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/kernel/userns"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Prepare returns a detached mount of m.Source with the attributes asked for;
// the caller attaches it to m.Target and closes it. Symbolic links in the
// source are followed, as with mount(8).
//
// A bind shows the host's owners: ids that pair does not map appear as nobody.
// A volume stores inside ids and is shown through pair. Devices, setuid and
// programs work unless the source's own mount forbids them, as with Docker.
//
// A missing source is a fault of class NotFound. Mounts of kind tmpfs have no
// source and are refused.
func Prepare(m record.Mount, pair idmap.Pair) (*os.File, error) {
	if m.Kind != "bind" && m.Kind != "volume" {
		return nil, fault.New(fault.Invalid, "prepare mount", m.Target, "a mount of kind "+m.Kind+" has no source", "")
	}
	attr, deep, err := attributes(m, pair)
	if err != nil {
		return nil, err
	}
	f, err := mnt.ClonePath(nil, m.Source, m.Recursive)
	if err != nil {
		return nil, explain(m, err)
	}
	if err := apply(f, m, attr, deep, pair); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func apply(f *os.File, m record.Mount, attr mnt.Attr, deep bool, pair idmap.Pair) error {
	if m.Kind == "volume" && !pair.IsZero() {
		if err := mapped(f, pair); err != nil {
			return err
		}
	}
	if attr.Set != 0 {
		// Also what is mounted below becomes read-only, or "read-only" would
		// be true for a part only (mount_setattr(2), AT_RECURSIVE).
		if err := mnt.SetAttr(f, mnt.Attr{Set: attr.Set}, m.Recursive); err != nil {
			return err
		}
	}
	return mnt.SetAttr(f, mnt.Attr{Propagation: attr.Propagation}, deep)
}

// mapped shows the volume through pair.
func mapped(f *os.File, pair idmap.Pair) error {
	ns, err := userns.New(pair)
	if err != nil {
		return err
	}
	defer ns.Close()
	return mnt.Idmap(f, ns, false)
}

// attributes translates the words of mount(8); deep says that the propagation
// type is for the mounts below as well.
//
// A shared mount in a container with ids of its own is refused: it stays in
// the peer group of the host's, so that container root could mount over the
// host's files.
func attributes(m record.Mount, pair idmap.Pair) (a mnt.Attr, deep bool, err error) {
	if m.ReadOnly {
		a.Set = mnt.ReadOnly
	}
	word, deep := strings.CutPrefix(m.Propagation, "r")
	switch word {
	case "":
		a.Propagation, deep = mnt.Private, true
	case "private":
		a.Propagation = mnt.Private
	case "slave":
		a.Propagation = mnt.Slave
	case "shared":
		if !pair.IsZero() {
			return a, deep, fault.New(fault.Denied, "mount", m.Target,
				"propagation "+m.Propagation+" would let the container's root mount on the host", "use rslave, or --userns=host")
		}
		a.Propagation = mnt.Shared
	default:
		return a, deep, fault.New(fault.Invalid, "mount", m.Target, "there is no propagation "+m.Propagation, "use rprivate or rslave")
	}
	return a, deep && m.Recursive, nil
}

func explain(m record.Mount, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return fault.Say(fault.NotFound, "bind source path does not exist: "+m.Source)
	case errors.Is(err, unix.EINVAL) && !m.Recursive:
		return fault.Wrap(fault.Denied, "bind", m.Source, err, "something is mounted below it that must not be uncovered: bind it recursively")
	}
	return err
}

// MakeSource makes a missing bind source, as -v asks: a directory of root's
// with mode 0755, and its parents. What exists is left alone.
func MakeSource(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil // also a file, a socket or a device may be bound
	}
	return sysx.Fault("make bind source", path, os.MkdirAll(path, 0o755))
}
