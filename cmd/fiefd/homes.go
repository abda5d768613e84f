package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path"
	"strings"

	"fief/internal/kernel/cgroup"
	"fief/internal/kernel/systemd"
	"fief/internal/words/fault"
)

// The cgroup drivers, by their names in `docker info`.
const (
	driverCgroupfs = "cgroupfs"
	driverSystemd  = "systemd"
)

// cgroupDriver is what --exec-opt says, "" when it says nothing. Options of other
// things are refused, as dockerd does.
func (s settings) cgroupDriver() (driver string, err error) {
	for _, o := range s.ExecOpts {
		key, value, ok := strings.Cut(o, "=")
		if !ok || strings.TrimSpace(key) != "native.cgroupdriver" {
			return "", fault.New(fault.Invalid, "use", "--exec-opt "+o, "there is no such option", "native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd")
		}
		if driver = strings.TrimSpace(value); driver != driverCgroupfs && driver != driverSystemd {
			return "", fault.New(fault.Invalid, "use", "--exec-opt "+o, "there is no such driver", "cgroupfs or systemd")
		}
	}
	return driver, nil
}

// chooseDriver decides where nothing was said: systemd's for a daemon that systemd
// has started as its service, on a host with cgroup v2 alone, as whoever made
// that service expects its rules for cgroups to be kept.
func chooseDriver(driver string, mode cgroup.Mode) (string, error) {
	possible := mode == cgroup.Unified && systemd.Running()
	switch {
	case driver == "" && possible && os.Getenv("NOTIFY_SOCKET") != "":
		return driverSystemd, nil
	case driver == "":
		return driverCgroupfs, nil
	case driver == driverSystemd && !possible:
		return "", fault.New(fault.Unsupported, "use", "native.cgroupdriver=systemd", "it needs a host that runs systemd and has cgroup v2 alone", "leave it out")
	}
	return driver, nil
}

// idleGroup is, in a home, the group of the process that keeps it.
const idleGroup = "idle"

// homes has systemd make the groups in which containers have theirs.
type homes struct {
	tree *cgroup.Tree
	wait []string // a command that does nothing and does not end
}

func newHomes(tree *cgroup.Tree) (*homes, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, fault.Wrap(fault.Unsupported, "use", "native.cgroupdriver=systemd", err, "install coreutils")
	}
	bus, err := systemd.Connect()
	if err != nil {
		return nil, err
	}
	return &homes{tree: tree, wait: []string{sleep, "infinity"}}, bus.Close()
}

// of is where the group name has its home: name is a container's id, or
// /SLICE/ID.
func (h *homes) of(name string) (systemd.Home, error) {
	slice, _ := path.Split(name)
	slice = strings.Trim(slice, "/")
	home, err := systemd.HomeIn(slice)
	if err != nil {
		return home, fault.Say(fault.Invalid, "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	return home, nil
}

// make has the home of a new group made, where it is not there, and returns the
// group's path.
func (h *homes) make(name string) (string, error) {
	home, err := h.of(name)
	idle := path.Join(home.Dir(), idleGroup)
	if err != nil || h.tree.Has(idle) {
		return path.Join(home.Dir(), path.Base(name)), err
	}
	bus, err := systemd.Connect()
	if err != nil {
		return "", err
	}
	defer bus.Close()
	slog.Info("asking systemd for a delegated cgroup", "unit", home.Unit, "slice", home.Slice)
	if err := bus.StartHome(home, h.wait); err != nil {
		return "", err
	}
	if !h.tree.Has(home.Dir()) {
		return "", fault.New(fault.Internal, "use cgroup", home.Dir(), "systemd has started "+home.Unit+" without it", "")
	}
	if err := h.tree.Gather(home.Dir(), idleGroup); err != nil {
		return "", err
	}
	h.tree.Forget()
	return path.Join(home.Dir(), path.Base(name)), nil
}

// place is where a group is: containers that run may have been started under the
// other driver.
func (c *cgroups) place(name string) string {
	if c.tree == nil || c.tree.Mode() != cgroup.Unified || c.tree.Has(name) {
		return name
	}
	home, err := (&homes{}).of(name)
	if err != nil {
		return name
	}
	if in := path.Join(home.Dir(), path.Base(name)); c.homes != nil || c.tree.Has(in) {
		return in
	}
	return name
}
