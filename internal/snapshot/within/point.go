package within

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/words/idmap"
)

// MakePoint makes what something can be mounted on, a directory or an empty file
// with the missing directories above it, as the container's root would. What is
// there already stays as it is. Faults as of Extract.
func MakePoint(root *os.File, pair idmap.Pair, unsafePath string, dir bool) error {
	t, err := newTree(root, pair)
	if err != nil {
		return err
	}
	defer t.root.Close()
	w := &writer{tree: t, ctx: context.Background(), to: Target{Root: root, Pair: pair, Path: "/"}}
	if w.dir, err = at.InRoot(t.root, "/", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		return err
	}
	defer w.dir.Close()
	defer w.keep("", nil)
	name := strings.TrimPrefix(path.Clean("/"+unsafePath), "/")
	return asRoot(pair, func() error {
		if dir {
			_, err := w.parent(path.Join(name, "."))
			return err
		}
		above, err := w.parent(path.Dir(name))
		if err != nil {
			return err
		}
		fd, err := unix.Openat(int(above.Fd()), path.Base(name), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		if err != nil {
			return w.fault("make", name, err)
		}
		return unix.Close(fd)
	})
}
