package pack

import (
	"bytes"
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/record"
)

// Changes lists what differs from the layers, in order of paths, by the rules
// of `docker diff`: a file is changed when its type, mode, owner, size, time of
// modification or file capability is another one; a directory when its mode or
// owner is, or when something in it is listed; what was in a directory that is
// gone is not listed, what is in a new one is.
func Changes(ctx context.Context, s Source) ([]record.Change, error) {
	l := &lister{s: s}
	if err := s.walk(ctx, l); err != nil {
		return nil, err
	}
	return l.out, nil
}

type lister struct {
	s     Source
	out   []record.Change
	open  []int // length of out when a directory was entered
	known []bool
}

func (l *lister) add(k record.ChangeKind, path string) {
	l.out = append(l.out, record.Change{Kind: k, Path: "/" + path})
}

func (l *lister) entry(n *node) error {
	enters := n.self != nil
	before := len(l.out)
	switch {
	case n.gone:
		l.add(record.Deleted, n.path)
	case n.added():
		l.add(record.Added, n.path)
	case l.changed(n):
		l.add(record.Modified, n.path)
	}
	if !enters {
		return nil
	}
	l.open, l.known = append(l.open, len(l.out)), append(l.known, len(l.out) > before)
	if n.mask && isDir(n.old.st) {
		return l.hidden(n)
	}
	return nil
}

// leave notes a directory in which something has changed before what is in it.
func (l *lister) leave(n *node) error {
	last := len(l.open) - 1
	start, known := l.open[last], l.known[last]
	l.open, l.known = l.open[:last], l.known[:last]
	if len(l.out) == start {
		return nil
	}
	if n.mask { // what it hides was listed first
		slices.SortStableFunc(l.out[start:], func(a, b record.Change) int { return comparePaths(a.Path, b.Path) })
	}
	if !known {
		l.out = slices.Insert(l.out, start, record.Change{Kind: record.Modified, Path: "/" + n.path})
	}
	return nil
}

// comparePaths orders paths as a walk meets them: a directory, what is in it,
// its neighbours.
func comparePaths(a, b string) int {
	return bytes.Compare(bytes.ReplaceAll([]byte(a), []byte("/"), []byte{0}), bytes.ReplaceAll([]byte(b), []byte("/"), []byte{0}))
}

// hidden lists what a directory that was made anew hides.
func (l *lister) hidden(n *node) error {
	old, err := union(n.old.dirs)
	if err != nil {
		return err
	}
	for _, name := range old {
		st, err := stat(n.self, name)
		if err != nil {
			return err
		}
		if st == nil {
			l.add(record.Deleted, join(n.path, name))
		}
	}
	return nil
}

// changed compares an entry with what the layers have. One whose owner is not in
// the container's map is another one.
func (l *lister) changed(n *node) bool {
	st, old := n.st, n.old.st
	uid, gid, err := l.s.owner(n.dir, st, n.path)
	if err != nil || st.Mode != old.Mode || st.Rdev != old.Rdev || uid != int(old.Uid) || gid != int(old.Gid) {
		return true
	}
	if isDir(st) {
		return false
	}
	return st.Size != old.Size || st.Mtim != old.Mtim || !sameCapability(n)
}

// sameCapability compares the file capabilities but for whose root they are of:
// a copied layer and an upper differ in that.
func sameCapability(n *node) bool {
	if kind(n.st) != unix.S_IFREG {
		return true
	}
	read := func(t tree) []byte {
		raw, err := at.Xattr(fd.Path(t.dir)+"/"+n.name, capability)
		if err != nil || len(raw) < sysx.CapSize2 {
			return nil
		}
		return raw[4:sysx.CapSize2]
	}
	return bytes.Equal(read(n.dir), read(n.old.in))
}
