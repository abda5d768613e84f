package cgroup

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// settle is how long Remove waits for the last process of a group to be gone:
// one that has been waited for may still be on its way out of its cgroup.
const settle = 2 * time.Second

// Remove removes the group and those made below it. A group that is not there
// is no error. Processes left in it after two seconds are a Busy fault; then
// the groups that were empty are gone and the others stay.
func (t *Tree) Remove(name string) error {
	if err := t.usable(name); err != nil {
		return err
	}
	until := time.Now().Add(settle)
	if err := t.remove(t.dir(name), until); err != nil {
		return err
	}
	return t.removeV1(t.dir(name), until)
}

func (t *Tree) remove(dir string, until time.Time) error {
	for {
		err := unix.Unlinkat(t.fd(), dir, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY {
			return t.failed("remove cgroup", dir, err)
		}
		// EBUSY means groups below it or processes in it (kernel
		// cgroup_destroy_locked).
		below, err := children(t.fd(), dir)
		if err != nil && err != unix.ENOENT {
			return t.failed("list cgroups in", dir, err)
		}
		for _, child := range below {
			if err := t.remove(dir+"/"+child, until); err != nil {
				return err
			}
		}
		if len(below) > 0 {
			continue
		}
		if err := t.emptied(dir, until); err != nil {
			return err
		}
	}
}

// emptied waits until cgroup.events says that the group has no process. The
// kernel wakes a poll for POLLPRI when the file changes (cgroup-v2.rst,
// "[Un]populated Notification").
func (t *Tree) emptied(dir string, until time.Time) error {
	f, err := t.file(dir+"/cgroup.events", unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		var text [256]byte
		n, err := unix.Pread(int(f.Fd()), text[:], 0)
		if err == unix.ENODEV { // removed meanwhile
			return nil
		}
		if err != nil {
			return t.failed("read", f.Name(), err)
		}
		if bytes.Contains(text[:n], []byte("populated 0")) {
			return nil
		}
		left := time.Until(until)
		if left <= 0 {
			return t.failed("remove cgroup", dir, unix.EBUSY)
		}
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return t.failed("wait for", f.Name(), err)
		}
	}
}

// Kill sends SIGKILL to every process of the group and those below it, also to
// ones being forked (cgroup.kill, v5.14).
func (t *Tree) Kill(name string) error {
	if err := t.usable(name); err != nil {
		return err
	}
	f, err := t.file(t.dir(name)+"/cgroup.kill", unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.Write(int(f.Fd()), []byte("1"))
	return t.failed("kill the processes of cgroup", t.dir(name), err)
}

// Pids are the processes of the group and of those below it, as this process
// numbers them. Ones it cannot see are left out.
func (t *Tree) Pids(name string) ([]int, error) {
	if err := t.usable(name); err != nil {
		return nil, err
	}
	return t.pids(t.dir(name), nil)
}

func (t *Tree) pids(dir string, found []int) ([]int, error) {
	f, err := t.file(dir+"/cgroup.procs", unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	text, err := readAll(f)
	if err != nil {
		return nil, t.failed("read", f.Name(), err)
	}
	for _, line := range bytes.Fields(text) {
		if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
			found = append(found, pid)
		}
	}
	below, err := children(t.fd(), dir)
	if err != nil {
		return nil, t.failed("list cgroups in", dir, err)
	}
	for _, child := range below {
		more, err := t.pids(dir+"/"+child, found)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = more
	}
	return found, nil
}

// readAll reads and closes f.
func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	var b bytes.Buffer
	_, err := b.ReadFrom(f)
	return b.Bytes(), err
}

// file opens a control file of a group.
func (t *Tree) file(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(t.fd(), name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, t.failed("open", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
