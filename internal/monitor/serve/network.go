package serve

import (
	"strconv"

	"fief/internal/kernel/link"
	"fief/internal/monitor/wire"
)

// connect returns what connects a container's network namespace when it has
// been made; nil when nothing does. The requests were made by the daemon: this
// process has no netlink library and decides nothing.
func connect(n *wire.Net) func(pid int) error {
	w := link.Wiring{Outside: n.Outside, Spaces: n.Spaces, Settings: n.Settings, Inside: n.Inside}
	for _, d := range n.Devices {
		w.Devices = append(w.Devices, link.Device(d))
	}
	if w.Empty() {
		return nil
	}
	return func(pid int) error { return w.ApplyTo(strconv.Itoa(pid)) }
}
