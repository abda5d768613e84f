package docker

import (
	"strings"

	"github.com/moby/moby/api/types/container"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// This file is about the namespaces of a container other than its user
// namespace. What the daemon's default of user namespaces does not allow, the
// engine refuses.

// spaces fills the namespaces of an ask. Errors are in Docker's words (moby,
// daemon/daemon_unix.go, verifyPlatformContainerSettings); another container's
// uts and cgroup namespace, which Docker cannot give, are taken.
func (h *hostBody) spaces(a *ask.Container) error {
	for _, s := range []struct {
		kind, word, mode string
		space            *ask.Space
	}{
		{"ipc", "IPC", string(h.IpcMode), &a.IPC},
		{"pid", "PID", string(h.PidMode), &a.PID},
		{"uts", "UTS", string(h.UTSMode), &a.UTS},
		{"cgroupns", "cgroup namespace", string(h.CgroupnsMode), &a.Cgroupns},
	} {
		space, err := ask.ParseSpace(s.kind, s.mode)
		if err != nil {
			f := fault.Say(fault.Invalid, "invalid "+s.word+" mode: "+short(s.mode))
			f.Hint = fault.HintOf(err)
			return f
		}
		*s.space = space
	}
	a.Privileged = h.Privileged
	return a.CheckConflicts()
}

// short is enough of s to recognise it in an error.
func short(s string) string {
	const enough = 128 // a mode and a container's id
	if len(s) <= enough {
		return s
	}
	return strings.ToValidUTF8(s[:enough], "") + "…"
}

// checkJoined refuses the settings of a network for a container that uses
// another's, in Docker's words (moby, daemon/internal/runconfig/hostconfig.go;
// of the MAC address handleMACAddressBC in the router of containers).
func (b *createBody) checkJoined() error {
	h := b.HostConfig
	if !h.NetworkMode.IsContainer() {
		return nil
	}
	for _, no := range []struct {
		set  bool
		what string
	}{
		{len(h.Links) > 0, "container type network can't be used with links. This would result in undefined behavior"},
		{len(h.DNS) > 0, "dns and the network mode"},
		{len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{b.hasMAC(), "mac-address and the network mode"},
		{len(h.PortBindings) > 0 || h.PublishAllPorts, "port publishing and the container type network mode"},
		{len(b.ExposedPorts) > 0, "port exposing and the container type network mode"},
	} {
		if no.set {
			return invalid("conflicting options: %s", no.what)
		}
	}
	return nil
}

// hasMAC reports whether a MAC address is asked for: by Config before API 1.44,
// by an endpoint since.
func (b *createBody) hasMAC() bool {
	if b.NetworkingConfig == nil {
		return b.MacAddress != ""
	}
	for _, ep := range b.NetworkingConfig.EndpointsConfig {
		if ep != nil && len(ep.MacAddress) > 0 {
			return true
		}
	}
	return b.MacAddress != ""
}

// joins reports whether a network mode is another container's network.
func joins(mode string) bool { return container.NetworkMode(mode).IsContainer() }
