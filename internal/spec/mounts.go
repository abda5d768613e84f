package spec

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// defaultShm is the size of /dev/shm unless another is asked for.
const defaultShm = 64 << 20

// ShmPath is where POSIX shared memory is, in containers and on the host;
// shm_overview(7).
const (
	ShmPath = "/dev/shm"
	HostShm = "/dev/shm"
)

// mounts are Docker's, less those the user replaces, then the user's and the
// engine's files from the root downwards, then the init binary.
func mounts(c record.Container, f Facts, pair idmap.Pair) ([]specs.Mount, error) {
	own, err := ownMounts(c, f)
	if err != nil {
		return nil, err
	}
	replaced := func(m specs.Mount) bool {
		return slices.ContainsFunc(own, func(o specs.Mount) bool {
			return o.Destination == m.Destination || o.Destination == "/dev" && strings.HasPrefix(m.Destination, "/dev/")
		})
	}
	out := append(slices.DeleteFunc(standardMounts(c, f, pair), replaced), own...)
	if !c.Init {
		return out, nil
	}
	if f.Init == "" {
		return nil, fault.New(fault.Internal, "add init process", "", "the init binary is not known", "")
	}
	return append(out, specs.Mount{Destination: initPath, Type: "bind", Source: f.Init, Options: []string{"bind", "ro"}}), nil
}

func standardMounts(c record.Container, f Facts, pair idmap.Pair) []specs.Mount {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if _, ok := pair.GID.ToHost(5); ok || pair.IsZero() {
		// An unmapped group is EINVAL for devpts; 5 is tty.
		pts = append(pts, "gid=5")
	}
	shm := c.ShmSize
	if shm <= 0 {
		shm = defaultShm
	}
	out := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: ShmPath, Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
	}
	for i := range out {
		if c.Privileged && (out[i].Type == "sysfs" || out[i].Type == "cgroup") {
			out[i].Options = slices.DeleteFunc(out[i].Options, func(o string) bool { return o == "ro" })
		}
		if out[i].Destination == ShmPath && (f.Shared.Shm != "" || c.IPCMode == "host") {
			source := cmp.Or(f.Shared.Shm, HostShm)
			out[i] = specs.Mount{Destination: ShmPath, Type: "bind", Source: source, Options: []string{"bind", "nosuid", "noexec", "nodev", "rprivate"}}
		}
	}
	return slices.DeleteFunc(out, func(m specs.Mount) bool {
		return m.Type == "cgroup" && !f.Cgroup2 || m.Destination == ShmPath && c.IPCMode == "none"
	})
}

// ownMounts are the user's mounts and the files the engine writes, sorted so
// that a mount point never hides one made before it.
func ownMounts(c record.Container, f Facts) ([]specs.Mount, error) {
	var out []specs.Mount
	for _, m := range c.Mounts {
		target := path.Clean(m.Target)
		switch {
		case !path.IsAbs(m.Target):
			return nil, fault.Say(fault.Invalid, fmt.Sprintf("invalid mount path: '%s' mount path must be absolute", m.Target))
		case target == "/":
			return nil, fault.Say(fault.Invalid, "invalid specification: destination can't be '/'")
		case target == "/dev" && c.Init:
			return nil, fault.New(fault.Invalid, "mount over", "/dev", "the init process is there", "leave out --init or the mount")
		case mountedAt(out, target):
			return nil, fault.Say(fault.Invalid, "Duplicate mount point: "+target)
		}
		mount, err := ownMount(m, target)
		if err != nil {
			return nil, err
		}
		out = append(out, mount)
	}
	for _, file := range []struct{ target, source string }{{"/etc/hostname", f.Hostname}, {"/etc/hosts", f.Hosts}, {"/etc/resolv.conf", f.Resolv}} {
		if file.source != "" && !mountedAt(out, file.target) {
			out = append(out, bind(record.Mount{Source: file.source, ReadOnly: c.ReadOnly, Recursive: true}, file.target))
		}
	}
	slices.SortStableFunc(out, func(a, b specs.Mount) int {
		depth := cmp.Compare(strings.Count(a.Destination, "/"), strings.Count(b.Destination, "/"))
		return cmp.Or(depth, strings.Compare(a.Destination, b.Destination))
	})
	return out, nil
}

func mountedAt(mounts []specs.Mount, target string) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool { return m.Destination == target })
}

func ownMount(m record.Mount, target string) (specs.Mount, error) {
	switch m.Kind {
	case "bind":
		return bind(m, target), nil
	case "volume", "image":
		m.Recursive = true
		return bind(m, target), nil
	case "tmpfs":
		return tmpfs(m, target), nil
	}
	return specs.Mount{}, fault.New(fault.Invalid, "mount", target, fmt.Sprintf("mount type %q is unknown", m.Kind), "")
}

func bind(m record.Mount, target string) specs.Mount {
	options := []string{"bind"}
	if m.Recursive {
		options[0] = "rbind"
	}
	if m.ReadOnly {
		options = append(options, "ro")
		if m.Recursive && !m.ReadOnlyTop {
			options = append(options, "rro")
		}
	}
	if m.Propagation == "" {
		m.Propagation = "rprivate"
	}
	return specs.Mount{Destination: target, Type: "bind", Source: m.Source, Options: append(options, m.Propagation)}
}

func tmpfs(m record.Mount, target string) specs.Mount {
	options := []string{"nosuid", "nodev"}
	if !m.TmpfsExec {
		options = append(options, "noexec")
	}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	mode := m.TmpfsMode
	if mode == 0 {
		mode = 0o1777
	}
	options = append(options, fmt.Sprintf("mode=%o", mode))
	if m.TmpfsSize > 0 {
		options = append(options, "size="+strconv.FormatInt(m.TmpfsSize, 10))
	}
	options = append(options, m.TmpfsOptions...)
	return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options}
}
