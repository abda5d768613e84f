package volume

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fief/internal/words/fault"
)

// lookup is how long a name of a server may take to be found.
const lookup = 20 * time.Second

// resolved is the options of a file system of the network as the kernel wants them: it
// knows no names, and mount.nfs(8) and mount.cifs(8), which turn them into addresses,
// are not called. A name in addr= is replaced, as Docker's driver does; without addr=
// the server that the device names is it, as with those programs.
func resolved(kind, device string, words []string) ([]string, error) {
	if kind != "nfs" && kind != "nfs4" && kind != "cifs" {
		return words, nil
	}
	out := slices.Clone(words)
	given := false
	for i, w := range out {
		key, name, _ := strings.Cut(w, "=")
		if key != "addr" && (key != "ip" || kind != "cifs") {
			continue
		}
		given = true
		at, err := address(name)
		if err != nil {
			return nil, err
		}
		out[i] = key + "=" + at
	}
	server := serverOf(kind, device)
	if given || server == "" {
		return out, nil
	}
	at, err := address(server)
	return append(out, "addr="+at), err
}

// serverOf is the server that a device names: HOST:/PATH, [ADDRESS]:/PATH or //HOST/SHARE;
// empty: none.
func serverOf(kind, device string) string {
	if kind == "cifs" {
		host, _, _ := strings.Cut(strings.TrimPrefix(device, "//"), "/")
		return host
	}
	i := strings.Index(device, ":/")
	if i < 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(device[:i], "["), "]")
}

// address finds the address of a server, of IPv4 if it has one.
func address(name string) (string, error) {
	if net.ParseIP(name) != nil {
		return name, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookup)
	defer cancel()
	found, err := net.DefaultResolver.LookupIPAddr(ctx, name)
	if err != nil || len(found) == 0 {
		return "", fault.Wrap(fault.Unavailable, "find the address of", name, err, "check addr= and the device, or write the address itself")
	}
	i := max(0, slices.IndexFunc(found, func(a net.IPAddr) bool { return a.IP.To4() != nil }))
	return found[i].String(), nil
}

// versioned reports whether options say which version of NFS is to be spoken: the kernel
// takes 3 for type nfs, which asks the server's rpcbind and mountd, where mount.nfs(8)
// would have tried 4.2 first.
func versioned(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		return strings.HasPrefix(w, "vers=") || strings.HasPrefix(w, "nfsvers=") || strings.HasPrefix(w, "v4") || w == "v3"
	})
}

// mountHint says what a failed mount of a kind with these options may want.
func mountHint(kind string, words []string, err error) string {
	remote := kind == "nfs" || kind == "nfs4" || kind == "cifs"
	switch {
	case errors.Is(err, unix.ENODEV):
		return "this kernel has no " + kind + ": load its module, or check type="
	case !remote:
		return ""
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "the server does not let this host have it: check its exports"
	case errors.Is(err, unix.ENOENT):
		return "the server has no such path"
	case kind == "nfs" && errors.Is(err, unix.ECONNREFUSED) && !versioned(words):
		return "no server answers; without a version the kernel speaks NFS 3, which needs rpcbind there: try nfsvers=4"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return "no server answers: check addr=, and that the host lets it through"
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return "the server does not speak this version: say another with nfsvers= or vers="
	case errors.Is(err, unix.EINVAL):
		return "the kernel does not know an option: see its log, and check that addr= is given"
	}
	return ""
}
