package engine

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// sandboxed reports whether a container's runtime runs it in a sandbox; err says
// why that cannot be found out.
func (e *Engine) sandboxed(rec record.Container) (bool, error) {
	if isOwn(rec) {
		return false, nil
	}
	if err := e.checkRuntime(rec.Runtime); err != nil {
		return false, err
	}
	traits, err := e.rooms.Runtimes.Know(e.cfg.Others[rec.Runtime].Path)
	return traits.Kind.Sandboxed(), err
}

// checkSandbox refuses by name what a sandbox has of its own instead: runsc takes a
// configuration with namespaces of others, nodes of devices and sysctls, and
// starts a container that has none of them.
func (e *Engine) checkSandbox(rec record.Container) error {
	is, err := e.sandboxed(rec)
	if err != nil || !is {
		return err
	}
	cannot := func(what string) error {
		return fault.New(fault.Unsupported, "use runtime "+rec.Runtime+" for container", rec.Name, "its sandbox does not have "+what, "leave that out, or use --runtime fief")
	}
	for _, s := range shared {
		mode := *s.mode(&rec)
		_, joins := donorOf(mode)
		if mode != modeHost && !joins {
			continue
		}
		if s.kind == specs.NetworkNamespace && hostNetwork(e.cfg.Others[rec.Runtime].Args) {
			continue
		}
		if s.kind == specs.NetworkNamespace {
			return cannot("the network of " + strings.TrimSuffix(mode, ":") + " unless the runtime's args have --network=host")
		}
		return cannot("the " + s.word + " of " + mode)
	}
	switch {
	case rec.Identity.Mode == modeContainer, rec.Identity.Mode == modePath:
		return cannot("a user namespace of others") // a process with threads cannot enter one, setns(2)
	case len(rec.Resources.Devices) > 0:
		return cannot("the device " + rec.Resources.Devices[0].Container)
	case rec.Privileged:
		return cannot("the devices of the host, which --privileged gives")
	}
	for name := range rec.Sysctls {
		return cannot("the sysctl " + name)
	}
	return nil
}

// hostNetwork reports whether runsc is told to use the stack of the network
// namespace it is started for, not one of its own.
func hostNetwork(args []string) bool {
	for i, a := range args {
		name, value, given := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		if strings.HasPrefix(a, "-") && name == "network" && value == "host" {
			return true
		}
	}
	return false
}

// checkNodes refuses nodes of devices that a description of CDI adds.
func checkNodes(rec record.Container, kind record.RuntimeKind, config *specs.Spec) error {
	if !kind.Sandboxed() || len(config.Linux.Devices) == 0 {
		return nil
	}
	return fault.New(fault.Unsupported, "use runtime "+rec.Runtime+" for container", rec.Name, "its sandbox does not have the device "+config.Linux.Devices[0].Path, "leave that out, or use --runtime fief")
}
