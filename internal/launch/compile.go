// Package launch turns an OCI spec into a launch plan. It is pure: nothing is
// opened, nothing is looked up on the machine, and the same spec gives the same
// plan.
//
// The order of a container's plan follows from what the kernel allows
// (user_namespaces(7), mount_namespaces(7)): the root file system is attached first, so that every
// later path is resolved in it, by its descriptor, and nowhere else; proc and sysfs are mounted
// before it becomes the root and the old one is detached, as the kernel wants to see an
// unmasked one (mount_too_revealing); masks follow all mounts; capabilities and the system
// call filter come last.
package launch

import (
	"strconv"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// Compiler makes plans. Filter compiles a seccomp profile to the kernel's
// program and flags; Key is a fingerprint of a profile, under which compiled
// programs are kept: without it none is. A Compiler may be used by several goroutines. Plans may be
// given back with Release.
type Compiler struct {
	Filter func(*specs.LinuxSeccomp) ([]unix.SockFilter, uint, error)
	Key    func(*specs.LinuxSeccomp) [32]byte

	mu      sync.Mutex
	filters map[[32]byte]filter // guarded by mu
	spare   []*memory           // guarded by mu
}

// Options is what a spec does not say.
type Options struct {
	ID     string   // names the session keyring
	Cgroup bool     // a descriptor of the cgroup to start in is given (CLONE_INTO_CGROUP)
	Groups int      // descriptors of cgroup.procs files of v1 are given, to each of which the child writes itself
	Gate   bool     // a descriptor is given that is read before execve
	Extra  []string // targets of prepared mounts that the spec does not list
	Nested bool     // the caller runs in a user namespace itself: device nodes cannot be made
	Trace  bool     // note times
	NoKeys bool     // no session keyring of its own
	Passed int      // so many descriptors, numbered from FirstPassed on, are the program's, too

	// Assists says that the caller does what a plan alone cannot of network
	// devices, hooks, tmpcopyup and a seccomp listener; without it a spec with them is refused.
	Assists bool
	// Bundle says that createContainer hooks find a mount that the caller has made
	// on the directory of the spec's root, with that directory in it.
	Bundle bool
}

// compilation is one spec on its way to a plan.
type compilation struct {
	compiler *Compiler
	spec     *specs.Spec
	process  *specs.Process
	opt      Options
	b        *builder
	ns       namespaces

	root, dev, proc, pts plan.Slot
	boundProc            plan.Slot // what is bound on /proc, whatever that is
	places               []place
	ownDev               bool // /dev is a file system of the container's own
	devReadOnly          bool
	null                 plan.Slot // a clone of /dev/null, attached or not
	joined               bool      // the process joins a running container
	filtered             bool      // the system call filter is loaded before the gate
}

// Container makes the plan that starts a container of spec s. The plan expects,
// in this order: "cgroup" (option), "group:<i>" for each of Groups, a namespace file "ns:<type>" for each
// namespace with a path, "rootfs" (a detached mount), "mount:<i>" (a detached
// mount) for each bind among the spec's mounts and each that Prepared speaks of,
// "extra:<target>" for each extra mount, then "stdin", "stdout", "stderr" unless
// the process has a terminal, "gate" (option), and "passed:<i>" for each of Passed,
// which is descriptor FirstPassed+i.
//
// "hooks:createContainer" and "hooks:startContainer" follow for a spec with such
// hooks: files whose content, the container's state, is complete when the child is
// told to go; with the former "hooks:output", a file that takes what the hooks
// print, and "hooks:bundle" (option), a detached mount. With hooks of the start, "answer" is what the child writes a byte to when
// one of them fails, and closes when the program runs. The root's path must then
// be absolute.
//
// A spec that joins a user namespace says its maps: nobody writes them, but ids
// are looked up in them.
func (c *Compiler) Container(s *specs.Spec, o Options) (plan.Plan, error) {
	n, err := c.begin(s, s.Process, o)
	if err != nil {
		return plan.Plan{}, err
	}
	n.files()
	if err := n.clone(); err != nil {
		return plan.Plan{}, err
	}
	if len(n.ns.joins) > 0 {
		n.enter()
	} else {
		n.shed()
		n.joinGroups()
	}
	n.makeClocks()
	n.wake()
	n.enterClocks()
	n.identity()
	n.b.mark("woken")
	n.openLabels()
	n.isolateMounts()
	if err := n.cloneDevices(); err != nil {
		return plan.Plan{}, err
	}
	n.attachRoot()
	n.b.mark("root")
	for _, stage := range []func() error{n.mounts, n.devices, n.terminal} {
		if err := stage(); err != nil {
			return plan.Plan{}, err
		}
	}
	n.createContainerHooks()
	n.leaveOldRoot()
	n.b.mark("mounted")
	if n.ns.has(unix.CLONE_NEWUTS) {
		n.names()
	}
	n.loopback()
	if err := n.sysctls(); err != nil {
		return plan.Plan{}, err
	}
	n.workdir()
	n.restrictPaths()
	n.b.mark("masked")
	if err := n.secure(); err != nil {
		return plan.Plan{}, err
	}
	n.b.mark("secured")
	n.exec()
	return n.b.plan, nil
}

// begin checks what every plan needs.
func (c *Compiler) begin(s *specs.Spec, p *specs.Process, o Options) (*compilation, error) {
	if s.Linux == nil || p == nil || len(p.Args) == 0 {
		return nil, fault.New(fault.Invalid, "plan launch", o.ID, "the spec has no linux section, process or arguments", "")
	}
	if err := refuse(s, o); err != nil {
		return nil, err
	}
	n := &compilation{compiler: c, spec: s, process: p, opt: o, b: c.newBuilder(o)}
	var err error
	if n.ns, err = namespacesOf(s.Linux.Namespaces); err != nil {
		return nil, err
	}
	if !n.ns.mapped() && len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 {
		return nil, fault.New(fault.Invalid, "use id map", "", "the container has no user namespace", "give it one, or leave uidMappings and gidMappings out")
	}
	if p := s.Linux.RootfsPropagation; p != "" {
		if _, ok := propagationOf(p); !ok {
			return nil, fault.New(fault.Invalid, "use rootfsPropagation", strconv.Quote(p), "not known", "it is shared, slave, private or unbindable")
		}
	}
	if len(s.Linux.NetDevices) > 0 && !n.ns.has(unix.CLONE_NEWNET) && !n.ns.joinsAny(unix.CLONE_NEWNET) {
		return nil, fault.New(fault.Invalid, "move network devices", "", "the container has no network namespace", "give it one")
	}
	return n, nil
}

// refuse names the parts of a spec that fief cannot carry out: each would
// otherwise be an isolation silently missing.
func refuse(s *specs.Spec, o Options) error {
	for _, r := range []struct {
		what  string
		given bool
	}{
		{"intelRdt", asksRdt(s.Linux.IntelRdt)},
		{"network devices", len(s.Linux.NetDevices) > 0 && !o.Assists},
		{"createContainer hooks", s.Hooks != nil && len(s.Hooks.CreateContainer) > 0 && !o.Assists},
		{"startContainer hooks", s.Hooks != nil && len(s.Hooks.StartContainer) > 0 && !o.Assists},
		{"a section for Solaris", s.Solaris != nil},
		{"a section for Windows", s.Windows != nil},
		{"a section for virtual machines", s.VM != nil},
		{"a section for z/OS", s.ZOS != nil},
		{"a section for FreeBSD", s.FreeBSD != nil},
	} {
		if r.given {
			return fault.New(fault.Unsupported, "launch with", r.what, "not supported by this runtime", "use another runtime, or leave it out")
		}
	}
	return nil
}

// asksRdt: a section that says nothing asks for nothing.
func asksRdt(r *specs.LinuxIntelRdt) bool {
	return r != nil && (r.ClosID != "" || len(r.Schemata) > 0 || r.L3CacheSchema != "" || r.MemBwSchema != "" || r.EnableMonitoring)
}
