package docker

// This file refuses what a create asks for and this engine does not do. Every
// field of a host config is read here or in create.go; what clients send at
// its default passes.

// field is one part of a request: whether it asks for something, and what to
// do about it.
type field struct {
	name string
	set  bool
	hint string
}

func refuseSet(fields ...field) error {
	for _, f := range fields {
		if f.set {
			return refuse(f.name, f.hint)
		}
	}
	return nil
}

func without(flag string) string { return "leave out " + flag }

func (b *createBody) checkConfig() error {
	return refuseSet(
		field{"MacAddress", b.MacAddress != "", without("--mac-address")},
	)
}

// checkLimits: accounting per container comes from its own ids; limits by
// cgroup do not exist yet.
func (h *hostBody) checkLimits() error {
	positive := func(p *int64) bool { return p != nil && *p > 0 }
	swappiness := h.MemorySwappiness != nil && *h.MemorySwappiness != -1
	return refuseSet(
		field{"HostConfig.Memory", h.Memory != 0, without("--memory")},
		field{"HostConfig.MemorySwap", h.MemorySwap > 0, without("--memory-swap")},
		field{"HostConfig.MemoryReservation", h.MemoryReservation != 0, without("--memory-reservation")},
		field{"HostConfig.MemorySwappiness", swappiness, without("--memory-swappiness")},
		field{"HostConfig.KernelMemory", h.KernelMemory != 0, without("--kernel-memory")},
		field{"HostConfig.KernelMemoryTCP", h.KernelMemoryTCP != 0, "leave it out"},
		field{"HostConfig.OomKillDisable", h.OomKillDisable != nil && *h.OomKillDisable, without("--oom-kill-disable")},
		field{"HostConfig.OomScoreAdj", h.OomScoreAdj != 0, without("--oom-score-adj")},
		field{"HostConfig.NanoCpus", h.NanoCPUs != 0, without("--cpus")},
		field{"HostConfig.CpuShares", h.CPUShares != 0, without("--cpu-shares")},
		field{"HostConfig.CpuPeriod", h.CPUPeriod != 0, without("--cpu-period")},
		field{"HostConfig.CpuQuota", h.CPUQuota > 0, without("--cpu-quota")},
		field{"HostConfig.CpuRealtimePeriod", h.CPURealtimePeriod != 0, without("--cpu-rt-period")},
		field{"HostConfig.CpuRealtimeRuntime", h.CPURealtimeRuntime != 0, without("--cpu-rt-runtime")},
		field{"HostConfig.CpusetCpus", h.CpusetCpus != "", without("--cpuset-cpus")},
		field{"HostConfig.CpusetMems", h.CpusetMems != "", without("--cpuset-mems")},
		field{"HostConfig.PidsLimit", positive(h.PidsLimit), "use --ulimit nproc=N: a range of its own makes it the container's own limit"},
		field{"HostConfig.BlkioWeight", h.BlkioWeight != 0, without("--blkio-weight")},
		field{"HostConfig.BlkioWeightDevice", len(h.BlkioWeightDevice) > 0, without("--blkio-weight-device")},
		field{"HostConfig.BlkioDeviceReadBps", len(h.BlkioDeviceReadBps) > 0, without("--device-read-bps")},
		field{"HostConfig.BlkioDeviceWriteBps", len(h.BlkioDeviceWriteBps) > 0, without("--device-write-bps")},
		field{"HostConfig.BlkioDeviceReadIOps", len(h.BlkioDeviceReadIOps) > 0, without("--device-read-iops")},
		field{"HostConfig.BlkioDeviceWriteIOps", len(h.BlkioDeviceWriteIOps) > 0, without("--device-write-iops")},
		field{"HostConfig.CpuCount", h.CPUCount != 0, "it is for Windows"},
		field{"HostConfig.CpuPercent", h.CPUPercent != 0, "it is for Windows"},
		field{"HostConfig.IOMaximumIOps", h.IOMaximumIOps != 0, "it is for Windows"},
		field{"HostConfig.IOMaximumBandwidth", h.IOMaximumBandwidth != 0, "it is for Windows"},
	)
}

func (h *hostBody) checkDevices() error {
	return refuseSet(
		field{"HostConfig.Devices", len(h.Devices) > 0, without("--device")},
		field{"HostConfig.DeviceRequests", len(h.DeviceRequests) > 0, without("--gpus")},
		field{"HostConfig.DeviceCgroupRules", len(h.DeviceCgroupRules) > 0, without("--device-cgroup-rule")},
		field{"HostConfig.CgroupParent", h.CgroupParent != "", without("--cgroup-parent")},
		field{"HostConfig.Cgroup", h.Cgroup != "", "leave it out"},
		field{"HostConfig.Isolation " + string(h.Isolation), !h.Isolation.IsDefault(), without("--isolation")},
	)
}

func (h *hostBody) checkRest() error {
	storage := ""
	for key := range h.StorageOpt {
		if key != "shift" {
			storage = key
		}
	}
	return refuseSet(
		field{"HostConfig.Links", len(h.Links) > 0, without("--link")},
		field{"HostConfig.PublishAllPorts", h.PublishAllPorts, "leave out -P: a container has no ports until networks exist"},
		field{"HostConfig.PortBindings", len(h.PortBindings) > 0, "leave out -p: a container has no ports until networks exist; --network host with --userns host shares the host's"},
		field{"HostConfig.Dns", len(h.DNS) > 0, without("--dns")},
		field{"HostConfig.DnsOptions", len(h.DNSOptions) > 0, without("--dns-option")},
		field{"HostConfig.DnsSearch", len(h.DNSSearch) > 0, without("--dns-search")},
		field{"HostConfig.ExtraHosts", len(h.ExtraHosts) > 0, without("--add-host")},
		field{"HostConfig.VolumesFrom", len(h.VolumesFrom) > 0, without("--volumes-from")},
		field{"HostConfig.VolumeDriver " + h.VolumeDriver, h.VolumeDriver != "" && h.VolumeDriver != "local", without("--volume-driver")},
		field{"HostConfig.Sysctls", len(h.Sysctls) > 0, without("--sysctl")},
		field{"HostConfig.StorageOpt " + storage, storage != "", "the only storage option is shift"},
		field{"HostConfig.Umask", h.Umask != nil, "set the umask in the container's command"},
		field{"HostConfig.MaskedPaths", h.MaskedPaths != nil, "the masked paths are fixed: leave it out"},
		field{"HostConfig.ReadonlyPaths", h.ReadonlyPaths != nil, "the read-only paths are fixed: leave it out"},
	)
}

// checkNetwork accepts none, host, another container's and what means the
// default, without any setting of an endpoint.
func (b *createBody) checkNetwork() error {
	mode := string(b.HostConfig.NetworkMode)
	if !knownNetwork(mode) {
		return noNetwork(mode)
	}
	if b.NetworkingConfig == nil {
		return nil
	}
	for name, ep := range b.NetworkingConfig.EndpointsConfig {
		if !knownNetwork(name) || joins(name) && name != mode {
			return noNetwork(name)
		}
		if ep == nil {
			continue
		}
		err := refuseSet(
			field{"an address on network " + name, ep.IPAMConfig != nil || ep.IPAddress.IsValid() || ep.GlobalIPv6Address.IsValid(), without("--ip and --ip6")},
			field{"MacAddress on network " + name, len(ep.MacAddress) > 0, without("--mac-address")},
			field{"Aliases on network " + name, len(ep.Aliases) > 0, without("--network-alias")},
			field{"Links on network " + name, len(ep.Links) > 0, without("--link")},
			field{"DriverOpts on network " + name, len(ep.DriverOpts) > 0, without("driver-opt")},
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func knownNetwork(name string) bool {
	switch name {
	case "", "default", "bridge", "none", "host", "container": // the last is refused as the start of a mode
		return true
	}
	return joins(name) || name == networkID("none") || name == networkID("host")
}

// noNetwork is no 404: `docker run` takes every 404 of a create for a missing
// image and pulls it. dockerd says the same words when the container starts.
func noNetwork(name string) error { return invalid("network %s not found", short(name)) }
