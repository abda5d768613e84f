package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/mnt"
	"fief/internal/kernel/userns"
	"fief/internal/launch"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// loadSpec reads a config.json; raw is what it holds.
func loadSpec(name string) (_ *specs.Spec, raw []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, fault.Wrap(fault.NotFound, "open", name, err, "a bundle is a directory with a config.json")
	}
	defer f.Close()
	if raw, err = io.ReadAll(io.LimitReader(f, maxConfig+1)); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, "read", name, err, "")
	}
	s, err := parseSpec(name, raw)
	return s, raw, err
}

// parseSpec reads the text of the config.json called name.
func parseSpec(name string, raw []byte) (*specs.Spec, error) {
	if len(raw) > maxConfig {
		return nil, fault.New(fault.Invalid, "read", name, "larger than "+strconv.Itoa(maxConfig>>20)+" MiB", "")
	}
	var s specs.Spec
	if err := decode(raw, &s); err != nil {
		return nil, fault.Wrap(fault.Invalid, "read", name, err, "")
	}
	if s.Root == nil || s.Root.Path == "" || s.Linux == nil {
		return nil, fault.New(fault.Invalid, "use", name, "no root or no linux section", "")
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return nil, fault.New(fault.Unsupported, "use", name, "ociVersion "+strconv.Quote(s.Version)+" is not a 1.x", "versions up to "+specVersion+" are known")
	}
	for _, list := range []struct {
		field string
		size  int
	}{{"mounts", len(s.Mounts)}, {"linux.devices", len(s.Linux.Devices)}, {"linux.namespaces", len(s.Linux.Namespaces)},
		{"linux.maskedPaths", len(s.Linux.MaskedPaths)}, {"linux.readonlyPaths", len(s.Linux.ReadonlyPaths)}} {
		if list.size > maxList {
			return nil, fault.New(fault.Invalid, "use "+list.field+" of", name, strconv.Itoa(list.size)+" entries", "at most "+strconv.Itoa(maxList))
		}
	}
	return &s, nil
}

// files opens what a container's plan names. Those of the bundle are opened
// here, in the caller's mount namespace, and travel as detached mounts.
type files struct {
	bundle string
	spec   *specs.Spec
	given  map[string]int // by name; not closed here
	own    []int
	files  []*os.File
}

func (f *files) close() {
	for _, fd := range f.own {
		unix.Close(fd)
	}
	for _, file := range f.files {
		file.Close()
	}
	f.own, f.files = nil, nil
}

// give keeps a descriptor that is to be closed with f.
func (f *files) give(name string, fd int) {
	f.given[name] = fd
	f.own = append(f.own, fd)
}

// list returns the descriptors of names, in their order.
func (f *files) list(names []string) ([]int, error) {
	out := make([]int, 0, len(names))
	for _, name := range names {
		fd, ok := f.given[name]
		if !ok {
			var err error
			if fd, err = f.open(name); err != nil {
				return nil, err
			}
			f.own = append(f.own, fd)
		}
		out = append(out, fd)
	}
	return out, nil
}

func (f *files) open(name string) (int, error) {
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "rootfs":
		return f.rootfs()
	case "mount":
		i, err := strconv.Atoi(rest)
		if err != nil || i >= len(f.spec.Mounts) {
			break
		}
		if kind, ok := launch.Prepared(f.spec, i); ok {
			return f.prepare(kind, f.spec.Mounts[i])
		}
		if attr, data, ok := launch.CopiesUp(f.spec.Mounts[i]); ok {
			return f.copyUp(f.spec.Mounts[i], attr, data)
		}
		return f.bind(f.spec.Mounts[i])
	case "ns":
		for _, n := range f.spec.Linux.Namespaces {
			if string(n.Type) == rest {
				return openNamed(n.Path, unix.O_RDONLY, "join namespace")
			}
		}
	}
	return -1, fault.New(fault.Internal, "open", name, "the plan names an unknown descriptor", "")
}

func openNamed(path string, flags int, op string) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	return fd, fault.Wrap(fault.NotFound, op, path, err, "")
}

// absolute resolves a path of config.json, which is relative to the bundle.
func (f *files) absolute(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.bundle, p)
}

// rootfs clones the root directory. Without a user namespace device nodes on it
// are made useless: no device controller keeps the container from those that an
// image may bring; its own are on the tmpfs at /dev.
func (f *files) rootfs() (int, error) {
	path := f.absolute(f.spec.Root.Path)
	fd, err := cloneTree(path, true)
	if err != nil {
		return -1, fault.Wrap(fault.NotFound, "open rootfs", path, err, "")
	}
	if ownUserns(f.spec) {
		return fd, nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fault.Wrap(fault.Internal, "restrict rootfs", path, err, "")
	}
	return fd, nil
}

func ownUserns(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

func cloneTree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, path, flags)
}

// bind clones a bind's source and applies its attributes and its id map.
func (f *files) bind(m specs.Mount) (int, error) {
	source := f.absolute(m.Source)
	tree, err := cloneTree(source, slices.Contains(m.Options, "rbind"))
	if err != nil {
		return -1, fault.Wrap(fault.NotFound, "bind", source, err, "")
	}
	clone := os.NewFile(uintptr(tree), m.Destination)
	defer clone.Close()
	for _, recursive := range []bool{false, true} {
		attr := launch.BindAttr(m.Options, recursive)
		if attr == (unix.MountAttr{}) {
			continue
		}
		if err := mnt.SetAttr(clone, mnt.Attr{Set: attr.Attr_set, Clear: attr.Attr_clr}, recursive); err != nil {
			return -1, err
		}
	}
	if err := f.mapIDs(clone, m); err != nil {
		return -1, err
	}
	return keep(clone)
}

// keep duplicates the descriptor of a mount for the plan.
func keep(f *os.File) (int, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return fd, fault.Wrap(fault.Exhausted, "prepare mount", f.Name(), err, "")
}

// mapIDs gives a bind its own id map, or the container's when it asks for one
// and names none (OCI runtime spec, mounts, idmap).
func (f *files) mapIDs(clone *os.File, m specs.Mount) error {
	recursive := slices.Contains(m.Options, "ridmap")
	uids, gids := m.UIDMappings, m.GIDMappings
	switch {
	case len(uids) > 0 != (len(gids) > 0):
		return fault.New(fault.Invalid, "bind", m.Destination, "uidMappings and gidMappings go together", "")
	case len(uids) == 0 && !recursive && !slices.Contains(m.Options, "idmap"):
		return nil
	case len(uids) == 0 && !ownUserns(f.spec):
		return fault.New(fault.Invalid, "bind", m.Destination, "it asks for an id map, but there is none", "give it uidMappings and gidMappings, or the container a user namespace")
	case len(uids) == 0:
		uids, gids = f.spec.Linux.UIDMappings, f.spec.Linux.GIDMappings
	}
	var pair idmap.Pair
	var err error
	if pair.UID, err = mapOf(uids); err == nil {
		pair.GID, err = mapOf(gids)
	}
	if err != nil {
		return err
	}
	ns, err := userns.New(pair)
	if err != nil {
		return err
	}
	defer ns.Close()
	return mnt.Idmap(clone, ns, recursive)
}
