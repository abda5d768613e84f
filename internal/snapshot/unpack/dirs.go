package unpack

import (
	"errors"

	"golang.org/x/sys/unix"
)

// maxOpen bounds the directories held open; tars go through a tree in order,
// so that a few are enough.
const maxOpen = 128

// dirs holds open the directories that entries were lately made in. Within one
// unpacking a name means the same directory until something is removed, so
// that a descriptor found once needs no second resolution.
type dirs struct {
	root int // the caller's
	fds  map[string]int
	last string // the directory asked for last, and its descriptor
	fd   int
}

func newDirs(root int) *dirs {
	return &dirs{root: root, fds: map[string]int{}, last: ".", fd: root}
}

// open returns the descriptor, O_PATH, of the directory of that name. It stays
// the cache's and is good until the call after the next, or until forget.
//
// RESOLVE_IN_ROOT (openat2(2), Linux 5.6): an absolute symlink and ".." in a
// symlink end at the layer's root. The kernel answers EAGAIN when a rename
// elsewhere raced with a ".." it had to be sure about.
func (d *dirs) open(name string) (int, error) {
	if name == d.last {
		return d.fd, nil
	}
	if name == "." {
		return d.root, nil
	}
	fd, ok := d.fds[name]
	if !ok {
		var err error
		if fd, err = d.resolve(name); err != nil {
			return -1, err
		}
		d.hold(name, fd)
	}
	d.last, d.fd = name, fd
	return fd, nil
}

func (d *dirs) resolve(name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(d.root, name, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && try < 1000 {
			continue
		}
		return fd, err
	}
}

// hold keeps fd, and lets go of any other when there are too many.
func (d *dirs) hold(name string, fd int) {
	if len(d.fds) >= maxOpen {
		for other, old := range d.fds {
			if other == d.last {
				continue
			}
			unix.Close(old)
			delete(d.fds, other)
			break
		}
	}
	d.fds[name] = fd
}

// forget closes everything: something was removed, names may mean other
// directories now.
func (d *dirs) forget() {
	for _, fd := range d.fds {
		unix.Close(fd)
	}
	clear(d.fds)
	d.last, d.fd = ".", d.root
}

// keepOnly forgets everything but fd, the directory that something was just
// removed from.
func (d *dirs) keepOnly(fd int) {
	for name, held := range d.fds {
		if held == fd {
			delete(d.fds, name)
			d.forget()
			d.fds[name], d.last, d.fd = fd, name, fd
			return
		}
	}
	d.forget()
}

// parent returns the directory that entries of that name are made in, and
// makes it, with mode 0755 and owner root, where the tar has left it out.
func (u *unpacker) parent(name string) (int, error) {
	fd, err := u.dirs.open(name)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return -1, sysFault("open directory", name, err)
	}
	above, base := split(name)
	parent, err := u.parent(above)
	if err != nil {
		return -1, err
	}
	if err := u.count(); err != nil {
		return -1, err
	}
	switch err := makeDir(parent, base); {
	case errors.Is(err, unix.EEXIST): // what it means is not ours to guess
		return -1, bad(name, "entries lie below it, but it is a symbolic link that leads to nothing in the layer")
	case err != nil:
		return -1, sysFault("make directory", name, err)
	}
	delete(u.times, name) // of another that was there
	if err := own(parent, base, 0, 0, 0o755); err != nil {
		return -1, sysFault("set the owner of", name, err)
	}
	if fd, err = u.dirs.open(name); err != nil {
		return -1, sysFault("open directory", name, err)
	}
	return fd, nil
}
