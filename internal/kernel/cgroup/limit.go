package cgroup

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// Limit puts resources into a group that Create has made; what they do not name
// stays as it is. A group in a v1 hierarchy is made when a limit needs it first:
// the processes that the group has by then are moved into it, and the container's
// first one enters by Joins.
//
// Faults are of class Invalid, Unsupported (no such controller, or it cannot
// do that) or Busy, where memory in use cannot be made less than the limit. Some
// of the limits may be in force then. Device rules are for GuardDevices.
func (t *Tree) Limit(name string, r *specs.LinuxResources) error {
	list, err := settings(r, t.where)
	if err != nil || len(list) == 0 {
		return err
	}
	if err := t.usable(name); err != nil {
		return err
	}
	var again []setting
	for _, s := range list {
		err := t.apply(name, s)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
			again = append(again, s) // more than a limit that is still to be raised, or less than one to be lowered
			continue
		}
		if err != nil {
			return t.refused(name, s, err)
		}
	}
	for _, s := range again {
		if err := t.apply(name, s); err != nil {
			return t.refused(name, s, err)
		}
	}
	return nil
}

// where tells where a controller is. "io" is v1's "blkio", too.
func (t *Tree) where(controller string) version {
	if _, ok := t.in(controller); ok {
		return inV1
	}
	if _, ok := t.in("blkio"); ok && controller == "io" {
		return inV1
	}
	if t.mode == None {
		return nowhere
	}
	text, err := read(t.fd(), "cgroup.controllers")
	if err != nil || !slices.Contains(strings.Fields(text), controller) {
		return nowhere
	}
	return inV2
}

// apply writes one setting where its controller is.
func (t *Tree) apply(name string, s setting) error {
	dir, root := t.dir(name), t.fd()
	if h, ok := t.in(s.controller); ok {
		made, err := t.makeV1(h, dir)
		if err == nil && made {
			err = t.moveAll(h, name)
		}
		if err != nil {
			return err
		}
		root = h.fd()
	} else {
		t.enable(path.Dir(dir), s.controller)
	}
	files, values := split(s.file), split(s.value)
	err := error(unix.ENOENT)
	for i := 0; i < len(files) && errors.Is(err, unix.ENOENT); i++ {
		err = write(root, dir+"/"+files[i], values[i])
	}
	if s.ifThere && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// split parts the alternatives of a setting's file or value.
func split(text string) []string { return strings.Split(text, "|") }

func (t *Tree) refused(name string, s setting, err error) error {
	var f *fault.Error
	file, _, _ := strings.Cut(s.file, "|")
	value, _, _ := strings.Cut(s.value, "|")
	switch what := file + " to " + value; {
	case errors.As(err, &f):
		return err
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return fault.Wrap(fault.Unsupported, "set", what, err, "the controller "+s.controller+" of this kernel cannot do that, or is not enabled in the groups above "+t.dir(name))
	case errors.Is(err, unix.EBUSY):
		return fault.Wrap(fault.Busy, "set", what, err, "more is in use")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fault.Wrap(fault.Invalid, "set", what, err, "")
	default:
		return t.failed("set", what, err)
	}
}
