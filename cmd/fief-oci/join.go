package main

import (
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/space"
	"fief/internal/kernel/userns"
	"fief/internal/launch"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
)

// joined opens the namespace of a kind that the spec joins; nil when there is
// none. The caller closes it.
func (f *files) joined(kind specs.LinuxNamespaceType) (*os.File, error) {
	i := slices.IndexFunc(f.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path != "" })
	if i < 0 {
		return nil, nil
	}
	path := f.spec.Linux.Namespaces[i].Path
	ns, err := os.Open(path)
	return ns, fault.Wrap(fault.NotFound, "join namespace", path, err, "")
}

// joinUser opens the user namespace that the spec joins and fills in its maps,
// which config.json may leave out. Maps that are given and not that namespace's
// are refused: ids would be taken for others. So is the host's own namespace,
// as a container in it is not what this looks like.
func (f *files) joinUser() error {
	ns, err := f.joined(specs.UserNamespace)
	if ns == nil || err != nil {
		return err
	}
	defer ns.Close()
	pair, err := userns.MapsOf(ns)
	if err != nil {
		return err
	}
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fault.Wrap(fault.Exhausted, "join namespace", ns.Name(), err, "")
	}
	f.give("ns:"+string(specs.UserNamespace), fd)
	l := f.spec.Linux
	for _, m := range []struct {
		kind string
		have *[]specs.LinuxIDMapping
		are  idmap.Map
	}{{"uidMappings", &l.UIDMappings, pair.UID}, {"gidMappings", &l.GIDMappings, pair.GID}} {
		if len(*m.have) > 0 && !says(*m.have, m.are) {
			return fault.New(fault.Invalid, "join namespace", ns.Name(), m.kind+" of config.json are not its maps", "leave them out")
		}
		*m.have = mappings(m.are)
	}
	return nil
}

// says reports whether a list of mappings is the map m.
func says(list []specs.LinuxIDMapping, m idmap.Map) bool {
	given, err := mapOf(list)
	return err == nil && given.Equal(m)
}

func mapOf(list []specs.LinuxIDMapping) (idmap.Map, error) {
	var spans []idmap.Span
	for _, l := range list {
		spans = append(spans, idmap.Span{In: idmap.Inside(l.ContainerID), Out: idmap.Host(l.HostID), N: l.Size})
	}
	return idmap.New(spans...)
}

func mappings(m idmap.Map) (out []specs.LinuxIDMapping) {
	for _, s := range m.Spans() {
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(s.In), HostID: uint32(s.Out), Size: s.N})
	}
	return out
}

// prepare makes a mount that shows a namespace which is not the container's own.
func (f *files) prepare(kind launch.Kind, m specs.Mount) (int, error) {
	ns, err := f.joined(kind.Namespace())
	if err != nil {
		return -1, err
	}
	if ns != nil {
		defer ns.Close()
	}
	var made *os.File
	switch kind {
	case launch.Proc:
		made, err = space.Proc(ns, launch.ProcOptions(m)...)
	case launch.Sysfs:
		made, err = space.Sysfs(ns)
	case launch.Mqueue:
		made, err = space.Mqueue(ns)
	case launch.Cgroup2:
		made, err = space.Cgroup2(ns)
	}
	if err != nil {
		return -1, err
	}
	defer made.Close()
	return keep(made)
}
