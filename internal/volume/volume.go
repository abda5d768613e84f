// Package volume turns what a user asked to be mounted into detached mounts,
// ready to be put into a container, and keeps the volumes of a data root.
package volume

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/kernel/userns"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// As says whom a mount is shown to: a container's map, and the user it starts as
// or, where the mount names another, that one. Source of a map with match-user and
// of U.
type As struct {
	Pair     idmap.Pair
	UID, GID idmap.Inside
	Watch    Watch
}

// Watch is somebody who waits while the owners of many files are changed. The zero
// value is nobody.
type Watch struct {
	Tell func(record.Progress) // is told how many files have been done, from the first second on
	Stop <-chan struct{}       // ends the work; what has been changed stays
}

// Prepare returns a detached mount of the source of a bind with the attributes
// asked for; the caller attaches it to m.Target and closes it. Symbolic links in
// the source are followed, as with mount(8).
//
// A bind shows the host's owners: ids that as does not map appear as nobody; m.Map
// changes that. Devices, setuid and programs work unless m or the source's own
// mount forbids them, as with Docker.
//
// A missing source is Invalid. Mounts of other kinds have no
// source here and are refused.
func Prepare(m record.Mount, as As) (*os.File, error) {
	if m.Kind != "bind" {
		return nil, fault.New(fault.Invalid, "prepare mount", m.Target, "a mount of kind "+m.Kind+" has no source", "")
	}
	if m.Map != nil || m.Chown {
		if err := refuseSystem(m); err != nil {
			return nil, err
		}
	}
	f, err := mnt.ClonePath(nil, m.Source, m.Recursive)
	if err != nil {
		return nil, explain(m, err)
	}
	return shown(f, m, as)
}

// Mount is Prepare of a volume, whose use by the container has begun (Use). What
// is stored are inside ids, shown through as unless m.Map says otherwise; one that
// binds a directory of the host is shown as a bind unless it says idmap.
func (s *Store) Mount(m record.Mount, as As) (*os.File, error) {
	e, err := s.find(m.Name)
	if err != nil {
		return nil, err
	}
	e.io.Lock()
	files, err := s.open(e)
	e.io.Unlock()
	if err != nil {
		return nil, err
	}
	defer files.Close()
	if m.Subpath != "" {
		sub, err := at.Descend(files, m.Subpath, unix.O_PATH)
		if err != nil {
			return nil, unreachable(m, err)
		}
		defer sub.Close()
		files = sub
	}
	f, err := mnt.Clone(files, true)
	if err != nil {
		return nil, err
	}
	m.Recursive = true
	if hostOwned(e.rec) {
		m.Kind = "bind"
	}
	f, err = shown(f, m, as)
	if kind := e.rec.Options["type"]; kind != "" && m.Kind == "volume" && fault.Is(err, fault.Unsupported) {
		return nil, fault.Wrap(fault.Unsupported, "show the files of volume", m.Name+" ("+kind+")", errors.Unwrap(err),
			"run the container with --userns=host, whose ids are those stored, or keep the files on ext4, xfs or btrfs")
	}
	return f, err
}

// unreachable is the fault of a subpath, in Docker's words.
func unreachable(m record.Mount, err error) error {
	class, why := fault.Invalid, "it leads out of the volume"
	switch {
	case errors.Is(err, unix.ENOENT):
		why = "no such file or directory"
	case errors.Is(err, unix.ENOTDIR):
		why = "not a directory"
	case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ELOOP):
		class, why = fault.ClassOf(err), err.Error()
	}
	return fault.Say(class, "cannot access path "+m.Source+"/"+strings.TrimPrefix(m.Subpath, "/")+": "+why)
}

// shown gives a detached mount the attributes and the map of m, or closes it.
func shown(f *os.File, m record.Mount, as As) (*os.File, error) {
	err := show(f, m, as)
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func show(f *os.File, m record.Mount, as As) error {
	attr, deep, err := attributes(m, as.Pair)
	if err != nil {
		return err
	}
	pair, err := mapOf(f, m, as)
	if err != nil {
		return err
	}
	if m.Chown && !m.Ready {
		if err := giveAway(f, m, as, pair); err != nil {
			return err
		}
	}
	if !pair.IsZero() {
		if err := mapped(f, m, pair); err != nil {
			return err
		}
	}
	if attr.Set != 0 {
		// Also what is mounted below becomes read-only, or "read-only" would
		// be true for a part only (mount_setattr(2), AT_RECURSIVE).
		if err := mnt.SetAttr(f, mnt.Attr{Set: attr.Set}, m.Recursive && !m.ReadOnlyTop); err != nil {
			return err
		}
	}
	return mnt.SetAttr(f, mnt.Attr{Propagation: attr.Propagation}, deep)
}

// mapped shows a mount through pair; what is mounted below it keeps the host's ids.
func mapped(f *os.File, m record.Mount, pair idmap.Pair) error {
	ns, err := userns.New(pair)
	if err != nil {
		return err
	}
	defer ns.Close()
	err = mnt.Idmap(f, ns, false)
	if !fault.Is(err, fault.Unsupported) {
		return err
	}
	hint := "bind it without an id map, put it on ext4, xfs or btrfs, or run the container with --userns=host"
	if m.Kind == "volume" {
		hint = "move the data root to ext4, xfs or btrfs, keep the volume elsewhere with --opt type=none --opt o=bind,idmap --opt device=DIR, or run the container with --userns=host"
	}
	return fault.Wrap(fault.Unsupported, "show the files of "+m.Kind, m.Source, errors.Unwrap(err), hint)
}

// attributes translates the words of mount(8); deep says that the propagation
// type is for the mounts below as well.
//
// A shared mount in a container with ids of its own is refused: it stays in
// the peer group of the host's, so that container root could mount over the
// host's files.
func attributes(m record.Mount, pair idmap.Pair) (a mnt.Attr, deep bool, err error) {
	for _, f := range []struct {
		on   bool
		flag uint64
	}{{m.ReadOnly, mnt.ReadOnly}, {m.NoExec, mnt.NoExec}, {m.NoSuid, mnt.NoSuid}, {m.NoDev, mnt.NoDev}} {
		if f.on {
			a.Set |= f.flag
		}
	}
	word, deep := strings.CutPrefix(m.Propagation, "r")
	switch word {
	case "":
		a.Propagation, deep = mnt.Private, true
	case "private":
		a.Propagation = mnt.Private
	case "slave":
		a.Propagation = mnt.Slave
	case "unbindable":
		a.Propagation = mnt.Unbindable
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
		return missing(m.Source)
	case errors.Is(err, unix.EINVAL) && !m.Recursive:
		return fault.Wrap(fault.Denied, "bind", m.Source, err, "something is mounted below it that must not be uncovered: bind it recursively")
	}
	return err
}

// missing is in the words that Docker's clients look for. It is no NotFound: they take
// that for a missing image.
func missing(source string) error {
	return fault.Say(fault.Invalid, `invalid mount config for type "bind": bind source path does not exist: `+source)
}

// CheckSource refuses a bind whose source is not there (Invalid), when it is asked for.
func CheckSource(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return missing(path)
	}
	return nil // what cannot be looked at is told of by the start
}

// MakeSource makes a missing bind source, as -v asks: a directory of root's
// with mode 0755, and its parents. What exists is left alone.
func MakeSource(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil // also a file, a socket or a device may be bound
	}
	return sysx.Fault("make bind source", path, os.MkdirAll(path, 0o755))
}
