// Package unpack turns the tar of an image layer into a directory, as root and
// for a file system that overlayfs will use as a lower layer. The tar is
// hostile: whatever it says, nothing outside the directory is made, changed or
// followed. Every name is resolved by the kernel below the directory's
// descriptor (openat2(2) RESOLVE_IN_ROOT), the last component is never
// followed, and every quantity has a limit.
//
// Owners are stored as the tar has them (inside ids). Device nodes are never
// made: those below /dev, which containers cover with their own, are left out,
// and any other is an error.
package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"

	"golang.org/x/sys/unix"
)

// Facts is what was noted while unpacking.
type Facts struct {
	MaxUID, MaxGID       idmap.Inside // of the owners of entries
	PasswdUID, PasswdGID idmap.Inside // that the layer's own etc/passwd and etc/group name; 0: none
	Files                int64        // entries made, parents that the tar left out included
	Bytes                int64        // content of regular files
	Opaque               bool         // the root hides every layer below: overlayfs ignores its mark on a layer's root, so whoever stacks layers must leave those below out
}

// Tar unpacks the tar r into dir, an empty directory open with O_PATH, which
// stays the caller's. It reads r to its end, also past the end of the archive,
// so that a reader that verifies a digest has seen everything; an error of r
// comes back wrapped. On any error dir holds a part of the layer, and nothing
// outside dir was touched: the caller throws dir away. Nothing is synced.
//
// Faults: Corrupt for what is no tar or is cut off, Invalid for what tries to
// leave dir or makes no sense, Exhausted for limits and a full file system,
// Unsupported for kinds of entries that no image has, Canceled.
func Tar(ctx context.Context, dir *os.File, r io.Reader, lim Limits) (Facts, error) {
	lim = lim.orDefault()
	raw := &counted{ctx: ctx, r: r, left: lim.Stream, max: lim.Stream}
	u := &unpacker{
		ctx:   ctx,
		tar:   tar.NewReader(raw),
		dirs:  newDirs(int(dir.Fd())),
		lim:   lim,
		times: map[string]stamp{},
		gone:  map[string]bool{},
		buf:   make([]byte, 256<<10),
	}
	defer u.dirs.forget()
	if err := u.entries(); err != nil {
		return Facts{}, err
	}
	if err := u.stampDirs(); err != nil {
		return Facts{}, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, raw, u.buf); err != nil {
		return Facts{}, readFault("the rest of the layer", err)
	}
	if err := u.facts.noteAccounts(dir); err != nil {
		return Facts{}, err
	}
	return u.facts, nil
}

// stamp is what a directory gets when nothing is made in it any more.
type stamp struct {
	atime, mtime time.Time
	acl          []byte // the default ACL, as an attribute; nil: none
}

type unpacker struct {
	ctx   context.Context
	tar   *tar.Reader
	dirs  *dirs
	lim   Limits
	facts Facts
	times map[string]stamp // by name of the directory
	gone  map[string]bool  // names whiteouts were made for: a directory that follows hides what was below
	names int64            // bytes of names in the two maps
	buf   []byte
}

func (u *unpacker) entries() error {
	for {
		h, err := u.tar.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return readFault("layer", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // comments, such as git's
		}
		failpoint.Hit("unpack-entry")
		if err := u.entry(h); err != nil {
			return err
		}
	}
}

func (u *unpacker) entry(h *tar.Header) error {
	name, err := cleanName(h.Name, u.lim.Name)
	if err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	kind := whiteoutKind(name)
	switch {
	case kind == aufsMeta:
		return nil // what an AUFS host left behind; Docker skips it too
	case kind == badWhiteout:
		return bad(name, "it uses the reserved prefix .wh. in a way that means nothing")
	case name == ".":
		return u.root(h)
	}
	dir, base := split(name)
	parent, err := u.parent(dir)
	if err != nil {
		return err
	}
	switch kind {
	case opaque:
		return u.makeOpaque(dir)
	case whiteout:
		return u.whiteout(parent, join(dir, base[len(whiteoutPrefix):]))
	}
	return u.make(parent, name, h)
}

// count takes one entry, or a parent that the tar left out, off the limit.
func (u *unpacker) count() error {
	u.facts.Files++
	if u.facts.Files > u.lim.Entries {
		return over("entries", u.lim.Entries)
	}
	return nil
}

func (u *unpacker) remember(name string, more int) error {
	u.names += int64(len(name)+more) + 96 // 96: what a map entry costs beyond its key, roughly
	if u.names > u.lim.NameBytes {
		return over("bytes of directory names", u.lim.NameBytes)
	}
	return nil
}

// stampDirs sets the times of directories, which making entries in them had
// changed, and their default ACLs. One that was removed is left.
func (u *unpacker) stampDirs() error {
	for name, s := range u.times {
		if name == "." {
			if err := s.set(u.dirs.root, ".", name); err != nil {
				return err
			}
			continue
		}
		dir, base := split(name)
		parent, err := u.dirs.open(dir)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return sysFault("open", dir, err)
		}
		if err := s.set(parent, base, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// set applies a stamp to base of parent, the directory called name.
func (s stamp) set(parent int, base, name string) error {
	if s.acl != nil {
		if err := setXattrs(parent, base, name, []xattr{{aclDefault, s.acl}}); err != nil {
			return err
		}
	}
	return sysFault("set the times of", name, setTimes(parent, base, s))
}

// counted bounds the raw stream and ends it when the context does.
type counted struct {
	ctx  context.Context
	r    io.Reader
	left int64
	max  int64
}

func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, fault.Wrap(fault.Canceled, "unpack", "layer", err, "")
	}
	if c.left <= 0 {
		return 0, over("bytes of archive", c.max)
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	var f *fault.Error
	if err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &f) {
		return n, err
	}
	return n, fault.Wrap(fault.Internal, "read", "layer", err, "")
}
