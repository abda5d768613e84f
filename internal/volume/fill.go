package volume

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

// Where a volume is filled: beside its files, or in what its driver mounted,
// which may be another file system. Nothing counts before the second name is
// there; from then on nothing is lost.
const (
	filling = ".fief-filling"
	filled  = ".fief-filled"
)

// Fill puts into an empty volume what copy makes in an empty directory: its
// entries and the directory's own attributes. copy may report that there is
// nothing to be copied. A volume that holds anything is left alone. Whoever calls
// it meanwhile waits: a volume is filled once. What was cut off is begun again by
// the next call, or finished when all had been copied.
//
// One that shows the host's owners stays as it is: what an image stores as root's,
// setuid programs among it, would be the host's root's.
//
// Full is Exhausted; the volume is empty then.
func (s *Store) Fill(name string, copy func(dst *os.File) (bool, error)) error {
	e, err := s.find(name)
	if err != nil || hostOwned(e.rec) {
		return err
	}
	e.io.Lock()
	defer e.io.Unlock()
	files, err := s.open(e)
	if err != nil {
		return err
	}
	defer files.Close()
	stage, err := s.stageOf(e, files)
	if err != nil {
		return err
	}
	defer stage.Close()
	if done, err := finish(stage, files, true); done || err != nil {
		return err
	}
	if err := at.RemoveTree(stage, filling); err != nil {
		return err
	}
	if empty, err := isEmpty(files); !empty || err != nil {
		return err
	}
	fits := func(dst *os.File) (bool, error) {
		some, err := copy(dst)
		if err == nil && some {
			err = s.room(e)
		}
		return some, err
	}
	if err := copied(stage, fits, !e.rec.Anonymous); err != nil {
		return errors.Join(err, at.RemoveTree(stage, filling))
	}
	failpoint.Hit("volume-filled")
	_, err = finish(stage, files, !e.rec.Anonymous)
	return err
}

// stageOf is the directory in which a volume's content is made.
func (s *Store) stageOf(e *entry, files *os.File) (*os.File, error) {
	if mounts(e.rec.Options) {
		return fd.Dup(files)
	}
	return at.SubDir(s.dir, e.rec.Name)
}

func isEmpty(files *os.File) (bool, error) {
	names, err := at.Names(files)
	left := slices.DeleteFunc(names, func(n string) bool { return n == filling || n == filled })
	return len(left) == 0, err
}

// copied makes the content under its first name and gives it the second. What is
// durable outlives a power cut; an anonymous volume is no more so than the writable
// layer of its container, whose start waits for no disk.
func copied(stage *os.File, copy func(dst *os.File) (bool, error), durable bool) error {
	if err := at.MakeDir(stage, filling, 0o700); err != nil {
		return err
	}
	dst, err := at.SubDir(stage, filling)
	if err != nil {
		return err
	}
	defer dst.Close()
	failpoint.Hit("volume-filling")
	some, err := copy(dst)
	if err != nil {
		return err
	}
	if !some {
		return at.RemoveTree(stage, filling)
	}
	if durable {
		if err := at.SyncFS(dst); err != nil {
			return err
		}
	}
	failpoint.Hit("volume-copied")
	return at.Rename(stage, filling, stage, filled)
}

// finish moves what was copied to its place; false when nothing was. An entry
// that somebody else has made meanwhile stays.
func finish(stage, files *os.File, durable bool) (bool, error) {
	there, err := at.Exists(stage, filled)
	if err != nil || !there {
		return false, err
	}
	from, err := at.SubDir(stage, filled)
	if err != nil {
		return false, err
	}
	defer from.Close()
	names, err := at.Names(from)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := at.Rename(from, name, files, name); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, err
		}
		failpoint.Hit("volume-moving")
	}
	if err := sameAttributes(from, files); err != nil {
		return false, err
	}
	if err := at.RemoveTree(stage, filled); err != nil {
		return false, err
	}
	if !durable {
		return true, nil
	}
	return true, at.SyncDir(files)
}

// sameAttributes gives to what a directory has besides its entries. Both are
// O_PATH.
func sameAttributes(from, to *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return sysx.Fault("look at", from.Name(), err)
	}
	err := unix.Fchownat(int(to.Fd()), "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH)
	if err == nil {
		err = unix.Chmod(fd.Path(to), st.Mode&0o7777)
	}
	if err != nil {
		return sysx.Fault("give its owner and mode to", to.Name(), err)
	}
	names, err := at.XattrNames(func(b []byte) (int, error) { return unix.Listxattr(fd.Path(from), b) })
	if err != nil {
		return sysx.Fault("list extended attributes of", from.Name(), err)
	}
	for _, name := range names {
		value, err := at.XattrValue(func(b []byte) (int, error) { return unix.Getxattr(fd.Path(from), name, b) })
		if err == nil {
			err = unix.Setxattr(fd.Path(to), name, value, 0)
		}
		if err != nil {
			return sysx.Fault("copy extended attribute "+name+" to", to.Name(), err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return sysx.Fault("set times of", to.Name(), unix.UtimesNanoAt(unix.AT_FDCWD, fd.Path(to), times, 0))
}

// Size is how many bytes the regular files of a volume hold; one with several
// names counts once. Nothing is measured that is mounted in it.
func (s *Store) Size(name string) (int64, error) {
	e, err := s.find(name)
	if err != nil {
		return 0, err
	}
	files, err := s.open(e)
	if err != nil {
		return 0, err
	}
	defer files.Close()
	dir, err := at.Beneath(files, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return 0, err
	}
	m := measure{seen: map[uint64]bool{}}
	err = m.inside(dir, 0)
	return m.bytes, err
}

// maxDepth bounds the descriptors that looking through a volume holds: what is
// deeper is not counted.
const maxDepth = 128

type measure struct {
	bytes int64
	seen  map[uint64]bool
}

// inside adds up a directory, which it closes. What vanishes meanwhile is passed over.
func (m *measure) inside(dir *os.File, depth int) error {
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return sysx.Fault("list", dir.Name(), err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if st.Nlink > 1 {
				if m.seen[st.Ino] {
					continue
				}
				m.seen[st.Ino] = true
			}
			m.bytes += st.Size
		case unix.S_IFDIR:
			if depth == maxDepth {
				continue
			}
			sub, err := at.Beneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
			if err != nil {
				continue
			}
			if err := m.inside(sub, depth+1); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
		}
	}
	return nil
}
