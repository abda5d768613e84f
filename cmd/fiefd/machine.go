package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"fief/internal/engine"
	"fief/internal/event"
	"fief/internal/idpool"
	"fief/internal/idpool/hostids"
	"fief/internal/kernel/harden"
	"fief/internal/kernel/seal"
	"fief/internal/kernel/seccomp"
	"fief/internal/kernel/seccomp/fingerprint"
	"fief/internal/launch"
	"fief/internal/monitor"
	"fief/internal/network"
	"fief/internal/snapshot"
	"fief/internal/spec"
	"fief/internal/store"
	"fief/internal/volume"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// machine is the whole daemon without its doors.
type machine struct {
	engine  *engine.Engine
	closers []func() // in the order of opening
}

// close closes what was opened, last first. Containers keep running.
func (m *machine) close() {
	for i := len(m.closers) - 1; i >= 0; i-- {
		m.closers[i]()
	}
}

func (m *machine) then(closer func()) { m.closers = append(m.closers, closer) }

// open makes the machine, also on a full disk, where nothing but this daemon can
// make room: what trying the file system out takes was kept aside.
func open(ctx context.Context, s settings) (*machine, error) {
	spare := store.Reserve{Path: filepath.Join(s.DataRoot, "reserve"), Files: true}
	m, err := assemble(ctx, s)
	if fault.Is(err, fault.Exhausted) && spare.Spend() {
		slog.Warn("the disk is full; the daemon starts in the room it has kept aside", "error", err)
		m, err = assemble(ctx, s)
	}
	if err == nil {
		spare.Keep()
	}
	return m, err
}

// assemble opens the rooms from the bottom up, makes the engine over them, and
// takes up the containers of the daemon before this one.
func assemble(ctx context.Context, s settings) (_ *machine, err error) {
	m := &machine{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	for _, dir := range []string{s.DataRoot, s.ExecRoot} {
		if err := ownDirectory(dir); err != nil {
			return nil, err
		}
	}
	db, err := store.Open(filepath.Join(s.DataRoot, "state.db")) // its lock keeps a second daemon out
	if err != nil {
		return nil, err
	}
	m.then(func() { db.Close() })

	calm, pause := make(chan struct{}), time.Duration(0)
	cfg := engine.Config{DataRoot: s.DataRoot, ExecRoot: s.ExecRoot, Runtime: s.DefaultRuntime, Berths: s.Pool, Calm: calm}
	if cfg.Log, err = s.logs(); err != nil {
		return nil, err
	}
	containers := db.Bucket("containers")
	stored, err := engine.Stored(cfg, containers)
	if err != nil {
		return nil, err
	}
	ids, err := openPool(s, db, stored)
	if err != nil {
		return nil, err
	}
	m.then(ids.Close)
	if err := configureIdentity(&cfg, s); err != nil {
		return nil, err
	}

	snaps, err := snapshot.Open(s.DataRoot, snapshot.Options{Log: slog.Default()})
	if err != nil {
		return nil, err
	}
	m.then(snaps.Close)
	if err := snaps.SweepBuilding(); err != nil {
		return nil, err
	}
	images, err := openImages(s, db, snaps)
	if err != nil {
		return nil, err
	}
	m.then(func() { images.Close() })
	volumes, err := volume.Open(s.DataRoot, db.Bucket("volumes"))
	if err != nil {
		return nil, err
	}
	m.then(func() { volumes.Close() })
	driver, err := s.cgroupDriver()
	if err != nil {
		return nil, err
	}
	groups, err := openCgroups(driver)
	if err != nil {
		return nil, err
	}
	m.then(groups.close)
	if err := configureHost(&cfg, s, ids.ID(), groups); err != nil {
		return nil, err
	}
	raiseLimits()

	program, err := seal.Pin(cfg.InitBinary) // once: all monitors are this file, which an upgrade may replace
	if err != nil {
		return nil, err
	}
	m.then(func() { program.Close() })
	pools, err := s.ranges()
	if err != nil {
		return nil, err
	}
	bridge, err := s.defaultSubnet()
	if err != nil {
		return nil, err
	}
	nets, err := network.Open(network.Config{Networks: db.Bucket("networks"), Ranges: pools, Default: bridge, Turns: filepath.Join(s.IDRegistry, "subnets.lock"), Seed: ids.ID(), CNI: s.plugins(), Log: slog.Default()})
	if err != nil {
		return nil, err
	}
	mons := monitor.NewPool(monitor.PoolConfig{Binary: program.Path(), Label: version, Size: s.Pool, Debug: s.Debug, Calm: calm})
	m.engine = engine.New(cfg, engine.Rooms{
		IDs: ids, Accounts: accounts{}, Spaces: spaces{}, Images: images, Layers: snaps, Volumes: volumes, Networks: nets, Monitors: mons,
		Containers: containers, Cgroups: groups, Processes: processes{}, Devices: namedDevices{s.CDIDirs}, Runtimes: newRuntimes(program.Path()),
		Events: &event.Bus{}, Compiler: &launch.Compiler{Filter: seccomp.Compile, Key: fingerprint.Of},
	})
	m.then(m.engine.Close)
	err = m.engine.Recover(ctx, stored)
	if len(stored) > 0 {
		pause = settling
	}
	time.AfterFunc(pause, func() { close(calm) })
	return m, err
}

// settling is how long a daemon that has found containers leaves the machine to
// those who ask for them, and to the containers: 200 that run, and pools that fill
// beside them, are a second of a processor.
const settling = 500 * time.Millisecond

// openPool makes the pool of ids and tells it what is taken: leases, and the
// ids of explicit maps.
func openPool(s settings, db *store.DB, stored []record.Container) (*idpool.Pool, error) {
	var held []idpool.Held
	for _, rec := range stored {
		if rec.Identity.Lease != nil {
			held = append(held, idpool.Held{Owner: rec.ID, Lease: *rec.Identity.Lease})
		}
	}
	p, err := idpool.Open(idpool.Config{DataRoot: s.DataRoot, ClaimDir: s.IDRegistry, Quarantine: db.Bucket("quarantine")}, held)
	if err != nil {
		return nil, err
	}
	for _, lost := range p.Lost() {
		slog.Error("another daemon has taken a container's ids; it cannot be started", "container", lost.Owner, "base", lost.Lease.Base)
	}
	engine.Hold(p, stored)
	return p, nil
}

// configureIdentity resolves what containers get that ask for nothing.
func configureIdentity(cfg *engine.Config, s settings) (err error) {
	if cfg.Userns, err = s.userns(); err != nil || s.Remap == "" {
		return err
	}
	claimed := func() ([]hostids.Claim, error) { return idpool.Claimed(s.IDRegistry) }
	cfg.Remap, cfg.RemapName, err = hostids.Remap(s.Remap, hostids.Files{Leased: claimed})
	return err
}

// configureHost notes what containers and info need to know of this machine.
func configureHost(cfg *engine.Config, s settings, id string, groups *cgroups) (err error) {
	if cfg.Runtimes, cfg.Others, err = s.runtimes(); err != nil {
		return err
	}
	if cfg.InitBinary, err = beside("fief-mon"); err != nil {
		return err
	}
	f := &cfg.Facts
	f.Profiles = &spec.Profiles{}
	if f.LastCap, err = harden.LastCap(); err != nil {
		return err
	}
	if f.Bounding, err = harden.Bounding(f.LastCap); err != nil {
		return err
	}
	if f.Masked, err = spec.HostMasks(); err != nil {
		return err
	}
	if f.Rlimits, err = spec.HostLimits(); err != nil {
		return err
	}
	if f.Rlimits, err = s.ulimits(f.Rlimits); err != nil {
		return err
	}
	f.Cgroup2, f.Guarded = groups.tree != nil, groups.can.Devices
	cfg.Host = describe(s, id)
	cfg.Host.Can = groups.can
	cfg.Host.CgroupVersion, cfg.Host.CgroupDriver = groups.version(), groups.driver
	return nil
}

// ownDirectory makes a directory that only root may enter.
func ownDirectory(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	return fault.Wrap(fault.Invalid, "create", dir, err, "choose another directory")
}

// beside finds a binary of the same build: next to this one.
func beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fault.Wrap(fault.Internal, "find", name, err, "")
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fault.Wrap(fault.Invalid, "find", name, err, "it must lie beside fiefd: "+path)
	}
	return path, nil
}
