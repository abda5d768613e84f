package at

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/sysx"
)

const (
	// maxDepth bounds the descriptors held while removing: a container can nest
	// directories far deeper than RLIMIT_NOFILE. Deeper ones are first moved to
	// the top of the tree that is being removed.
	maxDepth = 48
	// maxPasses bounds how often a directory is read again because somebody
	// still creates files in it.
	maxPasses = 64
	hoisted   = ".fief-hoisted-"
)

type remover struct {
	top  *os.File // the tree's uppermost directory
	next int      // number of the next hoisted directory
}

// RemoveTree removes name (one component) and all below it. A missing name is
// no error. Symbolic links are removed, not followed, and mounts are never
// entered: a mount in the tree stops the removal with class Invalid. May be
// repeated after a failure; what was removed stays removed.
func RemoveTree(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return sysx.Fault("remove", filepath.Join(dir.Name(), name), err)
	}
	top, err := readable(dir, name)
	if err != nil {
		return gone(err)
	}
	defer top.Close()
	r := &remover{top: top}
	if err := r.empty(top, 0); err != nil {
		return err
	}
	return rmdir(dir, name)
}

func readable(dir *os.File, name string) (*os.File, error) {
	return Beneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// empty removes everything in d, which is depth levels below the top.
func (r *remover) empty(d *os.File, depth int) error {
	for range maxPasses {
		n, err := r.pass(d, depth)
		if err != nil || n == 0 {
			return err
		}
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return sysx.Fault("list", d.Name(), err)
		}
	}
	return sysx.Fault("empty directory", d.Name(), unix.EBUSY)
}

// pass reads d once and removes what it finds; it returns how many it found.
func (r *remover) pass(d *os.File, depth int) (int, error) {
	found := 0
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			found++
			if err := r.entry(d, e, depth); err != nil {
				return found, err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(entries) == 0 {
			return found, nil
		}
		if err != nil {
			return found, sysx.Fault("list", d.Name(), err)
		}
	}
}

func (r *remover) entry(d *os.File, e fs.DirEntry, depth int) error {
	if !e.IsDir() {
		err := unix.Unlinkat(int(d.Fd()), e.Name(), 0)
		if !errors.Is(err, unix.EISDIR) { // replaced by a directory meanwhile
			return gone(sysx.Fault("remove", filepath.Join(d.Name(), e.Name()), err))
		}
	}
	if depth >= maxDepth {
		return r.hoist(d, e.Name())
	}
	sub, err := readable(d, e.Name())
	if err != nil {
		return gone(err)
	}
	err = r.empty(sub, depth+1)
	sub.Close()
	if err != nil {
		return err
	}
	return rmdir(d, e.Name())
}

// hoist moves a directory up to the top, where a later pass finds it.
func (r *remover) hoist(d *os.File, name string) error {
	for {
		r.next++
		err := Rename(d, name, r.top, hoisted+strconv.Itoa(r.next))
		if !errors.Is(err, unix.EEXIST) {
			return gone(err)
		}
	}
}

func rmdir(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	return gone(sysx.Fault("remove directory", filepath.Join(dir.Name(), name), err))
}

// gone forgives that somebody else was faster.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
