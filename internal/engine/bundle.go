package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/launch"
	"fief/internal/monitor"
	"fief/internal/network"
	"fief/internal/snapshot"
	"fief/internal/spec"
	"fief/internal/volume"
	"fief/internal/words/ask"
	"fief/internal/words/errand"
	"fief/internal/words/fault"
	"fief/internal/words/idmap"
	"fief/internal/words/plan"
	"fief/internal/words/record"
)

// bundle is a plan with the descriptors it expects, by name.
type bundle struct {
	compiler *launch.Compiler // the plan's
	plan     plan.Plan        // with an errand only the names of its descriptors
	errand   *errand.Errand   // what another runtime is to do instead; nil: nothing
	command  string           // of the errand's process
	files    map[string]*os.File
	net      monitor.Net
	hand     *network.Handover // of its network namespace; nil: none
	shm      *os.File          // another container's /dev/shm, detached; nil unless it is shared
	watch    volume.Watch      // who waits for it
}

func (e *Engine) newBundle() *bundle {
	return &bundle{compiler: e.rooms.Compiler, files: map[string]*os.File{}}
}

// close closes what the monitor has duplicates of by now, and gives the plan
// back: neither it nor what it was encoded to may be used any longer.
func (b *bundle) close() {
	if b.errand == nil {
		b.compiler.Release(&b.plan)
	}
	for _, f := range b.files {
		if f != nil {
			f.Close()
		}
	}
	if b.shm != nil {
		b.shm.Close()
	}
	if b.hand != nil {
		b.hand.Close()
	}
}

// slots orders the descriptors as the plan expects them, nil where the monitor
// makes one itself.
func (b *bundle) slots() []*os.File {
	out := make([]*os.File, len(b.plan.Files))
	for i, name := range b.plan.Files {
		out[i] = b.files[name]
	}
	return out
}

// encode returns what the monitor is to carry out.
func (b *bundle) encode() ([]byte, error) {
	if b.errand != nil {
		return b.errand.Encode(), nil
	}
	return b.plan.Encode()
}

// explain puts a failed step into words; other errors are as they are.
func (b *bundle) explain(err error) error {
	if b.errand != nil {
		return blame(err, b.command)
	}
	var f *plan.Failure
	if errors.As(err, &f) {
		err = b.plan.ExplainFailure(f)
		if output := b.files[hookOutput]; output != nil {
			err = plan.HookSaid(err, output)
		}
		return err
	}
	return err
}

// prepare takes a container through the doorways up to its plan. The caller
// closes the bundle and, unless the container is started, drops its group;
// nothing is left by a failure.
func (e *Engine) prepare(ctx context.Context, c *container, rec record.Container, tr *trace) (_ *bundle, err error) {
	b := e.newBundle()
	b.watch = watchOf(ctx)
	var back undo
	back.then(b.close)
	defer back.unless(&err)

	if err := e.makeRun(rec.ID); err != nil {
		return nil, err
	}
	if rec, err = e.follow(c, rec); err != nil {
		return nil, err
	}
	if err := e.checkSandbox(rec); err != nil {
		return nil, err
	}
	pair, err := pairOf(rec.Identity)
	if err != nil {
		return nil, err
	}
	if rec, err = e.attach(c, rec, b); err != nil {
		return nil, err
	}
	back.then(func() { e.detach(c) })
	joined, err := e.join(rec, pair, b)
	if err != nil {
		return nil, err
	}
	extra, err := e.prepareRoot(c, rec, pair, b)
	if err != nil {
		return nil, err
	}
	tr.mark("root file system")
	facts, err := e.factsOf(rec, pair, b.files["rootfs"], joined)
	if err != nil {
		return nil, err
	}
	rec.Env = e.linked(rec)
	config, err := spec.Build(rec, facts)
	if err != nil {
		return nil, err
	}
	if len(rec.Resources.CDI) > 0 {
		if err := e.rooms.Devices.Inject(config, rec.Resources.CDI); err != nil {
			return nil, err
		}
	}
	tr.mark("spec")
	if err := e.enterVolumes(rec); err != nil {
		return nil, err
	}
	back.then(func() { e.leaveVolumes(rec) })
	if err := e.prepareMounts(b, rec, config, pair); err != nil {
		return nil, err
	}
	c.volumesReady()
	if config.Hooks != nil {
		if err := e.hooked(b, rec, config, pair); err != nil {
			return nil, err
		}
	}
	tr.mark("mounts")
	group, groups, err := e.makeGroup(b, rec, config.Linux.Resources)
	if err != nil {
		return nil, err
	}
	back.then(func() { e.dropGroup(rec) })
	if !group && sharesProcesses(rec) {
		return nil, fault.New(fault.Unsupported, "share a pid namespace in container", rec.Name, "its processes could outlive it: there is no cgroup v2 hierarchy to end them by",
			"mount cgroup2 where fiefd can write to it, or leave out --pid")
	}
	if !isOwn(rec) {
		err = e.engage(c, b, config, extra, groups)
		tr.mark("bundle")
		return b, err
	}
	b.plan, err = e.rooms.Compiler.Container(config, launch.Options{ID: rec.ID, Cgroup: group, Groups: groups, Extra: extra, Assists: config.Hooks != nil, Bundle: config.Hooks != nil})
	tr.mark("plan")
	return b, err
}

// sharesProcesses reports whether the container's first process is none to its
// pid namespace: the others are not ended with it then.
func sharesProcesses(rec record.Container) bool {
	return rec.PIDMode != ""
}

// prepareRoot makes the root file system and returns the targets of the mounts
// that belong to it.
func (e *Engine) prepareRoot(c *container, rec record.Container, pair idmap.Pair, b *bundle) (extra []string, err error) {
	way, why := e.wayOf(rec, pair)
	mapped := c.takeMapped(way)
	if mapped == nil {
		if mapped, err = e.rooms.Layers.Maps(pair, way); err != nil {
			return nil, err
		}
	}
	sandboxed, err := e.sandboxed(rec)
	if err != nil {
		return nil, err
	}
	// Closing a mount descriptor waits for the kernel (an RCU grace period), and
	// the root file system lives on without it.
	defer func() { go mapped.Close() }()
	root, err := e.rooms.Layers.Rootfs(snapshot.Request{
		Mapped: mapped, Layers: rec.Rootfs.Layers, Host: rec.Rootfs.Host, Upper: rec.Rootfs.Upper,
		ReadOnly: rec.ReadOnly, Volatile: rec.Rootfs.Volatile, Unlocked: rec.ReadOnly && sandboxed,
	})
	if err != nil {
		return nil, err
	}
	b.files["rootfs"] = root.FD
	for _, x := range root.Extra {
		b.files["extra:"+x.Target] = x.FD
		extra = append(extra, x.Target)
	}
	if way != "" {
		root.Why = why
	}
	if root.Way != rec.Rootfs.Way || root.Why != rec.Rootfs.Why {
		c.change(func(r *record.Container) { r.Rootfs.Way, r.Rootfs.Why = root.Way, root.Why })
	}
	return extra, nil
}

// takeMapped takes the store's view that was made for the container, if any and
// if it is of that way; any will do when that is empty.
func (c *container) takeMapped(way string) *snapshot.Mapped {
	c.mu.Lock()
	m := c.mapped
	c.mapped = nil
	c.mu.Unlock()
	if m != nil && way != "" && m.Way() != way {
		go m.Close()
		return nil
	}
	return m
}

// factsOf collects what the spec needs beyond the record.
func (e *Engine) factsOf(rec record.Container, pair idmap.Pair, root *os.File, joined spec.Shared) (spec.Facts, error) {
	facts := e.cfg.Facts
	facts.Init, facts.Shared = e.cfg.InitBinary, joined
	if !isOwn(rec) {
		facts.CgroupsPath, _ = e.rooms.Cgroups.Show(groupOf(rec))
	}
	u := &facts.User
	var err error
	if u.UID, u.GID, u.Groups, u.Home, err = spec.LookupUser(root, rec.User, rec.Groups); err != nil {
		return facts, err
	}
	if facts.Given, err = spec.GivenDevices(rec.Resources.Devices); err != nil {
		return facts, err
	}
	if rec.Privileged {
		if facts.Devices, err = spec.HostDevices(); err != nil {
			return facts, err
		}
	}
	if dir := joined.Files; dir != "" {
		facts.Hosts, facts.Hostname, facts.Resolv = filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname"), filepath.Join(dir, "resolv.conf")
		return facts, nil
	}
	links, err := e.linkLines(rec)
	if err != nil {
		return facts, err
	}
	files, err := network.FilesFor(rec, links)
	if err != nil {
		return facts, err
	}
	for _, f := range []struct {
		name    string
		content []byte
		path    *string
	}{
		{"hosts", files.Hosts, &facts.Hosts}, {"hostname", files.Hostname, &facts.Hostname}, {"resolv.conf", files.Resolv, &facts.Resolv},
	} {
		*f.path = filepath.Join(e.runDir(rec.ID), f.name)
		if err := writeOwned(*f.path, f.content, pair); err != nil {
			return facts, err
		}
	}
	return facts, nil
}

// writeOwned writes a file that belongs to the container's root.
func writeOwned(path string, content []byte, pair idmap.Pair) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fault.Wrap(classOf(err), "write", path, err, "")
	}
	if pair.IsZero() {
		return nil
	}
	uid, _ := pair.UID.ToHost(0)
	gid, _ := pair.GID.ToHost(0)
	return fault.Wrap(fault.Internal, "give away", path, os.Chown(path, int(uid), int(gid)), "")
}

// prepareMounts makes what the plan expects as a finished mount: every bind,
// and what only the host can mount.
func (e *Engine) prepareMounts(b *bundle, rec record.Container, config *specs.Spec, pair idmap.Pair) error {
	for i := range config.Mounts {
		f, err := e.prepareMount(b, rec, config, i, pair)
		if err != nil {
			return err
		}
		if f != nil {
			b.files["mount:"+strconv.Itoa(i)] = f
		}
	}
	return nil
}

func (e *Engine) prepareMount(b *bundle, rec record.Container, config *specs.Spec, i int, pair idmap.Pair) (*os.File, error) {
	m := config.Mounts[i]
	if !launch.IsBind(m) {
		return e.prepared(config, i, b)
	}
	if b.shm != nil && m.Destination == spec.ShmPath {
		shm := b.shm
		b.shm = nil
		return shm, nil
	}
	return e.detached(rec, mountOf(rec, m), userOf(b, config, pair))
}

// mountOf finds the user's mount behind a mount of the spec; what the engine
// added itself (files in /etc, the init binary, /sys) is described by the spec.
func mountOf(rec record.Container, m specs.Mount) record.Mount {
	for _, asked := range rec.Mounts {
		if asked.Target == m.Destination && asked.Source == m.Source {
			return asked
		}
	}
	return record.Mount{
		Kind: string(ask.Bind), Source: m.Source, Target: m.Destination,
		ReadOnly:  slices.Contains(m.Options, "ro"),
		Recursive: slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "rbind") }),
	}
}

// prepareExec makes the plan of another process in a running container.
func (e *Engine) prepareExec(rec record.Container, a ask.Exec) (*bundle, error) {
	facts := e.cfg.Facts
	if err := e.execUser(rec, a, &facts.User); err != nil {
		return nil, err
	}
	facts.Shared, facts.Init = sharedOf(rec), e.cfg.InitBinary
	rec.Env = e.linked(rec)
	config, err := spec.Build(rec, facts)
	if err != nil {
		return nil, err
	}
	process, err := spec.Exec(rec, a, facts)
	if err != nil {
		return nil, err
	}
	b := e.newBundle()
	group, older, err := e.enterRunning(b, rec)
	if err == nil && rec.External != nil {
		err = e.engageExec(b, rec, process, older)
	} else if err == nil {
		b.plan, err = e.rooms.Compiler.Exec(process, config, launch.Options{ID: rec.ID, Cgroup: group, Groups: older})
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}
