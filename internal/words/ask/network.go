package ask

import (
	"net/netip"
	"strconv"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// NetBridge is the network of a container for which none was named.
const NetBridge Network = "bridge"

// Named reports whether n is a network with addresses, and not none, the host's
// or another container's.
func (n Network) Named() bool {
	_, joined := n.Container()
	return !joined && n != NetNone && n != NetHost && n != ""
}

// CreateNetwork is a request for a network.
type CreateNetwork struct {
	Name       string
	Driver     string // empty: bridge
	Subnets    []record.Subnet
	IPv6       bool
	NoIPv4     bool
	Internal   bool
	Attachable bool
	Labels     map[string]string
	Options    map[string]string
}

// ConnectNetwork is a request to put a container on a network.
type ConnectNetwork struct {
	Network   string
	Container string
	Endpoint  record.Endpoint
}

// DisconnectNetwork is a request to take a container off one.
type DisconnectNetwork struct {
	Network, Container string
	Force              bool
}

// ParsePort reads one -p: [[ADDRESS:][HOSTPORT[-END]]:]PORT[-END][/PROTO]. A
// range of host ports for a single port means any of them; two ranges are of the
// same length and make a pair for each. Errors are of class Invalid.
func ParsePort(spec string) ([]record.Port, error) {
	bad := func(why string) ([]record.Port, error) {
		return nil, fault.Say(fault.Invalid, why+": "+spec)
	}
	rest, proto, given := strings.Cut(spec, "/")
	proto = strings.ToLower(proto)
	if !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return bad("invalid proto: " + proto)
	}
	host, inner := "", rest
	if i := strings.LastIndex(rest, ":"); i >= 0 {
		host, inner = rest[:i], rest[i+1:]
	}
	p := record.Port{Proto: proto}
	if i := strings.LastIndex(host, ":"); i >= 0 {
		a := host[:i]
		if strings.HasPrefix(a, "[") && strings.HasSuffix(a, "]") {
			a = a[1 : len(a)-1]
		}
		host = host[i+1:]
		if a != "" {
			ip, err := netip.ParseAddr(a)
			if err != nil || ip.Zone() != "" {
				return bad("invalid IP address")
			}
			p.HostIP = ip.Unmap()
		}
	}
	first, last, ok := portRange(inner)
	if !ok || first == 0 {
		return bad("invalid containerPort: " + inner)
	}
	hostFirst, hostLast, ok := portRange(host)
	if !ok && host != "" {
		return bad("invalid hostPort: " + host)
	}
	n, hosts := int(last-first)+1, int(hostLast-hostFirst)+1
	if n > 1 && host != "" && n != hosts {
		return bad("invalid ranges specified for container and host Ports: " + inner + " and " + host)
	}
	var out []record.Port
	for i := range n {
		one := p
		one.Container = first + uint16(i)
		switch {
		case host == "":
		case n == 1 && hosts > 1:
			one.Host, one.HostEnd = hostFirst, hostLast
		default:
			one.Host = hostFirst + uint16(i)
		}
		out = append(out, one)
	}
	return out, nil
}

func portRange(s string) (first, last uint16, ok bool) {
	a, b, ranged := strings.Cut(s, "-")
	x, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, false
	}
	if !ranged {
		return uint16(x), uint16(x), true
	}
	y, err := strconv.ParseUint(b, 10, 16)
	return uint16(x), uint16(y), err == nil && y >= x
}

// ParseExpose reads one --expose: PORT[-END][/PROTO].
func ParseExpose(spec string) ([]string, error) {
	inner, proto, given := strings.Cut(spec, "/")
	if !given {
		proto = "tcp"
	}
	first, last, ok := portRange(inner)
	proto = strings.ToLower(proto)
	if !ok || first == 0 || proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fault.Say(fault.Invalid, "invalid range format for --expose: "+spec)
	}
	var out []string
	for n := int(first); n <= int(last); n++ {
		out = append(out, strconv.Itoa(n)+"/"+proto)
	}
	return out, nil
}

// CheckHost checks one --add-host, "name:address" or "name=address", and
// returns it with a colon.
func CheckHost(spec string) (string, error) {
	i := strings.IndexAny(spec, ":=")
	if i <= 0 || i == len(spec)-1 {
		return "", fault.Say(fault.Invalid, `bad format for add-host: "`+spec+`"`)
	}
	name, a := spec[:i], strings.TrimSuffix(strings.TrimPrefix(spec[i+1:], "["), "]")
	if strings.ContainsAny(name, " \t\n#") {
		return "", fault.Say(fault.Invalid, `bad format for add-host: "`+spec+`"`)
	}
	if a != "host-gateway" {
		if _, err := netip.ParseAddr(a); err != nil {
			return "", fault.Say(fault.Invalid, `invalid IP address in add-host: "`+a+`"`)
		}
	}
	return name + ":" + a, nil
}
