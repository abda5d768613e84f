package shift

import (
	"os"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/mnt"
)

// Overlay is a root file system to be mounted.
type Overlay struct {
	Lowers   []Dir // topmost first
	Data     []Dir // what files of Lowers, then a shadow, stand for, topmost first; not visible themselves
	Upper    Dir   // holds fs and work; zero: nothing is writable, for nobody
	Volatile bool  // never sync the upper (Linux 5.10)
}

// Dir is a directory of a tree, "." for the tree itself.
type Dir struct {
	Tree *Tree
	Name string
}

// writable reports whether the overlay has an upper.
func (o Overlay) writable() bool { return o.Upper.Tree != nil }

// Mounter mounts overlays.
type Mounter interface {
	// Plant makes root, a directory or a detached mount, known as the place of
	// layers or of uppers. The tree owns root from now on, also on failure.
	Plant(root *os.File) (*Tree, error)
	// Mount returns a detached mount of the overlay, which the caller closes.
	// Nodes in it are no devices; it is not nosuid.
	Mount(o Overlay) (*os.File, error)
	// Close ends the mounter. Mounts it made live on; its trees are dead.
	Close()
}

// Tree is a planted directory.
type Tree struct {
	Root *os.File
	name string // where it is attached on a stage
	stop func()
}

// Close forgets the tree. Overlays made of it live on.
func (t *Tree) Close() {
	if t == nil {
		return
	}
	if t.stop != nil {
		t.stop()
	}
	t.Root.Close()
}

// options are set explicitly, as a module parameter or the kernel's
// configuration can turn each of them on. metacopy and redirect_dir would let
// a forged trusted.overlay.* attribute in a layer reach any file below
// (overlayfs.rst, "do not use with untrusted layers"); index and nfs_export
// tie an upper to the file handles of its layers; xino changes inode numbers.
//
// A shadow needs none of them: Linux 6.16 follows a redirect from a lower layer
// into the data layers all the same (commit 5ef7bcdeecc9). It must be the only
// lower layer: from one above another nothing is followed (EPERM, "refusing to
// follow metacopy origin"; do_ovl_lookup of fs/overlayfs/namei.c checks before
// each further layer). Before 6.16 shadows needed metacopy=on, with which a
// chown in the container would leave uppers that are no whole files; so they
// are not used there.
var options = [...][2]string{
	{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "nofollow"}, {"nfs_export", "off"}, {"xino", "off"},
}

// Direct mounts overlays whose layers are given by descriptor.
//
// v6.13: FSCONFIG_SET_FD for lowerdir+, upperdir and workdir (overlayfs.rst).
// v6.15: layers may lie on detached mounts. Before: EINVAL.
type Direct struct{}

// Plant only remembers root.
func (Direct) Plant(root *os.File) (*Tree, error) { return &Tree{Root: root}, nil }

// Close does nothing.
func (Direct) Close() {}

// Mount opens each layer below its tree and hands the descriptors over. They
// stay open until the overlay exists: closed earlier the kernel fails with
// EINVAL ("failed to clone lowerpath").
func (Direct) Mount(o Overlay) (*os.File, error) {
	ctx := mnt.NewFS("overlay")
	defer ctx.Close()
	var open []*os.File
	defer func() { fd.CloseAll(open...) }()
	add := func(option string, d Dir, sub string) error {
		f, err := at.Beneath(d.Tree.Root, d.Name+sub, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		open = append(open, f)
		ctx.FD(option, f)
		return nil
	}
	for _, lower := range o.Lowers {
		if err := add("lowerdir+", lower, ""); err != nil {
			return nil, err
		}
	}
	for _, data := range o.Data {
		if err := add("datadir+", data, ""); err != nil {
			return nil, err
		}
	}
	if o.writable() {
		if err := add("upperdir", o.Upper, "/fs"); err != nil {
			return nil, err
		}
		if err := add("workdir", o.Upper, "/work"); err != nil {
			return nil, err
		}
	}
	for _, kv := range options {
		ctx.Set(kv[0], kv[1])
	}
	if o.Volatile && o.writable() {
		ctx.Flag("volatile")
	}
	return ctx.Mount(mnt.NoDev)
}
