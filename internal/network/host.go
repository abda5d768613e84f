package network

import (
	"os"
	"strings"

	"fief/internal/kernel/link"
	"fief/internal/kernel/nft"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Unplug deletes an endpoint's device in the network namespace it is in.
func Unplug(netns *os.File, ep record.Endpoint) error {
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
