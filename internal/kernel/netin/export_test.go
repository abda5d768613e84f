package netin

import (
	"net/netip"
	"os"
)

// LeadByConnections leads as Lead does where nothing else is allowed.
func LeadByConnections(netns *os.File, known netip.AddrPort, to uint16) error {
	return refused(known, translating.lead(netns, known, to))
}
