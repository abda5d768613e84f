// Package spec turns the record of a container into its OCI runtime
// configuration, in which nothing is left to a runtime's defaults that Docker
// decides itself. The same record and facts always give the same bytes.
package spec

import (
	"fmt"
	"maps"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/record"
)

// Facts is what a configuration needs and the record does not say.
type Facts struct {
	User     User   // of the process; see LookupUser
	Hostname string // host path of the file bound at /etc/hostname; empty: none
	Hosts    string // the same for /etc/hosts
	Resolv   string // the same for /etc/resolv.conf
	Init     string // host path of the binary that is process 1 of a container with Init

	CgroupsPath string // of the container's group; empty: it has none
	Cgroup2     bool   // the kernel has a cgroup v2 hierarchy to show at /sys/fs/cgroup

	Rlimits  []record.Ulimit // what the daemon was started with, which containers inherit; see HostLimits
	LastCap  int             // the kernel's highest capability
	Bounding []string        // the capabilities that the daemon can give at all; nil: all there are
	Masked   []string        // paths to mask besides the usual ones; see HostMasks

	Guarded bool          // device rules can be put into force at the container's cgroup
	Given   []GivenDevice // those of the container's Resources; see GivenDevices

	Shared  Shared              // namespaces of other containers
	Devices []specs.LinuxDevice // of the host, for a privileged container; see HostDevices

	Profiles *Profiles // keeps system call filters from one configuration to the next; nil: each has its own
}

// Shared is what a container gets of other containers.
type Shared struct {
	Paths map[specs.LinuxNamespaceType]string // of the namespaces to join
	Files string                              // directory of hosts, hostname and resolv.conf that belong to the network; empty: its own
	Shm   string                              // source of /dev/shm; empty: its own
}

// User is who a process runs as, in ids of the container.
type User struct {
	UID, GID uint32
	Groups   []uint32 // additional groups
	Home     string
}

// initPath is where the binary of a container with Init is seen: in /dev,
// which is the container's own and writable, so that no file has to be made in
// the root file system, which may be read-only.
const initPath = "/dev/fief-init"

// Build makes the runtime configuration of c. root.path is "rootfs": the root
// file system is handed over as a descriptor, or made below the bundle.
//
// Errors are faults of class Invalid, in Docker's words where it has some, for
// requests that cannot be put into a configuration.
func Build(c record.Container, f Facts) (*specs.Spec, error) {
	pair, err := identity(c)
	if err != nil {
		return nil, err
	}
	process, err := process(c, f, pair)
	if err != nil {
		return nil, err
	}
	mounts, err := mounts(c, f, pair)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: "rootfs", Readonly: c.ReadOnly},
		Hostname:    c.Hostname,
		Domainname:  c.Domainname,
		Mounts:      mounts,
		Annotations: c.Annotations,
		Linux: &specs.Linux{
			UIDMappings:       mappings(pair.UID),
			GIDMappings:       mappings(pair.GID),
			Namespaces:        namespaces(c, f, pair),
			Sysctl:            sysctls(c, pair),
			CgroupsPath:       f.CgroupsPath,
			RootfsPropagation: propagation(c.Mounts),
			MaskedPaths:       append(maskedPaths(), f.Masked...),
			ReadonlyPaths:     []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if foreign(c.UTSMode) {
		s.Hostname, s.Domainname = "", "" // the name is another's to give
	}
	if c.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Linux.Devices = nil, nil, f.Devices
	}
	if s.Linux.Resources, err = Resources(c.Resources); err != nil {
		return nil, err
	}
	addDevices(s, c, f, pair)
	if c.Resources.OomScoreAdj != 0 {
		s.Process.OOMScoreAdj = &c.Resources.OomScoreAdj
	}
	s.Linux.Seccomp, err = filter(c, s, f.Profiles)
	return s, err
}

// identity reads the container's maps; both are zero without a user namespace.
func identity(c record.Container) (idmap.Pair, error) {
	if c.Identity.Mode == "host" {
		return idmap.Pair{}, nil
	}
	uid, err := idmap.New(c.Identity.UID...)
	if err != nil {
		return idmap.Pair{}, err
	}
	gid, err := idmap.New(c.Identity.GID...)
	if err != nil {
		return idmap.Pair{}, err
	}
	if uid.IsZero() || gid.IsZero() {
		return idmap.Pair{}, fault.New(fault.Invalid, "use id map", "", "it maps nothing", "map at least id 0")
	}
	if c.Network == "host" {
		// The network namespace belongs to the host's user namespace: the
		// container could neither mount sysfs nor use a capability in it.
		return idmap.Pair{}, &fault.Error{Class: fault.Invalid,
			Cause: fault.Say(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled"),
			Hint:  "add --userns=host, or use another network"}
	}
	return idmap.Pair{UID: uid, GID: gid}, nil
}

func mappings(m idmap.Map) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, s := range m.Spans() {
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(s.In), HostID: uint32(s.Out), Size: s.N})
	}
	return out
}

// namespaces are those of the container's own, which have no path, and those
// it joins. One that is missing is the host's.
func namespaces(c record.Container, f Facts, pair idmap.Pair) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		mode string
	}{
		{specs.PIDNamespace, c.PIDMode}, {specs.IPCNamespace, c.IPCMode}, {specs.UTSNamespace, c.UTSMode},
		{specs.CgroupNamespace, c.CgroupnsMode}, {specs.NetworkNamespace, c.Network},
	} {
		if n.mode != "host" {
			out = append(out, specs.LinuxNamespace{Type: n.kind, Path: f.Shared.Paths[n.kind]})
		}
	}
	if !pair.IsZero() {
		out = append(out, specs.LinuxNamespace{Type: specs.UserNamespace, Path: f.Shared.Paths[specs.UserNamespace]})
	}
	return out
}

// foreign reports whether a namespace is the host's or another container's.
func foreign(mode string) bool { return mode == "host" || strings.HasPrefix(mode, "container:") }

// sysctls let every process of a container with a network of its own ping and
// listen on low ports, as in Docker.
// What was asked for comes over it.
func sysctls(c record.Container, pair idmap.Pair) map[string]string {
	if foreign(c.Network) {
		return c.Sysctls
	}
	out := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	if last, ok := lastPinger(pair); ok {
		out["net.ipv4.ping_group_range"] = fmt.Sprintf("0 %d", last)
	}
	maps.Copy(out, c.Sysctls)
	return out
}

// lastPinger is the end of the group range that may ping. The kernel wants
// both ends mapped (else EINVAL), and compares host ids: a range whose end has
// a lower host id than its start lets nobody ping (net/ipv4/sysctl_net_ipv4.c,
// ipv4_ping_group_range).
func lastPinger(pair idmap.Pair) (idmap.Inside, bool) {
	if pair.IsZero() {
		return 1<<31 - 1, true
	}
	spans := pair.GID.Spans()
	if spans[0].In != 0 {
		return 0, false
	}
	last := spans[0]
	if top := spans[len(spans)-1]; top.Out > last.Out {
		last = top
	}
	return last.In + idmap.Inside(last.N-1), true
}

// propagation of the root follows the mounts', as a shared or slave mount below
// a private root would have lost its peers before it is made.
func propagation(mounts []record.Mount) string {
	out := ""
	for _, m := range mounts {
		switch m.Propagation {
		case "shared", "rshared":
			return "shared"
		case "slave", "rslave":
			out = "rslave"
		}
	}
	return out
}

// maskedPaths hide what tells about, or reaches, the host: Docker's list.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound",
		"/proc/interrupts", // keystroke timing, GHSA-6fw5-f8r9-fgfm
		"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", // power side channel, GHSA-jq35-85cj-fj4p
		"/sys/firmware",
	}
}
