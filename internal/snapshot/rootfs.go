package snapshot

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
	"fief/internal/kernel/sysx"
	"fief/internal/snapshot/shift"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// Request asks for a root file system.
type Request struct {
	Mapped *Mapped
	Layers []string // diff ids, lowest first; none: an empty image
	Host   bool     // the built-in image below Layers
	Upper  string   // from NewUpper; empty: nothing can be written
	// ReadOnly says that the caller makes the root read-only. The mount
	// returned is writable all the same when there is an Upper: mount points
	// must be made first.
	ReadOnly bool
	Volatile bool // the upper dies with the container: never sync it
	// Unlocked leaves out nodev, for who makes the mount read-only in a user
	// namespace without knowing its flags: runsc's remount of the root would take
	// the flag away, which is locked there (mount_namespaces(7)), and fail. Nodes on
	// the root are dead in a user namespace without the flag, and never unpacked.
	Unlocked bool
}

// ExtraMount is a mount that belongs to the root file system: FD goes to
// Target, an absolute path that exists in it.
type ExtraMount struct {
	Target string
	FD     *os.File
}

// Root is a root file system. FD is a detached overlay mount; in Extra are
// detached mounts to be put into it. Device nodes stored in the root are dead.
type Root struct {
	FD    *os.File
	Extra []ExtraMount
	Way   string // how stored files appear under the map
	Why   string // why the store has no better way, if this is the store's
}

// Close closes all descriptors of the root: what was attached lives on.
func (r *Root) Close() {
	for _, e := range r.Extra {
		e.FD.Close()
	}
	fd.CloseAll(r.FD)
}

// Rootfs joins layers and upper to a mount. The caller closes the Root. An
// upper must not be in use by another root file system. With
// ways that write host ids, the first call for a map makes what is missing.
func (s *Store) Rootfs(r Request) (Root, error) {
	layers, err := s.chain(r)
	if err != nil {
		return Root{}, err
	}
	root, err := s.mountRoot(r, layers)
	if err != nil {
		return Root{}, s.missing(layers, err)
	}
	return root, nil
}

// missing is err, or the reason behind it when a layer is not there.
func (s *Store) missing(layers []string, err error) error {
	for _, name := range layers {
		if there, look := at.Exists(s.layers, name+"/fs"); look == nil && !there {
			return fault.New(fault.Corrupt, "use layer", name, "its directory is missing", "fief system verify --repair makes it anew, or says what does")
		}
	}
	return err
}

// writable refuses an overlay that the kernel has made read-only because it could
// not make a directory below work (fs/overlayfs/super.c, ovl_make_workdir), which
// it tells the kernel's log only: a full disk.
func (s *Store) writable(mount *os.File, upper string) error {
	var root, disk unix.Statfs_t
	if err := errors.Join(unix.Fstatfs(int(mount.Fd()), &root), unix.Fstatfs(int(s.uppers.Fd()), &disk)); err != nil {
		return sysx.Fault("look at", "the root file system", err)
	}
	if root.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	// xfs wants room for 64 inodes at once, and keeps some back.
	const bytes, inodes = 4 << 20, 128
	if disk.Bavail*uint64(disk.Bsize) < bytes || disk.Files > 0 && disk.Ffree < inodes {
		return fault.Wrap(fault.Exhausted, "make the root file system in", s.uppers.Name()+"/"+upper, unix.ENOSPC, "free some space below the data root")
	}
	return fault.Wrap(fault.Internal, "make the root file system in", s.uppers.Name()+"/"+upper, unix.EROFS, "the kernel's log says why it cannot be written to")
}

func (s *Store) mountRoot(r Request, layers []string) (Root, error) {
	m := r.Mapped
	overlay, err := m.overlay(r, layers)
	if err != nil {
		return Root{}, err
	}
	if r.Upper != "" {
		owner, err := s.rootOf(layers)
		if err != nil {
			return Root{}, err
		}
		if err := s.prepareUpper(r, owner); err != nil {
			return Root{}, err
		}
	}
	mount, err := m.mounter.Mount(overlay)
	if err != nil {
		return Root{}, err
	}
	if r.Upper != "" {
		if err := s.writable(mount, r.Upper); err != nil {
			mount.Close()
			return Root{}, err
		}
	}
	if r.Unlocked {
		if err := mnt.SetAttr(mount, mnt.Attr{Clear: mnt.NoDev}, false); err != nil {
			mount.Close()
			return Root{}, err
		}
	}
	root := Root{FD: mount, Way: string(m.way)}
	if m.way == s.way {
		root.Why = s.why()
	}
	if r.Host {
		if err := m.addHost(&root); err != nil {
			root.Close()
			return Root{}, err
		}
	}
	return root, nil
}

// chain returns the layers' directories, topmost first. An overlay needs one
// layer, and two when nothing can be written (overlayfs.rst): empty ones make
// up the number.
func (s *Store) chain(r Request) ([]string, error) {
	var out []string
	for _, id := range slices.Backward(r.Layers) {
		name, err := short(id)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	if r.Host {
		name, err := s.hostLayer()
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	least := 1
	if r.Upper == "" {
		least = 2
	}
	for len(out) < least {
		name, err := s.builtin("empty"+strconv.Itoa(len(out)), nil)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, nil
}

// overlay says what to mount, having made what is missing for it.
func (m *Mapped) overlay(r Request, layers []string) (shift.Overlay, error) {
	o := shift.Overlay{Volatile: r.Volatile}
	if r.Upper != "" {
		o.Upper = shift.Dir{Tree: m.uppers, Name: r.Upper}
	}
	if m.way == shift.Metacopy {
		name, err := m.shadow(layers)
		o.Lowers, o.Data = dirsOf(m.layers, []string{name}), dirsOf(m.data, layers)
		return o, err
	}
	o.Lowers = dirsOf(m.layers, layers)
	if !m.way.HostIDs() {
		return o, nil
	}
	for _, l := range layers {
		if err := m.copyLayer(l); err != nil {
			return o, err
		}
	}
	return o, nil
}

// rootOwner is owner and mode of a root directory, with inside ids.
type rootOwner struct {
	uid, gid uint32
	mode     uint32
}

var defaultRoot = rootOwner{0, 0, 0o755}

// rootOf finds what / of an image looks like. The root of an overlay has owner
// and mode of the upper's directory, whatever the layers say, and a layer
// whose archive says nothing about / has a default one: so the topmost layer
// with another root decides.
func (s *Store) rootOf(layers []string) (rootOwner, error) {
	for _, l := range layers {
		o, err := s.layerRoot(l)
		if err != nil {
			return rootOwner{}, err
		}
		if o != defaultRoot {
			return o, nil
		}
	}
	return defaultRoot, nil
}

func (s *Store) layerRoot(layer string) (rootOwner, error) {
	s.mu.Lock()
	o, ok := s.roots[layer]
	s.mu.Unlock()
	if ok {
		return o, nil
	}
	dir, err := at.SubDir(s.layers, layer+"/fs")
	if err != nil {
		return o, err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return o, sysx.Fault("look at", dir.Name(), err)
	}
	o = rootOwner{st.Uid, st.Gid, st.Mode & 0o7777}
	s.mu.Lock()
	s.roots[layer] = o
	s.mu.Unlock()
	return o, nil
}

// onDisk returns the owner that a directory needs on disk to appear as o.
func (m *Mapped) onDisk(o rootOwner) rootOwner {
	if !m.way.HostIDs() {
		return o
	}
	return rootOwner{host(m.pair.UID, o.uid), host(m.pair.GID, o.gid), o.mode}
}

// host maps an id; / must belong to somebody in the container, so an id the
// map lacks becomes its root.
func host(m idmap.Map, id uint32) uint32 {
	h, ok := m.ToHost(idmap.Inside(id))
	if !ok {
		h, _ = m.ToHost(0)
	}
	return uint32(h)
}

// chmod changes the mode of an O_PATH directory, through /proc as open(2) says.
func chmod(f *os.File, mode uint32) error {
	return sysx.Fault("set mode of", f.Name(), unix.Chmod(fd.Path(f), mode))
}
