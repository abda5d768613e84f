package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"fief/internal/words/fault"

	"golang.org/x/sys/unix"
)

// make makes one entry that is not a whiteout. Like Docker, a later entry of a
// name replaces an earlier one, except that directories of one name are one.
func (u *unpacker) make(parent int, name string, h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		delete(u.times, name) // of a directory that was there
	}
	if h.Typeflag == tar.TypeLink {
		return u.link(parent, name, h)
	}
	m, err := u.metaOf(name, h)
	if err != nil {
		return err
	}
	_, base := split(name)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(parent, name, m)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(parent, name, h, m)
	case tar.TypeSymlink:
		return u.special(parent, name, m, func() error { return unix.Symlinkat(h.Linkname, parent, base) })
	case tar.TypeChar, tar.TypeBlock:
		return device(name)
	case tar.TypeFifo:
		return u.special(parent, name, m, func() error { return unix.Mkfifoat(parent, base, 0o600) })
	}
	return bad(name, fmt.Sprintf("entries of type %q have no place in a layer", h.Typeflag))
}

// root applies the entry of the layer's root, which is there already.
func (u *unpacker) root(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return bad(h.Name, "the layer's root is not a directory")
	}
	m, err := u.metaOf(".", h)
	if err != nil {
		return err
	}
	if err := u.later(".", &m); err != nil {
		return err
	}
	return u.apply(u.dirs.root, ".", m)
}

func (u *unpacker) dir(parent int, name string, m meta) error {
	_, base := split(name)
	err := makeDir(parent, base)
	if errors.Is(err, unix.EEXIST) {
		err = u.existingDir(parent, name)
	}
	if err != nil {
		return sysFault("make directory", name, err)
	}
	if err := u.later(name, &m); err != nil {
		return err
	}
	if u.gone[name] { // the name was whited out before: what is below stays hidden
		m.xattrs = append(m.xattrs, opaqueMark)
	}
	return u.apply(parent, base, m)
}

// later notes what a directory gets when nothing is made in it any more: its
// times, and the default ACL, which everything made in it would inherit.
func (u *unpacker) later(name string, m *meta) error {
	s := m.stamp
	m.xattrs = slices.DeleteFunc(m.xattrs, func(x xattr) bool {
		if x.name == aclDefault {
			s.acl = x.value
		}
		return x.name == aclDefault
	})
	u.times[name] = s
	return u.remember(name, len(s.acl))
}

// existingDir makes sure that name, which exists, is a directory.
func (u *unpacker) existingDir(parent int, name string) error {
	_, base := split(name)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	return u.replace(parent, name, func() error { return makeDir(parent, base) })
}

// makeDir makes a directory; its mode is set afterwards, free of the umask.
func makeDir(parent int, base string) error {
	return again(func() error { return unix.Mkdirat(parent, base, 0o700) })
}

func (u *unpacker) file(parent int, name string, h *tar.Header, m meta) error {
	if h.Size > u.lim.Bytes-u.facts.Bytes {
		return over("bytes in files", u.lim.Bytes)
	}
	u.facts.Bytes += h.Size
	fd, err := u.create(parent, name)
	if err != nil {
		return sysFault("make file", name, err)
	}
	err = u.fill(fd, name, h)
	if err == nil {
		err = m.applyFile(fd, name)
	}
	if closeErr := unix.Close(fd); err == nil && closeErr != nil {
		err = sysFault("close", name, closeErr)
	}
	return err
}

func (u *unpacker) create(parent int, name string) (fd int, err error) {
	_, base := split(name)
	open := func() error {
		fd, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	}
	if err := again(open); !errors.Is(err, unix.EEXIST) {
		return fd, err
	}
	err = u.replace(parent, name, open)
	return fd, err
}

// fill copies the content. Sparse files, whose holes cost the archive nothing,
// cost the disk nothing either.
func (u *unpacker) fill(fd int, name string, h *tar.Header) error {
	sparse := isSparse(h)
	for {
		if err := u.ctx.Err(); err != nil { // holes are read without the archive
			return fault.Wrap(fault.Canceled, "unpack", "layer", err, "")
		}
		n, err := u.tar.Read(u.buf)
		if n > 0 {
			if err := put(fd, u.buf[:n], sparse); err != nil {
				return sysFault("write", name, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return readFault(quote(name), err)
		}
	}
	if !sparse {
		return nil
	}
	return sysFault("set the size of", name, unix.Ftruncate(fd, h.Size)) // a hole at the end
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func put(fd int, p []byte, sparse bool) error {
	if !sparse {
		return writeAll(fd, p)
	}
	for len(p) > 0 {
		block := p[:min(len(p), 4096)]
		p = p[len(block):]
		var err error
		if allZero(block) {
			_, err = unix.Seek(fd, int64(len(block)), unix.SEEK_CUR)
		} else {
			err = writeAll(fd, block)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func allZero(p []byte) bool { return p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }

// device never makes a device node. nodev on the mount is no protection: a
// container whose root has CAP_SYS_ADMIN can clear the flag of a mount that was
// moved into its namespace by descriptor (mount_namespaces(7): only inherited
// mounts are locked), and the host's disk would be open to it. Nodes below /dev,
// which trees made by debootstrap have, are left out: every container gets a
// /dev of its own over it. A node anywhere else is no part of an honest image.
func device(name string) error {
	if strings.HasPrefix(name, "dev/") {
		return nil
	}
	return fault.New(fault.Invalid, "unpack", quote(name), "device nodes are not unpacked",
		"make the image without it: containers have the usual nodes in /dev")
}

// special makes what is neither file nor directory.
func (u *unpacker) special(parent int, name string, m meta, do func() error) error {
	err := again(do)
	if errors.Is(err, unix.EEXIST) {
		err = u.replace(parent, name, do)
	}
	if err != nil {
		return sysFault("make", name, err)
	}
	_, base := split(name)
	if err := u.apply(parent, base, m); err != nil {
		return err
	}
	return sysFault("set the times of", name, setTimes(parent, base, m.stamp))
}

// link makes a hard link to an entry of this layer. A symlink is linked
// itself, not followed; owner, mode and times are those of the target.
func (u *unpacker) link(parent int, name string, h *tar.Header) error {
	target, err := cleanName(h.Linkname, u.lim.Name)
	if err != nil {
		return err
	}
	if target == name || target == "." {
		return bad(name, "it is a hard link to "+quote(target))
	}
	dir, targetBase := split(target)
	from, err := u.dirs.open(dir)
	if errors.Is(err, unix.ENOENT) {
		return missing(name, target)
	}
	if err != nil {
		return sysFault("find "+quote(target)+", the target of hard link", name, err)
	}
	_, base := split(name)
	do := func() error { return unix.Linkat(from, targetBase, parent, base, 0) }
	err = again(do)
	if errors.Is(err, unix.EEXIST) {
		err = u.relink(target, name)
	}
	if errors.Is(err, unix.ENOENT) {
		return missing(name, target)
	}
	return sysFault("make hard link", name, err)
}

func missing(name, target string) error {
	return bad(name, "it is a hard link to "+quote(target)+", which is not in this layer")
}

// relink replaces what stands at name by a link. Removing may have removed the
// target, or the directories both were found in, so both are found again.
func (u *unpacker) relink(target, name string) error {
	dir, base := split(name)
	parent, err := u.dirs.open(dir)
	if err != nil {
		return err
	}
	return u.replace(parent, name, func() error {
		targetDir, targetBase := split(target)
		from, err := u.dirs.open(targetDir)
		if err != nil {
			return err
		}
		return unix.Linkat(from, targetBase, parent, base, 0)
	})
}

// again repeats a system call that a signal interrupted.
func again(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
