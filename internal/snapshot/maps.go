package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/userns"
	"fief/internal/snapshot/shift"
	"fief/internal/words/failpoint"
	"fief/internal/words/idmap"
)

// Mapped is the store as it appears under one map. It holds two to four
// descriptors. Root file systems made of it live on after Close.
type Mapped struct {
	s       *Store
	pair    idmap.Pair
	way     shift.Way
	mounter shift.Mounter
	ns      *os.File // user namespace with the map; nil for Plain
	layers  *shift.Tree
	uppers  *shift.Tree
	data    *shift.Tree // the layers that layers, then shadows, stand for; nil but with shift.Metacopy
	copies  *os.File    // of layers or images, for this map; nil unless the way writes host ids
}

// Maps makes the store visible under a map; the zero Pair is for containers
// without a user namespace. way is one of shift's, tried now if it is not the
// store's; empty is the store's. This is the slow part of a root file system,
// some hundred microseconds, and needs to be done once for each map. The caller
// closes the result.
//
// A map without id 0 on both sides is refused (class Invalid), and a way that
// cannot be had (Unsupported).
func (s *Store) Maps(pair idmap.Pair, way string) (*Mapped, error) {
	w, err := shift.ParseWay(way)
	if err != nil {
		return nil, err
	}
	if w == "" {
		w = s.way
	}
	m := &Mapped{s: s, pair: pair, way: w}
	if err := m.open(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Way says how stored files appear under the map.
func (m *Mapped) Way() string { return string(m.way) }

func (m *Mapped) open() (err error) {
	if m.pair.IsZero() {
		m.way, m.mounter = shift.Plain, m.s.mounter
		return m.plant(m.s.layers)
	}
	if err := shift.Check(m.pair); err != nil {
		return err
	}
	if m.mounter, err = m.s.mounterOf(m.way); err != nil {
		return err
	}
	wider, err := shift.ForMounter(m.pair)
	if err != nil {
		return err
	}
	if m.ns, err = userns.New(m.pair); err != nil {
		return err
	}
	if !m.way.HostIDs() {
		return m.idmap(wider)
	}
	if m.copies, err = m.s.copiesOf(m.pair, m.way); err != nil {
		return err
	}
	if m.way == shift.Metacopy {
		if m.data, err = planted(m.mounter, m.s.layers); err != nil {
			return err
		}
	}
	return m.plant(m.copies)
}

// plant makes layers and the uppers available as they are.
func (m *Mapped) plant(layers *os.File) (err error) {
	if m.layers, err = planted(m.mounter, layers); err != nil {
		return err
	}
	m.uppers, err = planted(m.mounter, m.s.uppers)
	return err
}

// idmap makes the idmapped mounts. Only the uppers' has the extra id for the
// mounter: a layer's file with that id must not become the host root's.
func (m *Mapped) idmap(wider idmap.Pair) (err error) {
	if m.layers, err = idmapped(m.mounter, m.s.layers, m.ns); err != nil {
		return err
	}
	ns, err := userns.New(wider)
	if err != nil {
		return err
	}
	defer ns.Close()
	m.uppers, err = idmapped(m.mounter, m.s.uppers, ns)
	return err
}

// Close lets go of the map. It may be called once.
func (m *Mapped) Close() error {
	m.layers.Close()
	m.uppers.Close()
	m.data.Close()
	fd.CloseAll(m.ns, m.copies)
	return nil
}

// copiesName names the directory of a map's copies: by its root, and by its
// whole text when it is more than one range of 65536 ids.
func copiesName(pair idmap.Pair) string {
	uid, _ := pair.UID.ToHost(0)
	gid, _ := pair.GID.ToHost(0)
	name := fmt.Sprintf("%d.%d", uid, gid)
	if simple(pair.UID) && simple(pair.GID) {
		return name
	}
	sum := sha256.Sum256([]byte(pair.UID.String() + "/" + pair.GID.String()))
	return fmt.Sprintf("%s.%x", name, sum[:8])
}

func simple(m idmap.Map) bool {
	s := m.Spans()
	return len(s) == 1 && s[0].In == 0 && s[0].N == 1<<16
}

var copiesPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9a-f]{16})?$`)

// copyDirs are the directories of copies below a map's. Copies and reflinks are
// the same on disk.
var copyDirs = [...]string{"layers", "shadows"}

// copiesOf opens the directory of a map's copies, making it when missing.
func (s *Store) copiesOf(pair idmap.Pair, way shift.Way) (*os.File, error) {
	dir, err := at.EnsureDir(s.root, copiesName(pair))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if way == shift.Metacopy {
		return at.EnsureDir(dir, copyDirs[1])
	}
	return at.EnsureDir(dir, copyDirs[0])
}

// copyLayer makes sure that the map has its copy of a layer. Several callers
// share one copying, and wait for no other; the copy appears when it is
// complete.
func (m *Mapped) copyLayer(layer string) error {
	if ok, err := at.Exists(m.copies, layer); ok || err != nil {
		return err
	}
	_, err, _ := m.s.copies.Do(string(m.way)+"/"+copiesName(m.pair)+"/"+layer, func() (any, error) {
		return nil, m.makeCopy(layer)
	})
	return err
}

func (m *Mapped) makeCopy(layer string) error {
	src, err := at.SubDir(m.s.layers, layer+"/fs")
	if err != nil {
		return err
	}
	defer src.Close()
	b, err := m.s.newBuilding(layer)
	if err != nil {
		return err
	}
	if err := shift.CopyTree(m.s.ctx, shift.Job{Src: src, Dst: b.Dir, Pair: m.pair, Way: m.way}); err != nil {
		b.Abort()
		return err
	}
	failpoint.Hit("copy-filled")
	return b.publish(m.copies)
}

// DropCopies deletes the copies made for a map, in the background. To be called
// when its ids are given back and no container uses it; without copies it does
// nothing.
func (s *Store) DropCopies(pair idmap.Pair) error {
	if pair.IsZero() {
		return nil
	}
	return s.drops.take(s.root, copiesName(pair))
}

// SweepCopies deletes the copies of all maps but those in keep, in the
// background. To be called at start.
func (s *Store) SweepCopies(keep []idmap.Pair) error {
	kept := map[string]bool{}
	for _, p := range keep {
		kept[copiesName(p)] = true
	}
	return s.eachCopies(func(name string) error {
		if kept[name] {
			return nil
		}
		return s.drops.take(s.root, name)
	})
}

// taker takes the tree name away from a directory; that it is not there is no
// error.
type taker func(from *os.File, name string) error

// eachCopyOf takes away a layer's copies, and the shadows of images that have
// it, under every map.
func (s *Store) eachCopyOf(layer string, take taker) error {
	return s.eachCopies(func(name string) error {
		return errors.Join(s.takeCopy(name+"/"+copyDirs[0], layer, take), s.takeShadows(name+"/"+copyDirs[1], layer, take))
	})
}

func (s *Store) takeCopy(copies, layer string, take taker) error {
	dir, err := at.SubDir(s.root, copies)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return take(dir, layer)
}

func (s *Store) eachCopies(do func(name string) error) error {
	names, err := at.Names(s.root)
	if err != nil {
		return err
	}
	var all error
	for _, n := range names {
		if copiesPattern.MatchString(n) {
			all = errors.Join(all, do(n))
		}
	}
	return all
}
