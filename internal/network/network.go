// Package network is the networks that containers are on: their addresses,
// bridges, rules and published ports, and the host, name and resolver files that
// belong to them. It makes what the host's side needs in the kernel, and hands
// out the wiring of the container's side as a value, because that network
// namespace is made later, with the container's user namespace.
package network

import (
	"fief/internal/words/fault"
)

// Check refuses a combination that cannot work. mapped says that the container
// has a user namespace of its own: a network namespace is owned by the user
// namespace it was made in (user_namespaces(7)), so the host's would be out of
// the container root's reach, and sysfs could not be mounted for it.
func Check(network string, mapped bool) error {
	if network != "host" || !mapped {
		return nil
	}
	return hinted(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled",
		"add --userns=host to run as the host's root, or use --network none")
}
