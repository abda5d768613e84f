package main

import (
	"encoding/json"

	specs "github.com/opencontainers/runtime-spec/specs-go"

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
