package main

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"fief/internal/words/fault"
)

// listener hands the descriptor on which a process's system calls wait to the
// agent at the profile's listenerPath: one message for one connection (OCI
// runtime spec, containerprocessstate).
func (c *container) listener(s *specs.Spec, status specs.ContainerState) func(pid, fd int) error {
	if s.Linux.Seccomp == nil {
		return nil
	}
	return func(pid, fd int) error {
		state := c.oci()
		state.Status, state.Pid = status, c.PID
		message, err := json.Marshal(specs.ContainerProcessState{
			Version: specVersion, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.Linux.Seccomp.ListenerMetadata, State: state,
		})
		if err != nil {
			return err
		}
		return send(s.Linux.Seccomp.ListenerPath, message, fd)
	}
}

func send(socket string, message []byte, fd int) error {
	return fault.Wrap(fault.Unavailable, "send listener to seccomp agent", socket, sendFD(socket, message, fd), "it must listen on a stream socket before the container starts")
}

// seccompFeatures is what is understood of profiles.
func seccompFeatures() *features.Seccomp {
	yes := true
	flags := []string{string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagSpecAllow), "SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagWaitKillableRecv)}
	return &features.Seccomp{
		Enabled: &yes,
		Actions: []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
			"SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"},
		Operators: []string{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"},
		Archs:     []string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"},

		KnownFlags: flags, SupportedFlags: flags,
	}
}
