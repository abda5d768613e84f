package snapshot

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
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

// ladder is ordered by what a start costs, then by what is shared. Mounts are
// shifted in no time. Shadows and reflinks take the same 70 µs of processor for
// each file and map on xfs and btrfs (BenchmarkShift), and an inode each. But
// all maps read a shadow's data through one page cache, where each has reflinks
// of its own, and shadows copy no data on ext4 either; so they come first,
// though they are made for each image and not for each layer. Reflinks are for
// kernels before 6.16, copies for file systems that cannot share blocks.
//
// Layers are not unpacked with the ids of one map: the store would have layers
// that fit one container, to be unpacked again for each other, to save one
// making of shadows.
var ladder = [...]rung{
	{shift.Idmapped, "idmapped overlay layers by descriptor", "6.15", false},
	{shift.Attached, "idmapped overlay layers by path", "5.19", true},
	{shift.Metacopy, "overlay data layers without metacopy=on", "6.16", false},
	{shift.Reflink, "files that share blocks, and overlay layers by descriptor", "6.13", false},
	{shift.Reflink, "files that share blocks, and overlay with a writable layer", "4.5", true},
	{shift.Copy, "overlay layers by descriptor", "6.13", false},
	{shift.Copy, "overlay with a writable layer", "3.18", true},
}

// choose tries the rungs from the top, with the code that later makes every
// root file system, and stays on the first that holds.
func (s *Store) choose(force shift.Way) error {
	way, m, answers, err := s.climb(force)
	s.way, s.mounter, s.answers = way, m, answers
	return err
}

// climb tries the rungs of one way, or of all. The mounter is the caller's.
func (s *Store) climb(force shift.Way) (shift.Way, shift.Mounter, []probe.Answer, error) {
	var answers []probe.Answer
	for _, r := range ladder {
		if force != "" && force != r.way {
			continue
		}
		m, a := s.try(r)
		answers = append(answers, a)
		switch a.Verdict {
		case probe.Yes:
			return r.way, m, answers, nil
		case probe.Unknown:
			return "", nil, answers, a.Err
		}
	}
	last := answers[len(answers)-1]
	return "", nil, answers, fault.Wrap(fault.Unsupported, "keep containers below", s.path, errors.New(refusals(answers)),
		"overlayfs needs a local file system below the data root, such as ext4, xfs or btrfs: "+last.Feature+" failed")
}

// CheckWay refuses a way for one container that there is not (class Invalid), or
// that kernel or file system do not have (Unsupported).
func (s *Store) CheckWay(way string) error {
	w, err := shift.ParseWay(way)
	if err != nil || w == "" {
		return err
	}
	_, err = s.mounterOf(w)
	return err
}

// mounterOf returns the mounter of a way that need not be the store's. It is
// tried at its first use, and the store's to close.
func (s *Store) mounterOf(way shift.Way) (shift.Mounter, error) {
	if way == s.way {
		return s.mounter, nil
	}
	m, err, _ := s.trials.Do(string(way), func() (any, error) {
		s.mu.Lock()
		m, ok := s.others[way]
		s.mu.Unlock()
		if ok {
			return m, nil
		}
		_, m, answers, err := s.climb(way)
		if fault.Is(err, fault.Unsupported) {
			return nil, fault.Wrap(fault.Unsupported, "shift by", string(way), errors.New(refusals(answers)), "leave out --storage-opt shift")
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.others[way] = m
		s.mu.Unlock()
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	return m.(shift.Mounter), nil
}

// why lists the refusals above the rung that holds. A forced way has none.
func (s *Store) why() string { return refusals(s.answers[:len(s.answers)-1]) }

func refusals(answers []probe.Answer) string {
	var out []string
	for _, a := range answers {
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
	for _, sub := range []string{"lower", "data", "upper", "upper/fs", "upper/work"} {
		if err := at.MakeDir(dir, sub, 0o755); err != nil {
			return err
		}
	}
	if err := s.fillTrial(r.way, dir); err != nil {
		return err
	}
	tree, err := trialTree(r, m, dir)
	if err != nil {
		return err
	}
	defer tree.Close()
	o := shift.Overlay{Lowers: []shift.Dir{{Tree: tree, Name: "lower"}}, Upper: shift.Dir{Tree: tree, Name: "upper"}}
	if r.way == shift.Metacopy {
		o.Data = []shift.Dir{{Tree: tree, Name: "data"}}
	}
	root, err := m.Mount(o)
	if err != nil {
		return err
	}
	defer root.Close()
	return useTrial(r.way, root)
}

const trialText = "what a file holds"

// fillTrial puts into data and lower what the way needs to show itself.
func (s *Store) fillTrial(way shift.Way, dir *os.File) error {
	data, err := at.SubDir(dir, "data")
	if err != nil {
		return err
	}
	defer data.Close()
	switch way {
	case shift.Reflink:
		return shift.TryReflink(data)
	case shift.Metacopy:
		return s.fillShadow(data, dir)
	}
	return nil
}

func (s *Store) fillShadow(data, dir *os.File) error {
	if err := os.WriteFile(fd.Path(data)+"/file", []byte(trialText), 0o600); err != nil {
		return sysx.Fault("write to", data.Name(), err)
	}
	lower, err := at.SubDir(dir, "lower")
	if err != nil {
		return err
	}
	defer lower.Close()
	pair, err := idmap.Range(1<<30, 1<<16)
	if err != nil {
		return err
	}
	return shift.CopyTree(s.ctx, shift.Job{Src: data, Dst: lower, Pair: pair, Way: shift.Metacopy})
}

// useTrial does with a root what distinguishes one that works. An upper that
// overlayfs cannot work with is not refused but becomes read-only, and a shadow
// whose redirect is not followed cannot be opened (EIO or EPERM).
func useTrial(way shift.Way, root *os.File) error {
	err := unix.Mkdirat(int(root.Fd()), "written", 0o700)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EOVERFLOW) {
		return fault.Wrap(fault.Unsupported, "write to", "overlay", err, "")
	}
	if err != nil || way != shift.Metacopy {
		return sysx.Fault("write to", "overlay", err)
	}
	text, err := os.ReadFile(fd.Path(root) + "/file")
	if err == nil && string(text) != trialText {
		err = errors.New("it holds something else")
	}
	if err != nil {
		return fault.Wrap(fault.Unsupported, "read a shadow through", "overlay", err, "")
	}
	return nil
}

// trialTree plants dir the way a rung does it. No process ever has the ids
// of its map.
func trialTree(r rung, m shift.Mounter, dir *os.File) (*shift.Tree, error) {
	if r.way.HostIDs() {
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
