package at

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattrs lists the extended attributes of path, whose last component is not
// followed; none where the file system has no such attributes (listxattr(2)).
// Errors are bare errnos.
func Xattrs(path string) ([]string, error) {
	return XattrNames(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
}

// Xattr returns the value of one attribute of path, as Xattrs finds it.
func Xattr(path, name string) ([]byte, error) {
	return XattrValue(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// XattrNames is Xattrs of what list, one of the calls of listxattr(2), is about.
func XattrNames(list func([]byte) (int, error)) ([]string, error) {
	buf, err := XattrValue(list)
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(buf) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(buf), "\x00"), "\x00"), nil
}

// XattrValue is Xattr of what get, one of the calls of getxattr(2), is about. It
// is called with growing buffers: attributes are limited to 64 KiB (xattr(7)),
// lists of names too.
func XattrValue(get func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := get(buf)
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > 1<<17 {
			return nil, err
		}
	}
}
