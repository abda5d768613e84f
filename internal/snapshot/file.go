package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// Open opens a regular file for reading as a root file system of these layers
// and this upper (empty: none) would show it, without mounting one. name is
// relative; a symbolic link on the way is not followed but a Denied fault. The
// owners of what it finds are those on disk. NotFound when there is no such
// file. The caller closes it.
func (s *Store) Open(upper string, layers []string, name string) (*os.File, error) {
	var trees []*os.File
	defer func() { fd.CloseAll(trees...) }()
	if upper != "" {
		if err := checkUpper(upper); err != nil {
			return nil, err
		}
		dir, err := at.SubDir(s.uppers, upper+"/fs")
		if err == nil {
			trees = append(trees, dir)
		} else if !fault.Is(err, fault.NotFound) { // never started: nothing was written
			return nil, err
		}
	}
	for _, id := range slices.Backward(layers) {
		layer, err := short(id)
		if err != nil {
			return nil, err
		}
		dir, err := at.SubDir(s.layers, layer+"/fs")
		if err != nil {
			return nil, err
		}
		trees = append(trees, dir)
	}
	for _, tree := range trees {
		f, last, err := openIn(tree, path.Clean(name))
		if f != nil || err != nil {
			return f, err
		}
		if last {
			break
		}
	}
	return nil, fault.New(fault.NotFound, "open in layers", name, "no layer has it", "")
}

// openIn looks for a file in one layer. last says that nothing below this layer
// shows through: a part of the name is whited out, or its directory is opaque
// (overlayfs.rst, "whiteouts and opaque directories").
func openIn(tree *os.File, name string) (f *os.File, last bool, err error) {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		part, err := at.Beneath(tree, name[:i], unix.O_PATH|unix.O_NOFOLLOW)
		if fault.Is(err, fault.NotFound) {
			return nil, last, nil
		}
		if err != nil {
			return nil, false, err
		}
		var st unix.Stat_t
		err = sysx.Fault("look at", part.Name(), unix.Fstat(int(part.Fd()), &st))
		opaque := isOpaque(part)
		part.Close()
		switch kind := st.Mode & unix.S_IFMT; {
		case err != nil:
			return nil, false, err
		case kind == unix.S_IFCHR && st.Rdev == 0:
			return nil, true, nil
		case i == len(name) && kind == unix.S_IFREG:
			f, err := at.Beneath(tree, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME)
			return f, true, err
		case i == len(name), kind != unix.S_IFDIR:
			return nil, false, fault.Wrap(fault.Denied, "open in layers", name, errors.New("it is not a regular file in directories"), "")
		}
		last = last || opaque
	}
	return nil, last, fs.ErrInvalid
}

// isOpaque reads the mark of a directory; f may be an O_PATH descriptor.
func isOpaque(f *os.File) bool {
	var mark [2]byte
	n, err := unix.Getxattr(fd.Path(f), "trusted.overlay.opaque", mark[:])
	return err == nil && n == 1 && mark[0] == 'y'
}
