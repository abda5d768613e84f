package snapshot

import (
	"context"
	"io"
	"os"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/snapshot/pack"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Written names the root file system of a container: a writable layer above
// layers, as it is stored. Nothing is mounted to read it, and it may be in use.
type Written struct {
	Upper  string
	Layers []string // diff ids, lowest first
	Host   bool     // the built-in image below Layers
	Pair   idmap.Pair
	Way    string // by which the writable layer was written, empty: the store's
}

// Changes lists what the container has changed, by the rules of `docker diff`
// and in order of paths.
func (s *Store) Changes(ctx context.Context, w Written) ([]record.Change, error) {
	var out []record.Change
	err := s.read(w, func(src pack.Source, _ []string) (err error) {
		out, err = pack.Changes(ctx, src)
		return err
	})
	return out, err
}

// WriteLayer writes what the container has written as the tar of an image
// layer, with inside ids, and returns how many entries it has; 0 is an
// empty archive. What a layer cannot say is a fault that names the file: see
// pack.Layer.
func (s *Store) WriteLayer(ctx context.Context, to io.Writer, w Written) (entries int64, err error) {
	err = s.read(w, func(src pack.Source, layers []string) error {
		root, err := s.rootChanged(src, layers)
		if err == nil {
			entries, err = pack.Layer(ctx, to, src, root)
		}
		return err
	})
	return entries, err
}

// Export writes the whole root file system as a tar, with inside ids. The
// built-in image's /usr is the host's and not in it: such a container is an
// Unsupported fault.
func (s *Store) Export(ctx context.Context, to io.Writer, w Written) error {
	if w.Host {
		return fault.New(fault.Unsupported, "export", "the built-in image", "its /usr is the host's", "run the container from an image that was pulled or imported")
	}
	return s.read(w, func(src pack.Source, _ []string) error { return pack.Export(ctx, to, src) })
}

// read opens the directories for do. A writable layer that was never mounted is
// empty, and its root is not yet what the layers say it is: it is left out.
func (s *Store) read(w Written, do func(src pack.Source, layers []string) error) error {
	if err := checkUpper(w.Upper); err != nil {
		return err
	}
	layers, err := s.chain(Request{Layers: w.Layers, Host: w.Host, Upper: w.Upper})
	if err != nil {
		return err
	}
	src := pack.Source{}
	if src.Owners, err = s.owners(w.Pair, w.Way); err != nil {
		return err
	}
	var open []*os.File
	defer func() { fd.CloseAll(open...) }()
	for _, l := range layers {
		dir, err := at.SubDir(s.layers, l+"/fs")
		if err != nil {
			return err
		}
		open = append(open, dir)
	}
	src.Lowers = open[:len(open):len(open)]
	used, err := at.Exists(s.uppers, w.Upper+"/work/work")
	if err != nil {
		return err
	}
	if used {
		if src.Upper, err = at.SubDir(s.uppers, w.Upper+"/fs"); err != nil {
			return err
		}
		open = append(open, src.Upper)
	}
	return do(src, layers)
}

// rootChanged reports whether / is another one than the layers say.
func (s *Store) rootChanged(src pack.Source, layers []string) (bool, error) {
	if src.Upper == nil {
		return false, nil
	}
	was, err := s.rootOf(layers)
	if err != nil {
		return false, err
	}
	uid, gid, mode, err := pack.Root(src)
	return was != rootOwner{uid, gid, mode}, err
}

// owners says whose a stored file is. Ids on disk are inside ids, except where
// the way writes host ids. The id that stands for the process that mounts, the
// host's root, is nobody's in the container: what it made there, for the
// container, is the container root's.
func (s *Store) owners(pair idmap.Pair, way string) (pack.Owners, error) {
	if pair.IsZero() {
		return pack.Owners{}, nil
	}
	if way == "" {
		way = string(s.way)
	}
	if HostIDs(way) {
		return pack.Owners{UID: fromHost(pair.UID), GID: fromHost(pair.GID)}, nil
	}
	wider, err := shift.ForMounter(pair)
	if err != nil {
		return pack.Owners{}, err
	}
	return pack.Owners{UID: fromInside(pair.UID, wider.UID), GID: fromInside(pair.GID, wider.GID)}, nil
}

func fromHost(m idmap.Map) func(uint32) (uint32, bool) {
	return func(stored uint32) (uint32, bool) {
		in, ok := m.ToInside(idmap.Host(stored))
		return uint32(in), ok || stored == 0
	}
}

func fromInside(m, wider idmap.Map) func(uint32) (uint32, bool) {
	mounter, _ := wider.ToInside(0)
	if _, ok := m.ToHost(mounter); ok {
		return func(stored uint32) (uint32, bool) { return stored, true }
	}
	return func(stored uint32) (uint32, bool) {
		if idmap.Inside(stored) == mounter {
			return 0, true
		}
		return stored, true
	}
}
