package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
)

// shortLen is how much of a digest names a layer: 128 bits, so that the paths
// of many layers stay short.
const shortLen = 32

// short returns the directory name of a layer from its diff id
// ("sha256:<64 hex digits>") or from such a name itself.
func short(id string) (string, error) {
	digits := id
	if algorithm, hex, ok := strings.Cut(id, ":"); ok {
		if algorithm == "" || strings.Trim(algorithm, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || len(hex) < 2*shortLen {
			return "", badLayer(id)
		}
		digits = hex
	} else if len(id) != shortLen {
		return "", badLayer(id)
	}
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return "", badLayer(id)
	}
	return digits[:shortLen], nil
}

func badLayer(id string) error {
	return fault.New(fault.Invalid, "use layer", id, "it is no diff id", "")
}

// LayerDir returns the path of a layer's files, whether it exists or not. The
// path is for showing and for tools; fief itself goes by descriptor.
func (s *Store) LayerDir(id string) (string, error) {
	name, err := short(id)
	if err != nil {
		return "", err
	}
	return filepath.Join(s.path, "layers", name, "fs"), nil
}

// HasLayer reports whether a layer is complete in the store. id is a diff id
// or the short form that Layers returns.
func (s *Store) HasLayer(id string) bool {
	name, err := short(id)
	if err != nil {
		return false
	}
	ok, err := at.Exists(s.layers, name)
	return ok && err == nil
}

// Layers lists the complete layers by the first 32 digits of their diff ids.
// The parts of the built-in image are not among them.
func (s *Store) Layers() ([]string, error) {
	names, err := at.Names(s.layers)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if id, err := short(n); err == nil && id == n {
			out = append(out, n)
		}
	}
	return out, nil
}

// RemoveLayer takes a layer and its copies out of the store at once; the files
// go in the background. A layer that is not there is no error. The caller must
// know that no container uses it.
func (s *Store) RemoveLayer(id string) error {
	name, err := short(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.roots, name)
	delete(s.sizes, name)
	s.mu.Unlock()
	if err := s.drops.take(s.layers, name); err != nil {
		return err
	}
	return s.eachCopyOf(name, s.drops.take)
}

// Building is a layer that is being unpacked.
type Building struct {
	// Dir is the layer's root, an O_PATH descriptor, mode 0755 and owned by
	// root. Commit and Abort close it.
	Dir *os.File

	s     *Store
	name  string // below building/
	layer string // below layers/
}

// Build begins a layer. It ends with Commit or Abort; a killed process leaves
// nothing but what SweepBuilding removes. The same layer may be built several
// times at once: the first commit wins.
func (s *Store) Build(diffID string) (*Building, error) {
	layer, err := short(diffID)
	if err != nil {
		return nil, err
	}
	return s.newBuilding(layer)
}

func (s *Store) newBuilding(layer string) (*Building, error) {
	b := &Building{s: s, name: layer + "-" + token(), layer: layer}
	if err := at.MakeDir(s.build, b.name, 0o700); err != nil {
		return nil, err
	}
	failpoint.Hit("layer-building")
	err := at.MakeDir(s.build, b.name+"/fs", 0o755)
	if err == nil {
		b.Dir, err = at.SubDir(s.build, b.name+"/fs")
	}
	if err != nil {
		b.Abort()
		return nil, err
	}
	return b, nil
}

// Commit makes the layer durable and then visible, in this order, so that after
// a power loss it is either complete or not there. After a failure the layer is
// as if it had never been begun.
func (b *Building) Commit() error { return b.publish(b.s.layers) }

func (b *Building) publish(to *os.File) error {
	failpoint.Hit("layer-filled")
	// One syncfs instead of an fsync for each of thousands of files.
	if err := at.SyncFS(b.Dir); err != nil {
		b.Abort()
		return err
	}
	failpoint.Hit("layer-synced")
	err := at.Rename(b.s.build, b.name, to, b.layer)
	failpoint.Hit("layer-named")
	b.Abort() // after a rename there is nothing left to remove
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return at.SyncDir(to)
}

// Replace is Commit for a layer that is there already and is damaged: at no
// moment is it missing, and a crash leaves the old one or the new one. Who has
// mounted the old one keeps it: it lies below replaced/, as do the copies and
// shadows that were made of it, until SweepReplaced.
func (b *Building) Replace() error {
	defer b.Abort()
	if err := at.SyncFS(b.Dir); err != nil {
		return err
	}
	s, aside := b.s, b.layer+"-"+token()
	if err := at.Rename(s.build, b.name, s.old, aside); err != nil {
		return err
	}
	failpoint.Hit("layer-remade")
	err := at.Exchange(s.old, aside, s.layers, b.layer)
	if errors.Is(err, unix.ENOENT) {
		err = at.Rename(s.old, aside, s.layers, b.layer)
	}
	if err != nil {
		s.drops.add(s.old, aside)
		return err
	}
	failpoint.Hit("layer-exchanged")
	s.mu.Lock()
	delete(s.roots, b.layer)
	delete(s.sizes, b.layer)
	s.mu.Unlock()
	err = s.eachCopyOf(b.layer, func(from *os.File, name string) error {
		err := at.Rename(from, name, s.old, b.layer+"-"+token())
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	})
	return errors.Join(err, at.SyncDir(s.layers), at.SyncDir(s.old))
}

// SweepReplaced deletes, in the background, what Replace put aside and what
// inUse, asked with the name of the layer that Layers has, does not keep.
func (s *Store) SweepReplaced(inUse func(layer string) bool) error {
	names, err := at.Names(s.old)
	for _, n := range names {
		if layer, _, _ := strings.Cut(n, "-"); !inUse(layer) {
			s.drops.add(s.old, n)
		}
	}
	return err
}

// Abort gives the layer up; its files go in the background. It may follow
// Commit and may be repeated.
func (b *Building) Abort() {
	fd.CloseAll(b.Dir)
	b.Dir = nil
	b.s.drops.add(b.s.build, b.name)
}

// SweepBuilding removes what killed processes left half built, in the
// background. To be called at start, before anything is built.
func (s *Store) SweepBuilding() error {
	names, err := at.Names(s.build)
	for _, n := range names {
		s.drops.add(s.build, n)
	}
	return err
}
