// Package network decides what a container's network is and which host, name
// and resolver files it sees. At this stage there are two networks, none (a
// namespace of its own with only loopback) and host; bridges come later.
package network

import (
	"fmt"
	"io"
	"os"
	"strings"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// resolvMax bounds what is copied of the host's resolv.conf; resolvers read a
// few lines (resolv.conf(5)).
const resolvMax = 64 << 10

// Files are the contents of the three files every container gets over its
// image's own.
type Files struct{ Hosts, Hostname, Resolv []byte }

// Check refuses a combination that cannot work. mapped says that the container
// has a user namespace of its own: a network namespace is owned by the user
// namespace it was made in (user_namespaces(7)), so the host's would be out of
// the container root's reach, and sysfs could not be mounted for it.
func Check(network string, mapped bool) error {
	switch {
	case network == "none":
		return nil
	case network == "host" && !mapped:
		return nil
	case network == "host":
		f := fault.Say(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
		f.Hint = "add --userns=host to run as the host's root, or use --network none"
		return f
	}
	return fault.New(fault.Unsupported, "use network", network, "only none and host exist so far",
		"use --network none or --network host")
}

// FilesFor makes the three files of a container.
func FilesFor(c record.Container) (Files, error) {
	f := Files{Hostname: []byte(c.Hostname + "\n"), Hosts: hosts(c)}
	if c.Network != "host" {
		return f, nil
	}
	b, err := readBounded("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		return Files{}, fault.Wrap(fault.Internal, "read", "/etc/resolv.conf", err, "")
	}
	f.Resolv = b
	return f, nil
}

func hosts(c record.Container) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	name := c.Hostname
	if c.Domainname != "" {
		name = c.Hostname + "." + c.Domainname + " " + c.Hostname
	}
	fmt.Fprintf(&b, "127.0.1.1\t%s\n", name)
	return []byte(b.String())
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, resolvMax))
}
