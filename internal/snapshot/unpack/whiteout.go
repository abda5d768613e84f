package unpack

import (
	"errors"

	"golang.org/x/sys/unix"
)

// opaqueMark says that a directory hides what layers below have at its name
// (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
// directories").
var opaqueMark = xattr{"trusted.overlay.opaque", []byte("y")}

// whiteout makes name hide what layers below have there: a character device
// 0:0, as overlayfs wants it. A whiteout never hides what its own layer has
// (OCI image layer spec): that stays, and a directory becomes opaque.
func (u *unpacker) whiteout(parent int, name string) error {
	if err := u.remember(name, 0); err != nil {
		return err
	}
	u.gone[name] = true
	_, base := split(name)
	err := again(func() error { return unix.Mknodat(parent, base, unix.S_IFCHR, 0) })
	if !errors.Is(err, unix.EEXIST) {
		return sysFault("make whiteout", name, err)
	}
	kind, err := kindOf(parent, base)
	if err != nil {
		return sysFault("look at", name, err)
	}
	if kind == unix.S_IFDIR {
		return u.makeOpaque(name)
	}
	return nil
}

// makeOpaque marks the directory of that name.
func (u *unpacker) makeOpaque(name string) error {
	if name == "." {
		u.facts.Opaque = true
		return nil
	}
	fd, err := u.dirs.open(name)
	if err != nil {
		return sysFault("open directory", name, err)
	}
	return setXattrs(fd, ".", name, []xattr{opaqueMark})
}
