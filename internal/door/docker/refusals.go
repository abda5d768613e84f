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
	// systempaths=unconfined asks for none, which is what a privileged container has.
	masks := h.MaskedPaths != nil && (len(h.MaskedPaths) > 0 || !h.Privileged)
	readonly := h.ReadonlyPaths != nil && (len(h.ReadonlyPaths) > 0 || !h.Privileged)
	return refuseSet(
		field{"HostConfig.VolumeDriver " + h.VolumeDriver, h.VolumeDriver != "" && h.VolumeDriver != ask.LocalDriver, "the only volume driver is local"},
		field{"HostConfig.StorageOpt " + storage, storage != "", "the only storage option is shift"},
		field{"HostConfig.Umask", h.Umask != nil, "set the umask in the container's command"},
		field{"HostConfig.MaskedPaths", masks, "the masked paths are fixed: leave it out"},
		field{"HostConfig.ReadonlyPaths", readonly, "the read-only paths are fixed: leave it out"},
	)
}
