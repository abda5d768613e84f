package docker

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

func (d *door) info(w http.ResponseWriter, r *request) error {
	in, err := d.engine.Info(r.Context())
	if err != nil {
		return err
	}
	return ok(w, system.Info{
		ID: in.ID, Name: in.Name, ServerVersion: cmp.Or(in.Version, d.opt.Version), OperatingSystem: in.OS, OSType: "linux", Architecture: in.Arch,
		KernelVersion: in.Kernel, NCPU: in.NCPU, MemTotal: in.MemTotal,
		Containers: in.Containers, ContainersRunning: in.Running, ContainersPaused: in.Paused, ContainersStopped: in.Stopped, Images: in.Images,
		Driver: storageDriver, DriverStatus: driverStatus(in), DockerRootDir: in.DataRoot,
		LoggingDriver: cmp.Or(in.LogDriver, "json-file"), CgroupDriver: in.CgroupDriver, CgroupVersion: in.CgroupVersion,
		Plugins:        system.PluginsInfo{Volume: []string{}, Network: []string{"host", "null"}, Log: ask.LogDrivers},
		IPv4Forwarding: true, OomKillDisable: in.Can.OomKillDisable,
		MemoryLimit: in.Can.Memory, SwapLimit: in.Can.Swap, CPUCfsPeriod: in.Can.CPUQuota, CPUCfsQuota: in.Can.CPUQuota, CPUShares: in.Can.CPUShares,
		CPUSet: in.Can.Cpuset, PidsLimit: in.Can.Pids,
		Debug: in.Debug, NFd: in.FDs, NGoroutines: in.Goroutines, SystemTime: time.Now().Format(time.RFC3339Nano),
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: registries(in.InsecureRegistries),
		Labels: notNil(in.Labels), Runtimes: runtimes(in.Runtimes), DefaultRuntime: in.DefaultRuntime,
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: true, // containers outlive the daemon, always
		InitBinary:         "fief-mon", SecurityOptions: securityOptions(in), Warnings: notNil(append(missing(in.Can), in.Warnings...)),
	})
}

// storageDriver is the driver clients are told. It is the name Docker uses for
// overlay over a content store, which is what the layers are.
const storageDriver = "overlayfs"

func driverStatus(in record.Info) [][2]string {
	rows := [][2]string{{"Backing Filesystem", in.StorageFS}, {"Shift", in.Shift}}
	if in.ShiftWhy != "" {
		rows = append(rows, [2]string{"Shift Why", in.ShiftWhy})
	}
	rows = append(rows, [2]string{"Host Ids", fmt.Sprintf("%d-%d", in.Pool.First, in.Pool.Last)},
		[2]string{"Id Ranges", fmt.Sprintf("%d granted, %d free", in.Pool.Granted, in.Pool.Free)})
	if in.RemapUser != "" {
		rows = append(rows, [2]string{"Remapped To", in.RemapUser})
	}
	return rows
}

// securityOptions lists what every container gets unless it asks otherwise, in
// Docker's order.
func securityOptions(in record.Info) []string {
	opts := []string{"name=seccomp,profile=builtin"}
	if in.Userns {
		opts = append(opts, "name=userns")
	}
	return append(opts, "name=cgroupns")
}

func runtimes(names []string) map[string]system.RuntimeWithStatus {
	out := map[string]system.RuntimeWithStatus{}
	for _, name := range names {
		out[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: name}}
	}
	return out
}

func registries(insecure []string) *registry.ServiceConfig {
	cfg := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true}},
		Mirrors:               []string{},
	}
	for _, name := range insecure {
		if cidr, err := netip.ParsePrefix(name); err == nil {
			cfg.InsecureRegistryCIDRs = append(cfg.InsecureRegistryCIDRs, cidr)
			continue
		}
		cfg.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
	}
	return cfg
}

// notNil makes null an empty list: most clients iterate without asking.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// missing names what limits this machine has no controller for, in Docker's words
// and order.
func missing(can record.Abilities) (out []string) {
	for _, w := range []struct {
		can  bool
		what string
	}{
		{can.Memory, "memory limit"}, {can.Swap, "swap limit"}, {can.CPUQuota, "cpu cfs quota"}, {can.CPUQuota, "cpu cfs period"}, {can.CPUShares, "cpu shares"},
		{can.Cpuset, "cpuset"}, {can.BlkioWeight, "blkio weight"}, {can.BlkioWeightDevice, "blkio weight_device"},
		{can.BlkioReadBps, "blkio throttle.read_bps_device"}, {can.BlkioWriteBps, "blkio throttle.write_bps_device"},
		{can.ReadIOps, "blkio throttle.read_iops_device"}, {can.WriteIOps, "blkio throttle.write_iops_device"},
	} {
		if !w.can {
			out = append(out, "WARNING: No "+w.what+" support")
		}
	}
	return out
}
