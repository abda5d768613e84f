package pack

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// node is an entry of the upper, beside what the layers show at its name.
type node struct {
	dir  tree   // of the upper, that holds it
	name string // in dir
	path string // from the root, without a slash before it
	st   *unix.Stat_t
	gone bool     // it is a whiteout
	mask bool     // a directory below which nothing of the layers shows
	mark bool     // it is the one that hides it
	old  found    // in the layers
	self *os.File // the directory itself, when it is one
}

func (n *node) added() bool { return n.old.st == nil }

// visitor is told of every entry of the upper, a directory before and after what
// is in it.
type visitor interface {
	entry(*node) error
	leave(*node) error
}

// walk visits the upper in order of names.
func (s Source) walk(ctx context.Context, v visitor) error {
	if s.Upper == nil {
		return nil
	}
	trees, err := s.top()
	if err != nil {
		return err
	}
	defer shut(trees)
	w := &walker{ctx, v}
	return w.inside(trees[0], trees[1:], "", false)
}

type walker struct {
	ctx context.Context
	v   visitor
}

// inside visits what is in a directory; masked says that nothing of below shows.
func (w *walker) inside(dir tree, below []tree, path string, masked bool) error {
	list, err := names(dir.dir)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := canceled(w.ctx); err != nil {
			return err
		}
		if err := w.one(dir, below, name, join(path, name), masked); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) one(dir tree, below []tree, name, path string, masked bool) error {
	if len(path) > maxName {
		return refused(path, "its path is longer than 4095 bytes", "move or delete it")
	}
	st, err := stat(dir.dir, name)
	if st == nil || err != nil {
		return err
	}
	n := &node{dir: dir, name: name, path: path, st: st, gone: whiteout(dir.dir, name, st)}
	if n.old, err = find(below, name); err != nil {
		return err
	}
	defer shut(n.old.dirs)
	if n.added() && (n.gone || placeholder(dir.dir, name, path, st)) {
		return nil
	}
	if n.gone || !isDir(st) {
		return w.v.entry(n)
	}
	if n.self, err = openDir(dir.dir, name); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	defer n.self.Close()
	n.mark = !masked && isDir(n.old.st) && opaque(n.self)
	n.mask = masked || n.mark
	if err := w.v.entry(n); err != nil {
		return err
	}
	if err := w.inside(tree{n.self, true}, n.old.dirs, path, n.mask); err != nil {
		return err
	}
	return w.v.leave(n)
}
