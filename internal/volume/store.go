package volume

import (
	"cmp"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/quota"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// The names below volumes/: a volume's directory has its name and holds its
// files in data. What begins with a dot is no volume: one being made or removed.
const (
	dirName = "volumes"
	data    = "_data"
	making  = ".making-"
	going   = ".gone-"
	owner   = "for-" // and the container's id, beside the files of an anonymous volume: its record comes later than it
)

// documents is a bucket of state.db.
type documents interface {
	Put(key string, v any) error
	PutSoon(key string, v any) error
	Delete(key string) error
	Each(func(key string, raw []byte) error) error
}

// Store holds the volumes of a data root. Its methods may be called from any
// goroutine.
//
// A volume is recorded before its directory appears, by a rename, and its
// directory disappears, by a rename, before its record: whatever is killed in
// between is finished or taken back by the next Open, and files are deleted only
// of a volume whose removal had begun. Lock order: entry.io, then Store.mu.
type Store struct {
	dir  *os.File // volumes/
	path string
	docs documents

	claiming sync.Mutex // held while a project id is looked for

	mu  sync.Mutex // held for memory only
	all map[string]*entry
}

// entry is a volume.
type entry struct {
	io    sync.Mutex // held while its directory is made, filled, mounted or removed
	rec   record.Volume
	gone  bool                // guarded by Store.mu: it is being removed, or could not be made
	users map[string]struct{} // guarded by io: who has what the driver mounted
}

// Open takes up the volumes below a data root. A directory without a record is a
// volume all the same: records may be lost, files must not.
func Open(dataRoot string, docs documents) (*Store, error) {
	root, err := at.Dir(dataRoot)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := &Store{path: filepath.Join(dataRoot, dirName), docs: docs, all: map[string]*entry{}}
	if s.dir, err = at.EnsureDir(root, dirName); err != nil {
		return nil, err
	}
	if err := s.takeUp(); err != nil {
		s.dir.Close()
		return nil, err
	}
	return s, nil
}

// Close lets go of the directory.
func (s *Store) Close() error { return s.dir.Close() }

func (s *Store) takeUp() error {
	err := s.docs.Each(func(name string, raw []byte) error {
		var rec record.Volume
		if err := json.Unmarshal(raw, &rec); err != nil {
			return fault.Wrap(fault.Corrupt, "read volume", name, err, "")
		}
		s.all[name] = &entry{rec: rec, users: map[string]struct{}{}}
		return nil
	})
	if err != nil {
		return err
	}
	names, err := at.Names(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.takeUpDir(name); err != nil {
			return err
		}
	}
	for name, e := range s.all {
		if e.rec.Made || slices.Contains(names, name) {
			continue
		}
		// Its making was cut off before there was anything in it.
		s.unlimit(e.rec.Project)
		if err := s.docs.Delete(name); err != nil {
			return err
		}
		delete(s.all, name)
	}
	return nil
}

// takeUpDir finishes what was being done with a directory.
func (s *Store) takeUpDir(name string) error {
	if gone, ok := strings.CutPrefix(name, going); ok {
		there, err := at.Exists(s.dir, gone)
		if err != nil {
			return err
		}
		if !there {
			if err := s.docs.Delete(gone); err != nil {
				return err
			}
			delete(s.all, gone)
		}
	}
	if strings.HasPrefix(name, going) || strings.HasPrefix(name, making) {
		if err := s.erase(name); err != nil {
			slog.Warn("cannot delete what is left of a volume", "directory", name, "error", err)
		}
		return nil
	}
	if !ask.IsVolumeName(name) {
		return nil // not ours
	}
	e := s.all[name]
	if e != nil && e.rec.Made {
		return nil
	}
	if there, err := at.Exists(s.dir, name+"/"+data); err != nil || !there {
		return nil // not ours
	}
	if e == nil {
		slog.Warn("a directory without a record is taken for a volume", "volume", name)
		e = &entry{rec: record.Volume{Version: record.Version, Name: name, Driver: ask.LocalDriver, Created: time.Now().UTC()}, users: map[string]struct{}{}}
		if len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" { // a name of the engine's making
			e.rec.Anonymous, e.rec.Labels, e.rec.Container = true, map[string]string{record.AnonymousLabel: ""}, s.ownerOf(name)
		}
		s.all[name] = e
	}
	e.rec.Made = true
	return s.docs.Put(name, e.rec)
}

// ownerOf is the container that the directory of an anonymous volume names.
func (s *Store) ownerOf(name string) string {
	dir, err := at.SubDir(s.dir, name)
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, _ := at.Names(dir) // not known: it stays
	for _, n := range names {
		if id, ok := strings.CutPrefix(n, owner); ok {
			return id
		}
	}
	return ""
}

// Settle ends what no container has any more, once the running ones have said
// what they use: anonymous volumes of containers that never came to be, which
// orphan names, and mounts of the driver.
func (s *Store) Settle(orphan func(record.Volume) bool) {
	for _, v := range s.List() {
		if orphan(v) {
			remove, err := s.Doom(v.Name)
			if err == nil {
				err = remove()
			}
			if err != nil {
				slog.Warn("cannot remove the volume of a container that was never made", "volume", v.Name, "error", err)
			}
			continue
		}
		if mounts(v.Options) {
			s.Free(v.Name, "")
		}
	}
}

// Create makes a volume, or returns the one that has this name; made says which.
// container is whom an anonymous one is for: such a volume is recorded a moment
// later, before anything that is recorded after it.
func (s *Store) Create(want ask.CreateVolume, container string) (_ record.Volume, made bool, err error) {
	rec := record.Volume{
		Version: record.Version, Name: want.Name, Driver: cmp.Or(want.Driver, ask.LocalDriver), Created: time.Now().UTC(),
		Labels: want.Labels, Options: want.Options,
	}
	if rec.Name == "" {
		rec.Name, rec.Anonymous, rec.Container = ref.NewID(), true, container
		rec.Labels = maps.Clone(rec.Labels)
		if rec.Labels == nil {
			rec.Labels = map[string]string{}
		}
		rec.Labels[record.AnonymousLabel] = ""
	}
	if err := check(rec); err != nil {
		return record.Volume{}, false, err
	}
	e, made, err := s.enter(rec)
	if err != nil || !made {
		return s.shown(rec.Name, e), false, err
	}
	defer e.io.Unlock()
	if err := s.build(e); err != nil {
		s.forget(rec.Name, e)
		return record.Volume{}, false, err
	}
	return s.shown(rec.Name, e), true, nil
}

func check(rec record.Volume) error {
	if err := ask.CheckVolumeName(rec.Name); err != nil {
		return fault.Say(fault.Invalid, "create "+rec.Name+": "+err.Error())
	}
	if rec.Driver != ask.LocalDriver {
		return fault.Say(fault.NotFound, "create "+rec.Name+`: error looking up volume plugin `+rec.Driver+`: plugin "`+rec.Driver+`" not found`)
	}
	if err := checkOptions(rec.Options); err != nil {
		return fault.Say(fault.Invalid, "create "+rec.Name+": "+err.Error())
	}
	return nil
}

// enter puts a new volume into the table, with its io held, or finds the old one.
// One that is being removed is waited for.
func (s *Store) enter(rec record.Volume) (_ *entry, made bool, err error) {
	for {
		s.mu.Lock()
		e := s.all[rec.Name]
		if e == nil {
			e = &entry{rec: rec, users: map[string]struct{}{}}
			e.io.Lock()
			s.all[rec.Name] = e
			s.mu.Unlock()
			return e, true, nil
		}
		gone := e.gone
		s.mu.Unlock()
		if !gone {
			if e.rec.Driver != rec.Driver {
				return e, false, fault.Say(fault.Conflict, "a volume named "+rec.Name+" already exists with the "+e.rec.Driver+" driver. Choose a different volume name")
			}
			return e, false, nil
		}
		e.idle() // until it is gone, or the one that dooms it comes to it
		time.Sleep(time.Millisecond)
	}
}

// idle returns when nobody works on the files of the volume.
func (e *entry) idle() {
	e.io.Lock()
	defer e.io.Unlock()
}

func (s *Store) forget(name string, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.gone = true
	if s.all[name] == e {
		delete(s.all, name)
	}
}

// build records a volume and makes its directory. Preconditions: e.io is held.
func (s *Store) build(e *entry) (err error) {
	name := e.rec.Name
	project, err := s.claim(e.rec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	e.rec.Project = project
	s.mu.Unlock()
	put := s.docs.Put
	if e.rec.Anonymous {
		put = s.docs.PutSoon // no start waits for a disk
	}
	if err := put(name, e.rec); err != nil {
		s.unlimit(project)
		return err
	}
	failpoint.Hit("volume-recorded")
	if err := s.makeDir(e.rec); err != nil {
		at.RemoveTree(s.dir, making+name)
		s.unlimit(project)
		if left := s.docs.Delete(name); left != nil {
			slog.Warn("a volume that could not be made is still on record", "volume", name, "error", left)
		}
		return err
	}
	failpoint.Hit("volume-made")
	if !e.rec.Anonymous {
		if err := at.SyncDir(s.dir); err != nil {
			return err
		}
	}
	s.mu.Lock()
	e.rec.Made = true
	rec := e.rec
	s.mu.Unlock()
	return s.docs.PutSoon(name, rec)
}

// makeDir makes a volume's directory.
func (s *Store) makeDir(rec record.Volume) error {
	name, container := rec.Name, rec.Container
	staged := making + name
	if err := at.RemoveTree(s.dir, staged); err != nil {
		return err
	}
	if err := at.MakeDir(s.dir, staged, 0o700); err != nil {
		return err
	}
	failpoint.Hit("volume-making")
	if rec.Project != 0 {
		if err := s.own(staged, rec.Project); err != nil {
			return err
		}
	}
	if err := at.MakeDir(s.dir, staged+"/"+data, 0o755); err != nil {
		return err
	}
	if container != "" {
		if err := at.MakeDir(s.dir, staged+"/"+owner+container, 0o700); err != nil {
			return err
		}
	}
	return at.Rename(s.dir, staged, s.dir, name)
}

// own gives a directory that is to be a volume, and what will be in it, to a project.
func (s *Store) own(staged string, project uint32) error {
	dir, err := at.SubDir(s.dir, staged)
	if err != nil {
		return err
	}
	defer dir.Close()
	return quota.SetProject(dir, project)
}

// shown is a copy of a volume's record.
func (s *Store) shown(name string, e *entry) record.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := e.rec
	out.Mountpoint = filepath.Join(s.path, name, data)
	return out
}

// find returns a volume. NotFound in Docker's words.
func (s *Store) find(name string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.all[name]; e != nil && !e.gone {
		return e, nil
	}
	return nil, fault.Say(fault.NotFound, "get "+name+": no such volume")
}

// Get returns a volume by its name.
func (s *Store) Get(name string) (record.Volume, error) {
	e, err := s.find(name)
	if err != nil {
		return record.Volume{}, err
	}
	return s.shown(name, e), nil
}

// List returns all volumes, by name.
func (s *Store) List() []record.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []record.Volume
	for _, name := range slices.Sorted(maps.Keys(s.all)) {
		if e := s.all[name]; !e.gone {
			v := e.rec
			v.Mountpoint = filepath.Join(s.path, name, data)
			out = append(out, v)
		}
	}
	return out
}

// Keep makes an anonymous volume one that outlives the container it was made for.
func (s *Store) Keep(name string) error {
	e, err := s.find(name)
	if err != nil {
		return nil // gone already
	}
	s.mu.Lock()
	had := e.rec.Container
	e.rec.Container = ""
	rec := e.rec
	s.mu.Unlock()
	if had == "" {
		return nil
	}
	if err := at.RemoveTree(s.dir, name+"/"+owner+had); err != nil {
		return err
	}
	return s.docs.PutSoon(name, rec)
}

// Doom takes a volume from everybody's sight: whoever asks for one of its name
// waits until it is gone. remove must be called, and deletes it with its files;
// when it fails at once the volume is there again.
func (s *Store) Doom(name string) (remove func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all[name]
	if e == nil || e.gone {
		return nil, fault.Say(fault.NotFound, "get "+name+": no such volume")
	}
	e.gone = true
	return func() error { return s.remove(name, e) }, nil
}

func (s *Store) remove(name string, e *entry) error {
	e.io.Lock()
	defer e.io.Unlock()
	if err := s.unlink(e); err != nil {
		s.mu.Lock()
		e.gone = false
		s.mu.Unlock()
		return err
	}
	failpoint.Hit("volume-unrecorded")
	if err := s.erase(going + name); err != nil {
		slog.Warn("cannot delete the files of a removed volume", "volume", name, "error", err)
	}
	s.forget(name, e)
	return nil
}

// unlink takes a volume's directory and record away. Preconditions: e.io is held.
func (s *Store) unlink(e *entry) error {
	name := e.rec.Name
	if err := s.unmount(e); err != nil {
		return err
	}
	if err := at.RemoveTree(s.dir, going+name); err != nil {
		return err
	}
	failpoint.Hit("volume-removing")
	if err := at.Rename(s.dir, name, s.dir, going+name); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if e.rec.Container != "" { // it goes with its container: a record that is left is nobody's, and Settle removes it
		failpoint.Hit("volume-leaving")
		return s.docs.PutSoon(name, nil)
	}
	if err := at.SyncDir(s.dir); err != nil {
		return err
	}
	failpoint.Hit("volume-renamed")
	return s.docs.Delete(name)
}

// open opens the directory of a volume's files, also where something is mounted
// on it; no symbolic link is followed. The directory of an anonymous volume is made
// anew when it is missing: a power cut may have taken it.
func (s *Store) open(e *entry) (*os.File, error) {
	name := e.rec.Name
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	f, err := at.Below(s.dir, name+"/"+data, flags)
	if err == nil {
		return f, nil
	}
	if e.rec.Anonymous && fault.Is(err, fault.NotFound) {
		if err := s.makeDir(e.rec); err != nil {
			return nil, err
		}
		return at.Below(s.dir, name+"/"+data, flags)
	}
	return nil, fault.Wrap(fault.Corrupt, "use volume", name, err, "its directory is missing or has been replaced: put it back at "+filepath.Join(s.path, name, data)+", or remove the volume")
}

// Verify says which volumes are not as they must be.
func (s *Store) Verify() (out []record.Problem) {
	for _, v := range s.List() {
		e, err := s.find(v.Name)
		if err != nil || v.Anonymous {
			continue
		}
		e.io.Lock()
		f, err := s.open(e)
		if err == nil {
			f.Close()
		}
		e.io.Unlock()
		if err != nil {
			out = append(out, record.Problem{Kind: "volume", Object: v.Name, What: "its directory is missing or has been replaced", Advice: "put it back at " + v.Mountpoint + ", or fief volume rm " + v.Name})
		}
	}
	return out
}
