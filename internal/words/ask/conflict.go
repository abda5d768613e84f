package ask

import "fief/internal/words/fault"

// CheckConflicts refuses a container whose namespaces leave no room for what
// else was asked of it. A name belongs to the uts namespace, and one that joins
// another's network shares its /etc/hosts. The words are Docker's (moby,
// daemon/internal/runconfig/hostconfig.go and hostconfig_unix.go); Docker does
// not check the domain name, and with the host's uts namespace sets the host's.
// Errors are of class Invalid.
func (c *Container) CheckConflicts() error {
	name, joined := c.Network.Container()
	foreign := c.UTS.Foreign()
	switch {
	case c.Network == "container" || joined && name == "":
		return fault.Say(fault.Invalid, "invalid network mode: invalid container format container:<name|id>")
	case joined && c.Hostname != "":
		return fault.Say(fault.Invalid, "conflicting options: hostname and the network mode")
	case foreign && c.Hostname != "":
		return fault.Say(fault.Invalid, "conflicting options: hostname and the UTS mode")
	case foreign && c.Domainname != "":
		return fault.Say(fault.Invalid, "conflicting options: domainname and the UTS mode")
	}
	return nil
}
