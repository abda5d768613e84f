package main

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"fief/internal/network"
	"fief/internal/network/cni"
	"fief/internal/words/fault"
)

// plugins runs the CNI plugins of networks.
func (s settings) plugins() *cni.Driver {
	return cni.New(cni.Config{Lists: s.CNILists, Plugins: s.CNIPlugins, State: filepath.Join(s.DataRoot, "cni"), Limit: s.CNILimit, Log: slog.Default()})
}

// ranges are what networks get their subnets of, in dockerd's words:
// base=PREFIX,size=BITS. None: the room's defaults.
func (s settings) ranges() ([]network.Range, error) {
	var out []network.Range
	for _, spec := range s.AddressPools {
		r := network.Range{Size: -1}
		for field := range strings.SplitSeq(spec, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			var err error
			switch key {
			case "base":
				r.Base, err = netip.ParsePrefix(value)
			case "size":
				r.Size, err = strconv.Atoi(value)
			default:
				err = fault.Say(fault.Invalid, "unknown field "+key)
			}
			if err != nil {
				return nil, fault.Wrap(fault.Invalid, "use address pool", spec, err, "a pool is base=10.10.0.0/16,size=24")
			}
		}
		if !r.Base.IsValid() || r.Size < r.Base.Bits() || r.Size > r.Base.Addr().BitLen()-2 {
			return nil, fault.New(fault.Invalid, "use address pool", spec, "the size must be that of a network inside the base", "a pool is base=10.10.0.0/16,size=24")
		}
		out = append(out, r)
	}
	return out, nil
}
