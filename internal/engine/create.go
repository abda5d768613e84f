package engine

import (
	"context"
	"slices"
	"time"

	"fief/internal/snapshot"
	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"
	"fief/internal/words/ref"
)

// Create makes a container and starts nothing. On success the container is on
// disk, unless it is one that is removed at its end. On failure nothing is
// left: no name, no range, no directory. A missing image is NotFound, in
// Docker's words; pulling it is the caller's business.
func (e *Engine) Create(ctx context.Context, a ask.Container) (Created, error) {
	c, warnings, err := e.make(a, nil)
	if err != nil {
		return Created{}, err
	}
	failpoint.Hit("container-made")
	if err := e.keep(c); err != nil {
		e.drop(c)
		return Created{}, err
	}
	e.tell("create", c.record(), nil)
	return Created{ID: c.id, Warnings: warnings}, nil
}

// keep writes a container's record where it outlives the daemon: in state.db,
// synced, or for one that is removed at its end in its run directory only.
func (e *Engine) keep(c *container) error {
	rec := c.record()
	if err := e.writeRun(rec); err != nil {
		return err
	}
	if rec.AutoRemove {
		return nil
	}
	failpoint.Hit("container-noted")
	return e.rooms.Containers.Put(rec.ID, rec)
}

// make resolves an ask into a container that is in the table.
func (e *Engine) make(a ask.Container, tr *trace) (c *container, warnings []string, err error) {
	var back undo
	defer back.unless(&err)
	if err := e.refuse(a); err != nil {
		return nil, nil, err
	}
	e.using.RLock()
	defer e.using.RUnlock()

	img, err := e.rooms.Images.ResolveFor(a.Image, a.Platform)
	if err != nil {
		return nil, nil, err
	}
	if err := whole(img, a.Image); err != nil {
		return nil, nil, err
	}
	rec, err := merge(a, img)
	if err != nil {
		return nil, nil, err
	}
	limited, err := e.checkLimits(&rec)
	if err != nil {
		return nil, nil, err
	}
	rec.Runtime = first(a.Runtime, e.cfg.Runtime)
	rec.ID, rec.Created = ref.NewID(), time.Now().UTC()
	tr.mark("image")

	if rec.Name, err = e.name(a.Name, rec.ID); err != nil {
		return nil, nil, err
	}
	back.then(func() { e.table.release(rec.Name) })
	if rec.Hostname == "" {
		rec.Hostname = ref.Short(rec.ID)
	}
	if err := e.mounted(&rec, a, img, &back); err != nil {
		return nil, nil, err
	}

	if err := e.resolveNetworks(&rec, a, img); err != nil {
		return nil, nil, err
	}
	if err := e.logged(&rec, a.Log); err != nil {
		return nil, nil, err
	}
	donors, err := e.share(&rec, a)
	if err != nil {
		return nil, nil, err
	}
	back.then(func() { e.rooms.IDs.Release(rec.ID) })
	mapped, err := e.identify(&rec, wish{asked: a.Userns, user: a.User, caller: a.Caller, image: img, donors: donors})
	if err != nil {
		return nil, nil, err
	}
	back.then(func() { closeMapped(mapped) })
	if err := e.checkShared(rec); err != nil {
		return nil, nil, err
	}
	tr.mark("ids")

	if rec.Rootfs.Upper, err = e.rooms.Layers.NewUpper(); err != nil {
		return nil, nil, err
	}
	way := e.firstWay(a.Shift)
	rec.Rootfs.Way, rec.Rootfs.Why, rec.Rootfs.Asked = way.Way, way.Why, way.Asked
	c = &container{id: rec.ID, rec: rec, mapped: mapped, claim: make(chan struct{}, 1)}
	e.table.add(c)
	return c, slices.Concat(limited, damageWarnings(img)), nil
}

func closeMapped(m *snapshot.Mapped) {
	if m != nil {
		m.Close()
	}
}

// name reserves the wanted name, or one of its own making.
func (e *Engine) name(want, id string) (string, error) {
	if want != "" {
		if err := ref.CheckName(want); err != nil {
			return "", err
		}
		return want, e.table.reserve(want, id)
	}
	for range 100 {
		made := randomName()
		if e.table.reserve(made, id) == nil {
			return made, nil
		}
	}
	return ref.Short(id), e.table.reserve(ref.Short(id), id)
}

// checkRename refuses a new name that is no name or the old one.
func checkRename(old, to string) error {
	if to == old {
		return fault.Say(fault.Invalid, "Renaming a container with the same name as its current name")
	}
	return ref.CheckName(to)
}

// merge fills a record from what was asked and what the image says. Every
// default of the image is resolved here; see docker-run(1), "Overriding
// Dockerfile image defaults".
func merge(a ask.Container, img record.Image) (record.Container, error) {
	rec := record.Container{
		Version: record.Version, Name: a.Name, Image: a.Image, ImageID: img.ID, Manifest: img.Manifest,
		Platform: img.OS + "/" + img.Arch, Env: mergeEnv(img.Config.Env, a.Env),
		WorkDir: first(a.WorkDir, img.Config.WorkDir), User: first(a.User, img.Config.User), Groups: a.Groups,
		Hostname: a.Hostname, Domainname: a.Domainname, Labels: mergeLabels(img.Config.Labels, a.Labels),
		Annotations: a.Annotations, StopSignal: first(a.StopSignal, img.Config.StopSignal), StopTimeout: a.StopTimeout,
		TTY: a.TTY, Console: a.ConsoleSize, OpenStdin: a.OpenStdin, StdinOnce: a.StdinOnce,
		AttachStdin: a.AttachStdin, AttachStdout: a.AttachStdout, AttachStderr: a.AttachStderr,
		ReadOnly: a.ReadOnly, ShmSize: a.ShmSize, CapAdd: a.CapAdd, CapDrop: a.CapDrop, NoNewPrivs: a.NoNewPrivs,
		Network: string(a.Network), Privileged: a.Privileged, Init: a.Init, AutoRemove: a.AutoRemove,
		Health: mergeHealth(a.Health, img.Config.Health), Shell: img.Config.Shell,
		Restart: a.Restart.Name, RestartMax: a.Restart.MaxRetries,
		Sysctls: a.Sysctls, Resources: a.Resources,
		State: record.State{Status: record.Created},
	}
	rec.Rootfs = record.Rootfs{Host: img.Host, Volatile: a.AutoRemove}
	for _, l := range img.Layers {
		if l.Opaque { // overlayfs ignores the mark on a layer's root: what is below must not be there
			rec.Rootfs.Layers = nil
		}
		rec.Rootfs.Layers = append(rec.Rootfs.Layers, l.DiffID)
	}
	if err := a.Health.Check(); err != nil {
		return rec, err
	}
	rec.NetworkAsked = string(a.Network)
	if a.NetworkDefault {
		rec.NetworkAsked = "default"
	}
	mergeSecurity(&rec, a)
	for _, u := range a.Ulimits {
		rec.Ulimits = append(rec.Ulimits, record.Ulimit(u))
	}
	return rec, mergeCommand(&rec, a, img)
}

func mergeSecurity(rec *record.Container, a ask.Container) {
	switch a.Seccomp.Mode {
	case ask.SeccompUnconfined:
		rec.Seccomp = "unconfined"
		rec.SecurityOpt = append(rec.SecurityOpt, "seccomp=unconfined")
	case ask.SeccompProfile:
		rec.Seccomp, rec.Profile = "custom", a.Seccomp.Profile
		rec.SecurityOpt = append(rec.SecurityOpt, "seccomp="+string(a.Seccomp.Profile))
	default:
		rec.Seccomp = "builtin"
	}
	if a.NoNewPrivs {
		rec.SecurityOpt = append(rec.SecurityOpt, "no-new-privileges")
	}
}

// mergeCommand decides what is run. An entrypoint given by the user drops the
// image's command.
func mergeCommand(rec *record.Container, a ask.Container, img record.Image) error {
	rec.Entrypoint, rec.Cmd = img.Config.Entrypoint, img.Config.Cmd
	if a.ReplaceEntry {
		rec.Entrypoint, rec.Cmd = a.Entrypoint, nil
	}
	if len(a.Cmd) > 0 {
		rec.Cmd = a.Cmd
	}
	argv := append(append([]string{}, rec.Entrypoint...), rec.Cmd...)
	if len(argv) == 0 || argv[0] == "" {
		return fault.Say(fault.Invalid, "no command specified")
	}
	rec.Path, rec.Args = argv[0], argv[1:]
	return nil
}
