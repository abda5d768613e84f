package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/kernel/space"
	"fief/internal/kernel/userns"
	"fief/internal/launch"
	"fief/internal/spec"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// spaces opens namespaces of containers and mounts what shows them.
type spaces struct{}

// Of opens a namespace of the process that has had this pid since about
// started.
func (spaces) Of(pid int, started time.Time, name string) (*os.File, error) {
	if err := is(pid, started); err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return nil, fault.Wrap(fault.Conflict, "open namespace of process", fmt.Sprint(pid), err, "")
	}
	if err := is(pid, started); err != nil { // it is still the same one, so the namespace is its
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// UserAt opens a user namespace by a path, which is the administrator's.
func (spaces) UserAt(path string) (*os.File, idmap.Pair, error) {
	ns, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, idmap.Pair{}, fault.Wrap(fault.Invalid, "cannot find specified user namespace path:", path, err, "")
	}
	pair, err := userns.MapsOf(ns)
	if err != nil {
		ns.Close()
		return nil, pair, err
	}
	return ns, pair, nil
}

// Mount makes a file system that shows a namespace. cgroup2 has no options that
// are not its namespace's.
func (spaces) Mount(kind launch.Kind, ns *os.File, options []string) (*os.File, error) {
	switch kind {
	case launch.Proc:
		return space.Proc(ns, options...)
	case launch.Sysfs:
		return space.Sysfs(ns)
	case launch.Mqueue:
		return space.Mqueue(ns)
	case launch.Cgroup2:
		return space.Cgroup2(ns)
	}
	return nil, fault.New(fault.Internal, "prepare mount of", string(kind), "unknown kind", "")
}

// Shm clones what a container has at /dev/shm.
func (spaces) Shm(mnt *os.File) (*os.File, error) { return space.Clone(mnt, spec.ShmPath) }
