package main

import (
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/seal"
	"fief/internal/launch"
	"fief/internal/words/fault"
)

// protect runs this program anew from a read-only view of it when the container
// has the id of its owner. The child that becomes the container's process is
// this program until execve, an exec's in sight of the container, and
// /proc/self/exe as the container's program stays it: who has the descriptor
// could write to the file as soon as nobody runs it (CVE-2019-5736). Others
// could read it, at most. The first descriptors from 3 on, as many as were
// inherited, stay open for the other run.
func protect(s *specs.Spec, inherited int) error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		return fault.Wrap(fault.Internal, "look at", "/proc/self/exe", err, "mount /proc")
	}
	if !sealing || !reaches(s, &st) {
		return nil
	}
	if done, err := seal.Sealed(); done || err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.Internal, "find", "fief-oci", err, "")
	}
	view, err := seal.Open(self)
	if err != nil {
		return fault.Wrap(fault.ClassOf(err), "protect", self, err, "a container without a user namespace of its own needs that")
	}
	defer view.Close()
	for i := range inherited {
		if _, err := unix.FcntlInt(uintptr(launch.FirstPassed+i), unix.F_SETFD, 0); err != nil {
			return fault.Wrap(fault.Internal, "keep open descriptor", strconv.Itoa(launch.FirstPassed+i), err, "")
		}
	}
	return fault.Wrap(fault.Internal, "run again", self, unix.Exec(view.Path(), os.Args, os.Environ()), "")
}

// reaches reports whether a file's owner or group has an id in the container.
// The maps of a joined user namespace are not known yet.
func reaches(s *specs.Spec, st *unix.Stat_t) bool {
	if s.Linux == nil || !ownUserns(s) || len(s.Linux.UIDMappings) == 0 {
		return true
	}
	return inRange(s.Linux.UIDMappings, st.Uid) || inRange(s.Linux.GIDMappings, st.Gid)
}

func inRange(list []specs.LinuxIDMapping, id uint32) bool {
	for _, m := range list {
		if id >= m.HostID && id-m.HostID < m.Size {
			return true
		}
	}
	return false
}
