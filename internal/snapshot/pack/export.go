package pack

import (
	"context"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Export writes the whole root file system as a tar, the way `docker export`
// does: without the contents of mounts, with the ids of the container, and with
// an entry for / only when it is not root's with mode 0755. Faults are those of
// Layer.
func Export(ctx context.Context, to io.Writer, s Source) error {
	trees, err := s.top()
	if err != nil {
		return err
	}
	defer shut(trees)
	x := &exporter{newWriter(ctx, s, to)}
	if len(trees) > 0 {
		h, err := s.rootHeader(trees[0])
		if err != nil {
			return err
		}
		if h.Mode != 0o755 || h.Uid != 0 || h.Gid != 0 {
			if err := x.put(h); err != nil {
				return err
			}
		}
	}
	if err := x.inside(trees, ""); err != nil {
		return err
	}
	return x.finish()
}

type exporter struct{ *writer }

func (x *exporter) inside(stack []tree, path string) error {
	list, err := union(stack)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := canceled(x.ctx); err != nil {
			return err
		}
		if err := x.one(stack, name, join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) one(stack []tree, name, path string) error {
	f, err := find(stack, name)
	if f.st == nil || err != nil {
		return err
	}
	defer shut(f.dirs)
	if !isDir(f.st) {
		return x.file(f.in, name, path, f.st)
	}
	h, err := x.s.header(f.in, name, path, f.st)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := x.put(h); err != nil {
		return err
	}
	return x.inside(f.dirs, path)
}

// union lists the names in joined directories, in order; whiteouts are among
// them.
func union(stack []tree) ([]string, error) {
	var all []string
	for _, t := range stack {
		list, err := names(t.dir)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func mtime(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }
