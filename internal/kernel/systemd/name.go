// Package systemd asks the host's systemd for units with a cgroup that is
// theirs to divide (Delegate=yes, systemd.resource-control(5)): a scope for a
// container of an OCI bundle, or a service that holds a daemon's containers.
// What is below such a cgroup systemd leaves alone; what it was told of limits
// it keeps in force over a daemon-reload.
//
// It speaks the four calls that this needs, in the wire format of the D-Bus
// specification, over a plain socket: a D-Bus library would link package net
// into a program that is started several times for each container.
package systemd

import (
	"path"
	"strings"

	"fief/internal/words/fault"
)

// Scope is the place and name of a container's unit.
type Scope struct {
	Slice string // such as "machine.slice"; "-.slice" is the root
	Unit  string // such as "libpod-3f2a.scope"
}

// Parse reads an OCI cgroupsPath of the form SLICE:PREFIX:NAME, as podman,
// containerd and CRI-O give it to a runtime that they tell to use systemd
// (containerd/cri: getCgroupsPath; opencontainers/cgroups, systemd driver). An
// empty slice is system.slice, the slice of what an administrator runs.
func Parse(cgroupsPath string) (Scope, error) {
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		return Scope{}, fault.New(fault.Invalid, "use cgroupsPath", cgroupsPath, "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups", "or leave --systemd-cgroup out")
	}
	s := Scope{Slice: parts[0], Unit: parts[2] + ".scope"}
	if s.Slice == "" {
		s.Slice = "system.slice"
	}
	if parts[1] != "" {
		s.Unit = parts[1] + "-" + s.Unit
	}
	if _, err := ExpandSlice(s.Slice); err != nil {
		return Scope{}, err
	}
	if parts[2] == "" || strings.HasSuffix(parts[2], ".slice") {
		return Scope{}, fault.New(fault.Invalid, "use cgroupsPath", cgroupsPath, "its last part does not name a scope", "name it after the container")
	}
	return s, checkUnit(s.Unit)
}

// ExpandSlice is the path of a slice's cgroup from the root of the hierarchy:
// "a-b.slice" lies in "a.slice" (systemd.slice(5)), so it is
// "/a.slice/a-b.slice". "-.slice" is "/".
func ExpandSlice(slice string) (string, error) {
	if slice == "-.slice" {
		return "/", nil
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok {
		return "", notSlice(slice, "it does not end in .slice")
	}
	if err := checkUnit(slice); err != nil {
		return "", err
	}
	dir, at := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", notSlice(slice, "a part between dashes is empty")
		}
		if at != "" {
			at += "-"
		}
		at += part
		dir = path.Join(dir, at+".slice")
	}
	return dir, nil
}

func notSlice(slice, why string) error {
	return fault.New(fault.Invalid, "use slice", slice, why, "such as machine.slice or a-b.slice, which lies in a.slice")
}

// maxUnit is the length of a unit's name (systemd.unit(5)).
const maxUnit = 255

// checkUnit holds a unit's name to the characters that systemd takes as they are
// (systemd.unit(5)).
func checkUnit(name string) error {
	if len(name) > maxUnit {
		return fault.New(fault.Invalid, "use unit name", name, "it is longer than 255 bytes", "")
	}
	for _, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune(":-_.", c) {
			return fault.New(fault.Invalid, "use unit name", name, "systemd has no unit names with "+string(c), "use letters, digits and : - _ .")
		}
	}
	if strings.HasPrefix(name, ".") {
		return fault.New(fault.Invalid, "use unit name", name, "it begins with a dot", "")
	}
	return nil
}
