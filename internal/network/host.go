package network

import (
	"os"
	"strings"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Unplug takes a running container's endpoint out of its network namespace. What
// the plugins of a list will not take back is told in the log, and the device is
// deleted all the same.
func (r *Room) Unplug(netns *os.File, ep record.Endpoint) error {
	r.mu.Lock()
	e := r.ends[ep.ID]
	listed := e != nil && e.plugged
	r.mu.Unlock()
	if listed {
		if err := r.delete(e); err != nil {
			r.cfg.Log.Warn("CNI plugins do not take a container off a network; it is tried again", "container", e.name, "error", err)
		}
	}
	err := link.DeleteIn(netns, ep.Device)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Warnings says what of the host's firewall may keep a network's containers from
// the world. The rules of others are theirs: they are read, never changed.
func Warnings(n record.Network) []string {
	if n.Driver != driverBridge || n.Internal {
		return nil
	}
	found, err := nft.Droppers()
	if err != nil || len(found) == 0 {
		return nil
	}
	return []string{"the chain " + strings.Join(found, ", ") + " of another program drops what is forwarded: containers of network " + n.Name +
		" reach the world, and are reached, only as far as it lets " + n.Device + " pass: " + Advice(found, n.Device)}
}

// Advice says how to let a bridge pass through chains of others.
func Advice(chains []string, device string) string {
	for _, c := range chains {
		if strings.HasSuffix(c, "filter FORWARD") {
			return "iptables -I FORWARD -i " + device + " -j ACCEPT; iptables -I FORWARD -o " + device +
				" -j ACCEPT (Docker's hosts: the chain DOCKER-USER; ufw: ufw route allow in on " + device + ")"
		}
	}
	return "add rules there that accept iifname " + device + " and oifname " + device
}
