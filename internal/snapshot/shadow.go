package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/snapshot/shift"
	"fief/internal/words/failpoint"
)

// shadowName names the shadow of a chain of layers. There is one for a chain
// and not one for a layer: the kernel reads a shadow in the lowest layer only
// (shift.Overlay). Images that share layers share what the files hold, which
// stays in the layers, and the page cache, but not the shadow's inodes.
func shadowName(layers []string) string {
	sum := sha256.Sum256([]byte(strings.Join(layers, "/")))
	return fmt.Sprintf("%x", sum[:shortLen/2])
}

// listName is where a shadow says of which layers it is, a line for each,
// topmost first.
const listName = "layers"

// shadow makes sure that the map has the shadow of a chain of layers, topmost
// first, and returns its name. Several callers share one making, and wait for no
// other; the shadow appears when it is complete.
func (m *Mapped) shadow(layers []string) (string, error) {
	name := shadowName(layers)
	if ok, err := at.Exists(m.copies, name); ok || err != nil {
		return name, err
	}
	_, err, _ := m.s.copies.Do("shadow/"+copiesName(m.pair)+"/"+name, func() (any, error) {
		return nil, m.makeShadow(name, layers)
	})
	return name, err
}

// makeShadow walks the image as an overlay shows it. What is a regular file
// there is one in the topmost layer that has something at its path, which is
// where the kernel looks first.
func (m *Mapped) makeShadow(name string, layers []string) error {
	src, err := m.merged(layers)
	if err != nil {
		return err
	}
	defer src.Close()
	b, err := m.s.newBuilding(name)
	if err != nil {
		return err
	}
	err = shift.CopyTree(m.s.ctx, shift.Job{Src: src, Dst: b.Dir, Pair: m.pair, Way: shift.Metacopy})
	if err == nil {
		err = writeList(m.s.build, b.name, layers)
	}
	if err != nil {
		b.Abort()
		return err
	}
	failpoint.Hit("shadow-filled")
	return b.publish(m.copies)
}

// merged returns what a chain of layers looks like, with the ids on disk.
func (m *Mapped) merged(layers []string) (*os.File, error) {
	if len(layers) == 1 {
		return at.SubDir(m.s.layers, layers[0]+"/fs")
	}
	return m.mounter.Mount(shift.Overlay{Lowers: dirsOf(m.data, layers)})
}

func dirsOf(tree *shift.Tree, layers []string) []shift.Dir {
	out := make([]shift.Dir, len(layers))
	for i, l := range layers {
		out[i] = shift.Dir{Tree: tree, Name: l + "/fs"}
	}
	return out
}

func writeList(build *os.File, name string, layers []string) error {
	err := os.WriteFile(fd.Path(build)+"/"+name+"/"+listName, []byte(strings.Join(layers, "\n")), 0o600)
	return sysx.Fault("write", name+"/"+listName, err)
}

// takeShadows takes away the shadows below path that need a layer.
func (s *Store) takeShadows(path, layer string, take taker) error {
	dir, err := at.SubDir(s.root, path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := at.Names(dir)
	for _, name := range names {
		list, e := os.ReadFile(fd.Path(dir) + "/" + name + "/" + listName)
		if errors.Is(e, unix.ENOENT) {
			continue
		}
		if e == nil && slices.Contains(strings.Split(string(list), "\n"), layer) {
			e = take(dir, name)
		}
		err = errors.Join(err, sysx.Fault("drop", path+"/"+name, e))
	}
	return err
}
