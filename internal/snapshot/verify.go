package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/at"
	"fief/internal/kernel/fd"
	"fief/internal/kernel/sysx"
	"fief/internal/words/fault"
)

// maxDifferences is how many are told of one layer: the first say what happened.
const maxDifferences = 20

// Differences compares a stored layer with b, the same layer unpacked once
// more, and returns what is not the same, each in a few words: names, types,
// owners, modes, sizes, modification times, link counts and targets, extended
// attributes, and every byte of every file. None means that the layer is as it
// was unpacked. b stays the caller's, who aborts it.
func (s *Store) Differences(ctx context.Context, id string, b *Building) ([]string, error) {
	name, err := short(id)
	if err != nil {
		return nil, err
	}
	stored, err := at.SubDir(s.layers, name+"/fs")
	if fault.Is(err, fault.NotFound) {
		return []string{"the directory is missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	defer stored.Close()
	c := &comparer{ctx: ctx, one: make([]byte, 256<<10), two: make([]byte, 256<<10)}
	var is, want unix.Stat_t
	if err := errors.Join(unix.Fstat(int(stored.Fd()), &is), unix.Fstat(int(b.Dir.Fd()), &want)); err != nil {
		return nil, sysx.Fault("look at", "layer", err)
	}
	c.stat("/", &is, &want)
	if err := c.attributes("/", fd.Path(stored), fd.Path(b.Dir)); err != nil {
		return nil, err
	}
	err = c.dirs("", stored, b.Dir)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return c.found, err
}

var errEnough = errors.New("enough differences")

type comparer struct {
	ctx      context.Context
	found    []string
	one, two []byte
}

// differ notes a difference at path, which may hold anything.
func (c *comparer) differ(path, format string, args ...any) {
	c.found = append(c.found, strconv.Quote(strings.ToValidUTF8(path, "?"))+" "+fmt.Sprintf(format, args...))
}

// dirs compares the entries of two directories, the stored one first, and all
// that is below them.
func (c *comparer) dirs(path string, is, want *os.File) error {
	have, err := at.Names(is)
	if err != nil {
		return err
	}
	wanted, err := at.Names(want)
	if err != nil {
		return err
	}
	slices.Sort(have)
	slices.Sort(wanted)
	for _, n := range have {
		if _, ok := slices.BinarySearch(wanted, n); !ok {
			c.differ(path+"/"+n, "does not belong there")
		}
	}
	for _, n := range wanted {
		if len(c.found) >= maxDifferences {
			return errEnough
		}
		if err := c.ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, "compare", "layer", err, "")
		}
		if _, ok := slices.BinarySearch(have, n); !ok {
			c.differ(path+"/"+n, "is missing")
			continue
		}
		if err := c.entry(path+"/"+n, n, is, want); err != nil {
			return err
		}
	}
	return nil
}

// entry compares what two directories have under one name.
func (c *comparer) entry(path, name string, is, want *os.File) error {
	var a, b unix.Stat_t
	err := errors.Join(unix.Fstatat(int(is.Fd()), name, &a, unix.AT_SYMLINK_NOFOLLOW),
		unix.Fstatat(int(want.Fd()), name, &b, unix.AT_SYMLINK_NOFOLLOW))
	if err != nil {
		return sysx.Fault("look at", path, err)
	}
	if !c.stat(path, &a, &b) {
		return nil
	}
	if err := c.attributes(path, fd.Path(is)+"/"+name, fd.Path(want)+"/"+name); err != nil {
		return err
	}
	switch b.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.both(name, is, want, unix.O_PATH|unix.O_DIRECTORY, func(x, y *os.File) error { return c.dirs(path, x, y) })
	case unix.S_IFREG:
		if a.Size != b.Size {
			return nil // said already
		}
		return c.both(name, is, want, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, func(x, y *os.File) error { return c.content(path, x, y) })
	case unix.S_IFLNK:
		return c.target(path, name, is, want)
	}
	return nil
}

// stat compares what stat(2) says; false when the two are of different kinds.
func (c *comparer) stat(path string, is, want *unix.Stat_t) bool {
	if is.Mode&unix.S_IFMT != want.Mode&unix.S_IFMT {
		c.differ(path, "is of type %#o, not %#o", is.Mode&unix.S_IFMT, want.Mode&unix.S_IFMT)
		return false
	}
	if is.Mode != want.Mode {
		c.differ(path, "has mode %#o, not %#o", is.Mode&0o7777, want.Mode&0o7777)
	}
	if is.Uid != want.Uid || is.Gid != want.Gid {
		c.differ(path, "belongs to %d:%d, not %d:%d", is.Uid, is.Gid, want.Uid, want.Gid)
	}
	if is.Rdev != want.Rdev {
		c.differ(path, "is device %#x, not %#x", is.Rdev, want.Rdev)
	}
	// What a whiteout or a directory the tar left out was made at, nobody has noted.
	if is.Mode&unix.S_IFMT == unix.S_IFDIR || is.Mode&unix.S_IFMT == unix.S_IFCHR {
		return true
	}
	if is.Size != want.Size {
		c.differ(path, "has %d bytes, not %d", is.Size, want.Size)
	}
	if is.Nlink != want.Nlink {
		c.differ(path, "has %d names, not %d", is.Nlink, want.Nlink)
	}
	if is.Mtim != want.Mtim {
		c.differ(path, "was changed at %d.%09d, not %d.%09d", is.Mtim.Sec, is.Mtim.Nsec, want.Mtim.Sec, want.Mtim.Nsec)
	}
	return true
}

// both opens one name in two directories and compares what it is.
func (c *comparer) both(name string, is, want *os.File, flags int, compare func(x, y *os.File) error) error {
	x, err := openat(is, name, flags)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := openat(want, name, flags)
	if err != nil {
		return err
	}
	defer y.Close()
	return compare(x, y)
}

func openat(dir *os.File, name string, flags int) (*os.File, error) {
	n, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, sysx.Fault("open", name, err)
	}
	return fd.Wrap(n, "entry"), nil
}

// content compares two files of one size. What the disk cannot read is a
// difference, and the rest is still looked at.
func (c *comparer) content(path string, is, want *os.File) error {
	for at := int64(0); ; {
		n, err := io.ReadFull(want, c.two)
		if n == 0 && err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return sysx.Fault("read", "what was unpacked again", err)
		}
		if _, readErr := io.ReadFull(is, c.one[:n]); readErr != nil {
			c.differ(path, "cannot be read from byte %d on: %v", at, errors.Unwrap(readErr))
			return nil
		}
		if !bytes.Equal(c.one[:n], c.two[:n]) {
			for c.one[0] == c.two[0] && n > 1 && bytes.Equal(c.one[:n/2], c.two[:n/2]) {
				at += int64(n / 2)
				copy(c.one, c.one[n/2:n])
				copy(c.two, c.two[n/2:n])
				n -= n / 2
			}
			c.differ(path, "has other content, near byte %d", at)
			return nil
		}
		at += int64(n)
	}
}

func (c *comparer) target(path, name string, is, want *os.File) error {
	n, err := unix.Readlinkat(int(is.Fd()), name, c.one)
	m, err2 := unix.Readlinkat(int(want.Fd()), name, c.two)
	if err := errors.Join(err, err2); err != nil {
		return sysx.Fault("read the link", path, err)
	}
	if !bytes.Equal(c.one[:n], c.two[:m]) {
		c.differ(path, "leads to %q, not %q", c.one[:n], c.two[:m])
	}
	return nil
}

// attributes compares extended attributes, those of the host's security modules
// left out: they are the host's to set (security.selinux, security.ima …).
func (c *comparer) attributes(path, is, want string) error {
	have, err := attributesOf(is)
	if err != nil {
		return sysx.Fault("read extended attributes of", path, err)
	}
	wanted, err := attributesOf(want)
	if err != nil {
		return sysx.Fault("read extended attributes of", path, err)
	}
	for name, value := range wanted {
		if got, ok := have[name]; !ok {
			c.differ(path, "lacks the attribute %s", name)
		} else if got != value {
			c.differ(path, "has another value in the attribute %s", name)
		}
	}
	for name := range have {
		if _, ok := wanted[name]; !ok {
			c.differ(path, "has the attribute %s, which does not belong there", name)
		}
	}
	return nil
}

func attributesOf(path string) (map[string]string, error) {
	var list [64 << 10]byte // XATTR_LIST_MAX (linux/limits.h)
	n, err := unix.Llistxattr(path, list[:])
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "security.") && name != "security.capability" {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		out[name] = string(value[:n])
	}
	return out, nil
}
