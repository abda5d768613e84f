package spec

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/cgroup"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// ownDev are the directories of /dev that a container has of its own, and the
// nodes it gets in any case or from its terminal.
var ownDev = map[string]bool{
	"/dev/pts": true, "/dev/shm": true, "/dev/mqueue": true, "/dev/fd": true, "/dev/hugepages": true, "/dev/.lxc": true, "/dev/.lxd-mounts": true,
	"/dev/console": true, "/dev/ptmx": true,
	"/dev/null": true, "/dev/zero": true, "/dev/full": true, "/dev/random": true, "/dev/urandom": true, "/dev/tty": true,
}

// HostDevices are the device nodes below /dev of the host with their owners and
// modes, for a privileged container. Symbolic links are not followed, and nodes
// that vanish while they are looked at are left out.
func HostDevices() ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir("/dev", func(path string, e fs.DirEntry, err error) error {
		switch {
		case ownDev[path] && e != nil && e.IsDir():
			return fs.SkipDir
		case ownDev[path], err != nil && path != "/dev":
			return nil
		case err != nil:
			return err
		}
		if d, ok := device(path, e); ok {
			out = append(out, d)
		}
		return nil
	})
	return out, fault.Wrap(fault.Internal, "list devices in", "/dev", err, "")
}

func device(path string, e fs.DirEntry) (specs.LinuxDevice, bool) {
	if e.Type()&fs.ModeDevice == 0 || strings.ContainsAny(path, "\x00\n") {
		return specs.LinuxDevice{}, false
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return specs.LinuxDevice{}, false
	}
	d := specs.LinuxDevice{Path: path, Type: "b", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		d.Type = "c"
	}
	mode := fs.FileMode(st.Mode & 0o777)
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, true
}

// GivenDevice is a node of the host's that a container was given by name.
type GivenDevice struct {
	Host   string            // its path on the host
	Node   specs.LinuxDevice // as the container sees it
	Access string            // of r, w and m
}

// GivenDevices looks up what --device names: a node, or the nodes in a directory
// and those below it. Errors are in Docker's words.
func GivenDevices(list []record.Device) ([]GivenDevice, error) {
	var out []GivenDevice
	for _, d := range list {
		found, err := givenDevice(d)
		if err == nil && len(found) == 0 {
			err = fault.Say(fault.Invalid, "not a device node")
		}
		if err != nil {
			return nil, fault.Say(fault.Invalid, fmt.Sprintf("error gathering device information while adding custom device %q: %v", d.Host, err))
		}
		out = append(out, found...)
	}
	return out, nil
}

func givenDevice(d record.Device) (out []GivenDevice, err error) {
	host, err := filepath.EvalSymlinks(d.Host)
	if err != nil {
		return nil, unwrapped(err)
	}
	err = filepath.WalkDir(host, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has vanished, or is not to be read
		}
		node, ok := device(path, e)
		if !ok {
			return nil
		}
		node.Path = filepath.Clean(d.Container) + strings.TrimPrefix(path, host)
		out = append(out, GivenDevice{Host: path, Node: node, Access: cmp.Or(d.Access, "rwm")})
		return nil
	})
	return out, err
}

// unwrapped is the bare reason of a failure, which Docker says without the path.
func unwrapped(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return err
}

// addDevices puts the given devices into a configuration, and the rules for all
// that the container may open.
//
// In a user namespace no node can be made: they are the host's, bound, and only
// their own mode tells who may open them there, as their owners are nobody the
// container knows. What it was not given it cannot reach, so rules are added only
// where they say less than that.
func addDevices(s *specs.Spec, c record.Container, f Facts, pair idmap.Pair) {
	if c.Privileged {
		return // it has all
	}
	ruled := pair.IsZero() && f.Guarded || len(c.Resources.DeviceRules) > 0
	for _, d := range f.Given {
		ruled = ruled || d.Access != "rwm"
		if pair.IsZero() {
			s.Linux.Devices = append(s.Linux.Devices, d.Node)
			continue
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: d.Node.Path, Type: "bind", Source: d.Host, Options: []string{"bind", "nosuid", "noexec", "rprivate"}})
	}
	if !ruled {
		return
	}
	rules := append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, cgroup.OwnDevices()...)
	for _, d := range f.Given {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Node.Type, Major: &d.Node.Major, Minor: &d.Node.Minor, Access: d.Access})
	}
	for _, text := range c.Resources.DeviceRules {
		rules = append(rules, ruleOf(text))
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Devices = rules
}

// ruleOf reads a rule that a door has checked: "c 1:* rwm".
func ruleOf(text string) specs.LinuxDeviceCgroup {
	fields := strings.Fields(text)
	major, minor, _ := strings.Cut(fields[1], ":")
	return specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Major: numberOr(major), Minor: numberOr(minor), Access: fields[2]}
}

// numberOr is nil for "*", which is every number.
func numberOr(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}
