package docker

import "fief/internal/words/ask"

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

// checkLimits refuses what no machine here could do; the engine checks the rest.
func (h *hostBody) checkLimits() error {
	if err := refuseWindows(h.Resources); err != nil {
		return err
	}
	return refuseSet(
		field{"HostConfig.KernelMemoryTCP", h.KernelMemoryTCP != 0, "leave it out"},
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
		field{"HostConfig.VolumeDriver " + h.VolumeDriver, h.VolumeDriver != "" && h.VolumeDriver != ask.LocalDriver, "the only volume driver is local"},
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
