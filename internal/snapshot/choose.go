package snapshot

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/probe"
	"fief/internal/kernel/sysx"
	"fief/internal/kernel/userns"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// rung is one step of the ladder of ways.
type rung struct {
	way     shift.Way
	feature string
	since   string
	byPath  bool
}

var ladder = [...]rung{
	{shift.Idmapped, "idmapped overlay layers by descriptor", "6.15", false},
	{shift.Attached, "idmapped overlay layers by path", "5.19", true},
	{shift.Copy, "overlay layers by descriptor", "6.13", false},
	{shift.Copy, "overlay with a writable layer", "3.18", true},
}

// choose tries the rungs from the top, with the code that later makes every
// root file system, and stays on the first that holds.
func (s *Store) choose(force shift.Way) error {
	for _, r := range ladder {
		if force != "" && force != r.way {
			continue
		}
		m, a := s.try(r)
		s.answers = append(s.answers, a)
		switch a.Verdict {
		case probe.Yes:
			s.way, s.mounter = r.way, m
			return nil
		case probe.Unknown:
			return a.Err
		}
	}
	last := s.answers[len(s.answers)-1]
	return fault.Wrap(fault.Unsupported, "keep containers below", s.path, errors.New(s.refusals(len(s.answers))),
		"overlayfs needs a local file system below the data root, such as ext4, xfs, btrfs or tmpfs: "+last.Feature+" failed")
}

// why lists the refusals above the rung that holds. A forced way has none.
func (s *Store) why() string { return s.refusals(len(s.answers) - 1) }

func (s *Store) refusals(n int) string {
	var out []string
	for _, a := range s.answers[:n] {
		out = append(out, a.Why())
	}
	return strings.Join(out, "; ")
}

// try mounts an overlay of a rung's kind in a directory of its own, and
// writes to it. The mounter is the caller's when the verdict is yes.
func (s *Store) try(r rung) (shift.Mounter, probe.Answer) {
	var m shift.Mounter = shift.Direct{}
	a := probe.Try(r.feature, r.since, func() (err error) {
		if r.byPath {
			if m, err = shift.NewStage(s.path); err != nil {
				return err
			}
		}
		if err = s.trial(r, m); err != nil {
			m.Close()
		}
		return err
	})
	return m, a
}

func (s *Store) trial(r rung, m shift.Mounter) error {
	name := "trial-" + token()
	if err := at.MakeDir(s.build, name, 0o700); err != nil {
		return err
	}
	defer s.drops.add(s.build, name)
	dir, err := at.SubDir(s.build, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, sub := range []string{"lower", "upper", "upper/fs", "upper/work"} {
		if err := at.MakeDir(dir, sub, 0o755); err != nil {
			return err
		}
	}
	tree, err := trialTree(r, m, dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	root, err := m.Mount(shift.Overlay{Lowers: []shift.Dir{{Tree: tree, Name: "lower"}}, Upper: shift.Dir{Tree: tree, Name: "upper"}})
	if err != nil {
		return err
	}
	defer root.Close()
	// An upper that overlayfs cannot work with is not refused but becomes
	// read-only.
	err = unix.Mkdirat(int(root.Fd()), "written", 0o700)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EOVERFLOW) {
		return fault.Wrap(fault.Unsupported, "write to", "overlay", err, "")
	}
	return sysx.Fault("write to", "overlay", err)
}

// trialTree plants dir the way a rung does it. No process ever has the ids
// of its map, and no file is given to them.
func trialTree(r rung, m shift.Mounter, dir *os.File) (*shift.Tree, error) {
	if r.way == shift.Copy {
		return planted(m, dir)
	}
	pair, err := idmap.Range(1<<30, 1<<16)
	if err != nil {
		return nil, err
	}
	if pair, err = shift.ForMounter(pair); err != nil {
		return nil, err
	}
	ns, err := userns.New(pair)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return idmapped(m, dir, ns)
}

// planted plants dir as it is. The tree has a descriptor of its own.
func planted(m shift.Mounter, dir *os.File) (*shift.Tree, error) {
	own, err := at.SubDir(dir, ".")
	if err != nil {
		return nil, err
	}
	return m.Plant(own)
}

// idmapped plants an idmapped mount of dir.
func idmapped(m shift.Mounter, dir, ns *os.File) (*shift.Tree, error) {
	mount, err := mnt.Clone(dir, false)
	if err != nil {
		return nil, err
	}
	if err := mnt.Idmap(mount, ns, false); err != nil {
		mount.Close()
		return nil, err
	}
	return m.Plant(mount)
}
