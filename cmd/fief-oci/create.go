package main

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"fief/internal/kernel/link"
	"fief/internal/launch"
	"fief/internal/runtime"
	"fief/internal/words/fault"
	"fief/internal/words/plan"
)

// creation holds the options of create and run.
type creation struct {
	app     *app
	bundle  string
	pidFile string
	console string
	noKeys  bool
	noPivot bool
	config  string
	pass    passing
	front   *foreground // of run, unless detached
}

func newCreation(a *app, set *flag.FlagSet) *creation {
	c := &creation{app: a}
	set.StringVar(&c.bundle, "bundle", ".", "directory of config.json")
	set.StringVar(&c.bundle, "b", ".", "short for --bundle")
	set.StringVar(&c.pidFile, "pid-file", "", "write the pid of the container here")
	set.StringVar(&c.console, "console-socket", "", "unix socket that receives the terminal")
	set.BoolVar(&c.noKeys, "no-new-keyring", false, "keep the caller's session keyring")
	set.BoolVar(&c.noPivot, "no-pivot", false, "refused: it leaves the host's tree in reach")
	set.StringVar(&c.config, "config", "config.json", "file to read instead, relative to the bundle")
	set.StringVar(&c.config, "f", "config.json", "short for --config")
	set.Bool("no-subreaper", false, "ignored: nothing else is reaped")
	c.pass.flags(a, set)
	return c
}

func createCommand(a *app, set *flag.FlagSet) func([]string) error {
	c := newCreation(a, set)
	return func(args []string) error {
		id, err := one(args)
		if err != nil {
			return err
		}
		box, proc, err := c.create(id)
		if err != nil {
			return err
		}
		if proc.Console < 0 {
			return nil
		}
		if err := sendConsole(c.console, proc.Console); err != nil {
			box.destroy()
			return err
		}
		return nil
	}
}

// create makes a container up to its gate. On failure nothing is left of it.
func (c *creation) create(id string) (*container, runtime.Process, error) {
	none := runtime.Process{}
	if err := c.check(id); err != nil {
		return nil, none, err
	}
	bundle, err := filepath.Abs(c.bundle)
	if err != nil {
		return nil, none, err
	}
	name := c.config
	if !filepath.IsAbs(name) {
		name = filepath.Join(bundle, name)
	}
	spec, raw, err := loadSpec(name)
	if err != nil {
		return nil, none, err
	}
	if err := mayName(spec); err != nil {
		return nil, none, err
	}
	if err := protect(spec, c.pass.inherited); err != nil {
		return nil, none, err
	}
	box := &container{ID: id, Bundle: bundle, Rootfs: spec.Root.Path, Created: time.Now(), Annotations: spec.Annotations, dir: filepath.Join(c.app.root, id), config: spec, systemd: c.app.systemd}
	if !filepath.IsAbs(box.Rootfs) {
		box.Rootfs = filepath.Join(bundle, box.Rootfs)
	}
	if err := box.makeDir(c.app.root); err != nil {
		return nil, none, err
	}
	proc, err := c.launch(box, spec, raw)
	if err != nil && box.hooked {
		box.end(spec)
	}
	if err != nil {
		box.destroy()
		return nil, none, err
	}
	return box, proc, nil
}

func (c *creation) check(id string) error {
	if c.noPivot {
		return fault.New(fault.Unsupported, "create container", id, "--no-pivot is refused", "use a root file system that is not the initial ramdisk")
	}
	return validID(id)
}

// mayName refuses names that would become the host's.
func mayName(s *specs.Spec) error {
	named := slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
	if named || s.Hostname+s.Domainname == "" {
		return nil
	}
	return fault.New(fault.Invalid, "set hostname", s.Hostname+s.Domainname, "the container has no UTS namespace: it would be the host's name", "give it one, or leave hostname and domainname out")
}

// mayRun refuses, for a container whose devices nothing guards, what would be
// less isolated than asked for.
func mayRun(s *specs.Spec) error {
	if s.Process == nil || ownUserns(s) || s.Process.Capabilities == nil {
		return nil
	}
	for _, name := range s.Process.Capabilities.Bounding {
		if name == "CAP_MKNOD" {
			return fault.New(fault.Unsupported, "give", "CAP_MKNOD", "no device controller guards devices of a container without user namespace",
				"add a user namespace or leave the capability out")
		}
	}
	return nil
}

func (c *container) makeDir(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fault.Wrap(fault.Internal, "make", root, err, "")
	}
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fault.New(fault.Exists, "create container", c.ID, "container with given ID already exists", "delete it first")
	}
	return fault.Wrap(fault.Internal, "make", c.dir, err, "")
}

// launch starts the container's process and saves its state.
func (c *creation) launch(box *container, spec *specs.Spec, raw []byte) (runtime.Process, error) {
	none := runtime.Process{}
	own := *spec // the container's stays as the bundle has it
	spec = &own
	f := &files{bundle: box.Bundle, spec: spec, given: map[string]int{"stdin": 0, "stdout": 1, "stderr": 2}}
	defer f.close()
	if err := f.joinUser(); err != nil {
		return none, err
	}
	if err := spellMaps(spec); err != nil { // relative to the maps of a joined user namespace, too
		return none, err
	}
	if err := box.saveSpec(spec, raw); err != nil { // with the maps of a joined user namespace
		return none, err
	}
	if spec.Process == nil {
		spec.Process = noProcess()
	}
	if err := box.offerNotify(spec); err != nil {
		return none, err
	}
	gate, err := box.makeGate()
	if err != nil {
		return none, err
	}
	f.give("gate", gate)
	hooks, err := box.makeHooks(spec, f)
	if err != nil {
		return none, err
	}
	opt := launch.Options{ID: box.ID, Gate: true, Nested: nested(), NoKeys: c.noKeys, Assists: true}
	if err := c.pass.open(f, &opt, spec.Process); err != nil {
		return none, err
	}
	if err := c.group(box, spec, f, &opt); err != nil {
		return none, err
	}
	if err := withhold(spec, spec.Process); err != nil {
		return none, err
	}
	p, err := newCompiler().Container(spec, opt)
	if err != nil {
		return none, err
	}
	proc, err := start(c.app, &p, f, runtime.Callbacks{Listener: box.listener(spec, specs.StateCreating), Prepare: func(pid int) error {
		box.PID = pid
		if err := moveDevices(spec, pid); err != nil {
			return err
		}
		box.hooked = spec.Hooks != nil
		if err := runHooks(spec, box, "prestart", "createRuntime"); err != nil {
			return err
		}
		return hooks.tell()
	}}, func() error { // beside the container's own work
		c.front.catch(spec.Process.Terminal)
		box.StartTime, _, _ = processTime(box.PID)
		return box.write()
	})
	if err != nil {
		return none, hooks.explain(err)
	}
	defer unix.Close(proc.PIDFD)
	if err := box.commit(); err != nil {
		return none, err
	}
	if err := c.pass.sendPidfd("standard", proc.PIDFD); err != nil {
		return none, err
	}
	return proc, writePIDFile(c.pidFile, proc.PID)
}

// noProcess stands for the process of a bundle without one, which can be created
// and not started (config.md, process): it waits at the gate, with no capability,
// and would fail to be executed.
func noProcess() *specs.Process {
	return &specs.Process{Cwd: "/", Args: []string{"/"}, Capabilities: &specs.LinuxCapabilities{}, NoNewPrivileges: true}
}

// group puts the container into its cgroup, unless the caller wants it in his.
func (c *creation) group(box *container, s *specs.Spec, f *files, opt *launch.Options) error {
	if !c.app.groupless {
		return box.enterCgroup(s, f, opt)
	}
	if !limitless(s.Linux.Resources) {
		return fault.New(fault.Invalid, "limit container", box.ID, "it is to have no cgroup", "leave its resources out")
	}
	return mayRun(s)
}

// moveDevices moves the spec's network devices into the container's network
// namespace, in the order of their names.
func moveDevices(s *specs.Spec, pid int) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return fault.Wrap(fault.Internal, "open network namespace", "", err, "")
	}
	defer ns.Close()
	for _, name := range slices.Sorted(maps.Keys(s.Linux.NetDevices)) {
		if err := link.Move(ns, name, s.Linux.NetDevices[name].Name); err != nil {
			return err
		}
	}
	return nil
}

// start carries out a plan and puts a failure into words. meanwhile works beside
// the process.
func start(a *app, p *plan.Plan, f *files, during runtime.Callbacks, meanwhile func() error) (runtime.Process, error) {
	fds, err := f.list(p.Files)
	if err != nil {
		return runtime.Process{}, err
	}
	soften(p)
	encoded, err := p.Encode()
	if err != nil {
		return runtime.Process{}, err
	}
	lean, _ := runtime.NewLean() // without /proc the child has a copy of this process's memory, which costs time alone
	proc, err := lean.StartAt(encoded, fds, during, meanwhile)
	var failure *plan.Failure
	if errors.As(err, &failure) {
		if a.debug {
			os.Stderr.WriteString(p.String())
		}
		return proc, p.ExplainFailure(failure)
	}
	return proc, err
}

// nested reports whether this process is in a user namespace itself. The
// initial one has a fixed inode (PROC_USER_INIT_INO); its map's text does not
// tell.
func nested() bool {
	var st unix.Stat_t
	const initial = 0xEFFFFFFD
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino != initial
}

// makeGate makes the FIFO that start writes to. It is opened for both, so that
// it is never at its end while nobody has it open for writing.
func (c *container) makeGate() (int, error) {
	name := filepath.Join(c.dir, "gate")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		return -1, fault.Wrap(fault.Internal, "make", name, err, "")
	}
	return openNamed(name, unix.O_RDWR, "open")
}

func writePIDFile(name string, pid int) error {
	if name == "" {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	if err := os.WriteFile(temporary, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fault.Wrap(fault.Internal, "write pid file", name, err, "")
	}
	return fault.Wrap(fault.Internal, "write pid file", name, os.Rename(temporary, name), "")
}

// destroy kills the container, all processes of its group included, and removes
// all that is left of it.
func (c *container) destroy() {
	if c.PID > 0 && c.status() != specs.StateStopped {
		if fd, err := c.pidfd(); err == nil {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			unix.Poll(poll, 10000)
			unix.Close(fd)
		}
	}
	c.removeCgroup()
	os.RemoveAll(c.dir)
}
