package main

// The rows about networks, each a whole `run --rm` beside the one without.
const (
	rowNone   = "fief run --rm --network none busybox true"
	rowBridge = "fief run --rm --network bridge busybox true"
	rowPorts  = "fief run --rm, publishing 100 ports"
)

// networks are starts on the default bridge.
func (s *stage) networks() []*contestant {
	return []*contestant{
		{Group: "network", Name: rowBridge, make: s.timed("run", "--rm", "--network", "bridge", "busybox", "true")},
		{Group: "network", Name: rowPorts, make: s.timed("run", "--rm", "-p", "20000-20099:1000-1099", "busybox", "true")},
	}
}

// judgeNetworks compares them with a start without a network.
func judgeNetworks(list []*contestant) (out []verdict) {
	p50 := map[string]float64{}
	for _, c := range list {
		if len(c.Runs) > 0 {
			c.median()
			p50[c.Name] = c.P50
		}
	}
	if p50[rowNone] == 0 || p50[rowBridge] == 0 {
		return nil
	}
	out = append(out, compared("a start on the bridge", p50[rowBridge], "without a network", p50[rowNone], 1.3))
	if p50[rowPorts] != 0 {
		out = append(out, bounded("publishing 100 ports, over a start on the bridge", p50[rowPorts]-p50[rowBridge], 20, "ms"))
	}
	return out
}
