package network

import (
	"strconv"
	"strings"
	"unicode"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// Options of endpoints, in Docker's words: those with the prefix are said to the
// engine, whatever the driver is.
const (
	optEndpoint = "com.docker.network.endpoint."
	optDevice   = optEndpoint + "ifname"
)

// deviceMax is the longest name of a device, linux/if.h's IFNAMSIZ less its end.
const deviceMax = 15

// checkOptions refuses what an endpoint's options ask for and cannot have.
func checkOptions(network string, e record.Endpoint) error {
	bad := func(class fault.Class, why string) error {
		return fault.Say(class, "invalid config for network "+network+": invalid endpoint settings:\n"+why)
	}
	for opt, v := range e.DriverOpts {
		switch {
		case opt == optDevice:
			if !isDevice(v) {
				return bad(fault.Invalid, "invalid interface name "+strconv.Quote(v)+": it needs 1 to 15 characters other than spaces, / and :, and is not lo, . or ..")
			}
		case strings.HasPrefix(opt, optEndpoint):
			return bad(fault.Unsupported, "option "+opt+" is not supported")
		}
	}
	return nil
}

// isDevice is the kernel's dev_valid_name (net/core/dev.c), without the name that
// there is already.
func isDevice(name string) bool {
	return name != "" && len(name) <= deviceMax && name != "." && name != ".." && name != "lo" &&
		!strings.ContainsFunc(name, func(r rune) bool {
			return r == '/' || r == ':' || r == '%' || unicode.IsSpace(r) || unicode.IsControl(r)
		})
}

// deviceFor names the device of an endpoint: as was asked for, else the first ethN
// that no other endpoint of the container has or asks for.
func deviceFor(ep record.Endpoint, others []record.Endpoint) (string, error) {
	asked := ep.DriverOpts[optDevice]
	used := map[string]bool{}
	for _, o := range others {
		used[o.Device], used[o.DriverOpts[optDevice]] = true, true
	}
	if asked == "" {
		for i := 0; ; i++ {
			if name := "eth" + strconv.Itoa(i); !used[name] {
				return name, nil
			}
		}
	}
	if used[asked] {
		return "", fault.Say(fault.Invalid, "the container has a network device "+asked+" already: it cannot be that of network "+ep.Network)
	}
	return asked, nil
}
