package pack

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
)

const whiteoutPrefix = ".wh."

// Layer writes what the container wrote as the tar of an image layer (OCI image
// layer spec) and returns how many entries it has; 0 is an empty archive. A
// directory is in it when its mode, owner or attributes are not those of the
// layers, or when something below it is: its time alone is not kept. root says
// that / is not as the layers have it, and gets an entry.
//
// Faults: Invalid for what a layer cannot say (a name that begins with .wh.,
// a device node outside /dev, a path of more than 4095 bytes), Conflict for an
// owner that is not in the container's map, Canceled. Errors of to come back.
func Layer(ctx context.Context, to io.Writer, s Source, root bool) (int64, error) {
	l := &layer{writer: newWriter(ctx, s, to)}
	if root && s.Upper != nil {
		if err := l.root(); err != nil {
			return 0, err
		}
	}
	if err := s.walk(ctx, l); err != nil {
		return 0, err
	}
	return l.entries, l.finish()
}

type layer struct {
	*writer
	held []*tar.Header // directories that are written when something in them is; nil: those that were
}

// root writes the entry of / itself.
func (l *layer) root() error {
	trees, err := Source{Upper: l.s.Upper}.top()
	if err != nil {
		return err
	}
	defer shut(trees)
	h, err := l.s.rootHeader(trees[0])
	if err != nil {
		return err
	}
	return l.put(h)
}

func (s Source) rootHeader(t tree) (*tar.Header, error) {
	st, err := self(t.dir)
	if err != nil {
		return nil, err
	}
	return s.header(t, ".", ".", st)
}

// flush writes the directories that lead to an entry.
func (l *layer) flush() error {
	for i, h := range l.held {
		if h == nil {
			continue
		}
		if err := l.put(h); err != nil {
			return err
		}
		l.held[i] = nil
	}
	return nil
}

func (l *layer) entry(n *node) error {
	if strings.HasPrefix(n.name, whiteoutPrefix) {
		return refused(n.path, "names that begin with .wh. mean deletion in an image layer", "rename it")
	}
	if n.self != nil {
		return l.dir(n)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if n.gone {
		return l.mark(n, join(parent(n), whiteoutPrefix+n.name))
	}
	return l.file(n.dir, n.name, n.path, n.st)
}

func parent(n *node) string { return strings.TrimSuffix(n.path[:len(n.path)-len(n.name)], "/") }

// mark writes an empty file whose name says something.
func (l *layer) mark(n *node, name string) error {
	if err := fits(name); err != nil {
		return err
	}
	return l.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: mtime(n.st), Format: tar.FormatPAX})
}

func (l *layer) dir(n *node) error {
	h, err := l.s.header(n.dir, n.name, n.path, n.st)
	if err != nil {
		return err
	}
	same := !n.mask && isDir(n.old.st)
	if same {
		old, err := l.s.header(n.old.in, n.name, n.path, n.old.st)
		if err != nil {
			return err
		}
		same = alike(h, old)
	}
	l.held = append(l.held, h)
	if same {
		return nil
	}
	if err := l.flush(); err != nil {
		return err
	}
	if n.mark {
		return l.mark(n, n.path+"/"+whiteoutPrefix+whiteoutPrefix+".opq")
	}
	return nil
}

func (l *layer) leave(*node) error {
	l.held = l.held[:len(l.held)-1]
	return nil
}

// Root returns owner and mode of the upper's root, with inside ids.
func Root(s Source) (uid, gid, mode uint32, err error) {
	st, err := self(s.Upper)
	if err != nil {
		return 0, 0, 0, err
	}
	u, g, err := s.owner(tree{s.Upper, true}, st, "/")
	return uint32(u), uint32(g), st.Mode & 0o7777, err
}

// self looks at a directory itself.
func self(dir *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(dir.Fd()), &st)
	return &st, sysx.Fault("look at", dir.Name(), err)
}
