package volume

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/docker/go-units"

	"fief/internal/kernel/at"
	"fief/internal/kernel/quota"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Project ids of volumes. Docker and Podman count up from 1, and so do most who write
// /etc/projid; one that is in use on the file system is never taken.
const (
	firstProject = 0x66000000
	projects     = 1 << 24
)

// quotaOf is how many bytes the files of a volume may take: Docker's size=, or Podman's
// o=size= where nothing is to be mounted; 0: as many as there are.
func quotaOf(o map[string]string) (int64, error) {
	text, given := o["size"]
	if alone, ok := strings.CutPrefix(o["o"], "size="); ok && !mounts(o) && !strings.Contains(alone, ",") {
		if given {
			return 0, errors.New("cannot pass size more than once")
		}
		text, given = alone, true
	}
	if !given {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil {
		return 0, err
	}
	if mounts(o) && n > 0 {
		return 0, errors.New("size is a quota on the data root's file system: what type and device mount is limited by options of its own in o")
	}
	return n, nil
}

// mounts reports whether the driver is to mount something.
func mounts(o map[string]string) bool { return o["device"] != "" || o["type"] != "" }

// claim finds a project id that nobody on the file system has, and sets its limit, so
// that every daemon on it sees whose it is. Zero: the volume has no quota.
func (s *Store) claim(rec record.Volume) (uint32, error) {
	size, err := quotaOf(rec.Options)
	if err != nil || size == 0 {
		return 0, err
	}
	if err := quota.Supported(s.dir); err != nil {
		return 0, noQuota(fault.Invalid, "create "+rec.Name, err)
	}
	s.claiming.Lock()
	defer s.claiming.Unlock()
	for range 1000 {
		id := firstProject + rand.Uint32N(projects)
		used, err := quota.Get(s.dir, id)
		if err != nil {
			return 0, err
		}
		if used == (quota.Usage{}) {
			return id, quota.Limit(s.dir, id, uint64(size))
		}
	}
	return 0, fault.New(fault.Exhausted, "create volume", rec.Name, "no project id was found that is not in use", "")
}

// noQuota is in Docker's words, and says what is missing.
func noQuota(class fault.Class, op string, err error) error {
	return &fault.Error{Class: class, Cause: errors.New(op + ": quota size requested but no quota support: " + err.Error()), Hint: fault.HintOf(err)}
}

// held refuses a volume whose files no longer have its quota: its file system was
// mounted without, or it was copied to another one.
func (s *Store) held(e *entry, files *os.File) error {
	if e.rec.Project == 0 {
		return nil
	}
	if err := quota.Supported(s.dir); err != nil {
		return noQuota(fault.Denied, "use "+e.rec.Name, err)
	}
	got, err := quota.Project(files)
	if err != nil {
		return err
	}
	used, err := quota.Get(s.dir, e.rec.Project)
	if err != nil {
		return err
	}
	if got != e.rec.Project || used.Limit == 0 {
		return fault.New(fault.Corrupt, "use volume", e.rec.Name, "its files have not the quota it was made with", "copy them to a new volume")
	}
	return nil
}

// room refuses what was copied beyond a quota: the kernel holds nobody with
// CAP_SYS_RESOURCE to that of ext4 (fs/quota/dquot.c).
func (s *Store) room(e *entry) error {
	if e.rec.Project == 0 {
		return nil
	}
	used, err := quota.Get(s.dir, e.rec.Project)
	if err == nil && used.Bytes > used.Limit {
		err = fault.New(fault.Exhausted, "fill volume", e.rec.Name, "what the image has is more than its size: disk quota exceeded", "give it a larger size, or leave it empty with nocopy")
	}
	return err
}

// erase removes a directory of a volume, and then its quota.
func (s *Store) erase(name string) error {
	id := s.projectOf(name)
	if err := at.RemoveTree(s.dir, name); err != nil {
		return err
	}
	s.unlimit(id)
	return nil
}

// projectOf is the project of a directory when it is one of ours; else 0.
func (s *Store) projectOf(name string) uint32 {
	dir, err := at.SubDir(s.dir, name)
	if err != nil {
		return 0
	}
	defer dir.Close()
	id, err := quota.Project(dir)
	if err != nil || id < firstProject || id >= firstProject+projects {
		return 0
	}
	return id
}

func (s *Store) unlimit(id uint32) {
	if id == 0 {
		return
	}
	if err := quota.Limit(s.dir, id, 0); err != nil {
		slog.Warn("cannot remove the quota of a volume that is gone", "project", id, "error", err)
	}
}
