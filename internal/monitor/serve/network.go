package serve

import (
	"os"
	"strconv"

	"fief/internal/kernel/link"
	"fief/internal/kernel/netin"
	"fief/internal/monitor/wire"
	"fief/internal/words/fault"
)

// connect returns what connects a container's network namespace when it has
// been made; nil when nothing does. The requests were made by the daemon: this
// process has no netlink library and decides nothing. The sockets of a name
// server are the daemon's as well, and are opened here because it has no time
// to before the program asks: what is asked meanwhile waits in them. What only
// the daemon can do itself is waited for.
func connect(n *wire.Net, box, offer int) func(pid int) error {
	w := link.Wiring{Outside: n.Outside, Spaces: n.Spaces, Settings: n.Settings, Inside: n.Inside}
	for _, d := range n.Devices {
		w.Devices = append(w.Devices, link.Device(d))
	}
	if n.Port == 0 && !n.Wait {
		if w.Empty() {
			return nil
		}
		return func(pid int) error { return w.ApplyTo(strconv.Itoa(pid)) }
	}
	return func(pid int) error {
		netns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
		if err != nil {
			return fault.Wrap(fault.Internal, "open", "network namespace", err, "")
		}
		defer netns.Close()
		if !w.Empty() {
			err = w.Apply(netns)
		}
		if err == nil && n.Wait {
			err = netin.Offer(netns, pid, offer)
		}
		if err == nil && n.Port != 0 {
			err = netin.Serve(netns, uint16(n.Port), box)
		}
		return err
	}
}
