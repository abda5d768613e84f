package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"fief/internal/words/fault"
)

// A registry names the token server that is asked next, with the user's
// password perhaps: the realm of its challenge. It could make the daemon ask
// where the registry itself does not reach (GHSA-xf85-363p-868w and
// GHSA-mm27-wq9c-mxxr, found in oras-go). So what it may name depends on where
// it is itself, as told by the connection to it, not by its name:
//
//	registry         may name a token server on
//	public address   public addresses
//	private address  public and private addresses: GitLab, Harbor
//	loopback         all of these, and loopback
//
// None may name what answers to every machine in another way: link-local
// addresses and the metadata services of clouds. Its own address it may name
// always. The address is checked when it is connected to, so that a name which
// changes between look-up and use gains nothing.
type place int

const (
	nowhere place = iota
	loopback
	inner
	public
)

// metadata are services of clouds that give credentials to whoever asks from
// the machine, at addresses that do not look like it: AWS and Google over IPv6,
// Alibaba, Azure, Oracle.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::254/128"),
	netip.MustParsePrefix("fd20:ce::254/128"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("192.0.0.0/24"),
}

var (
	shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598; overlay networks use it too
	nat64  = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052: an IPv4 address in the last four bytes
)

func placeOf(addr netip.Addr) place {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, p := range metadata {
		if p.Contains(addr) {
			return nowhere
		}
	}
	switch {
	case addr.IsLoopback():
		return loopback
	case addr.IsPrivate(), shared.Contains(addr):
		return inner
	case addr.IsGlobalUnicast() && addr != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return public
	}
	return nowhere
}

// mayName reports whether a registry at from may name a token server at to. An
// invalid from is a registry whose address is not known: behind a proxy.
func mayName(from, to netip.Addr) bool {
	if from.IsValid() && from.Unmap() == to.Unmap() {
		return true
	}
	home := public
	if from.IsValid() {
		home = placeOf(from)
	}
	switch placeOf(to) {
	case public:
		return true
	case inner:
		return home == inner || home == loopback
	case loopback:
		return home == loopback
	}
	return false
}

// checkRealm reads a realm that came over base. It must not be less safe than
// the registry.
func checkRealm(realm string, base *url.URL) (*url.URL, error) {
	u, err := url.Parse(realm)
	switch {
	case realm == "":
		return nil, badRealm(realm, "it names none")
	case err != nil, u.Opaque != "", u.Hostname() == "":
		return nil, badRealm(realm, "it is no address")
	case u.User != nil:
		return nil, badRealm(realm, "it holds credentials")
	case u.Scheme == "http" && base.Scheme == "https":
		return nil, badRealm(realm, "it is plain http, and the registry is not")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, badRealm(realm, "it is neither https nor http")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func badRealm(realm, why string) error {
	return fault.New(fault.Denied, "get a token from", short(realm), "the registry names it as its token server, but "+why, "")
}

// asker is the key of a context's from.
type asker struct{}

// from is where the registry is that named the token server. The zero value is
// one whose address is not known.
type from struct {
	addr    netip.Addr
	unasked bool // it is a proxy that is connected to
}

// newTokenTransport connects to token servers, each time anew: what was allowed
// to one registry's address is nothing to another's.
func newTokenTransport(lax bool) *http.Transport {
	t := newTransport(lax)
	t.DisableKeepAlives = true
	d := &net.Dialer{Timeout: 10 * time.Second, ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
		home, _ := ctx.Value(asker{}).(from)
		if home.unasked {
			return nil
		}
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !mayName(home.addr, to.Addr()) {
			return &placeError{to.Addr()}
		}
		return nil
	}}
	t.DialContext = d.DialContext
	return t
}

// placeError is why a token server is not connected to.
type placeError struct{ to netip.Addr }

func (e *placeError) Error() string {
	switch placeOf(e.to) {
	case inner:
		return fmt.Sprintf("it has the private address %s, and the registry none", e.to)
	case loopback:
		return fmt.Sprintf("it is this machine, %s, and the registry is not", e.to)
	}
	return fmt.Sprintf("it is at %s, where no registry may send anybody", e.to)
}

// guard lets requests to token servers through that the registry's address
// allows. A proxy looks names up by itself and reaches what it will: only
// addresses written as such can be checked then.
type guard struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	home, _ := req.Context().Value(asker{}).(from)
	if to, err := netip.ParseAddr(req.URL.Hostname()); err == nil && !mayName(home.addr, to) {
		return nil, &placeError{to}
	}
	if home.unasked = proxied(req); !home.unasked {
		return g.base.RoundTrip(req)
	}
	return g.base.RoundTrip(req.WithContext(context.WithValue(req.Context(), asker{}, home)))
}

// proxied reports whether the environment has a proxy for the request, which
// then is the one that transports of newTransport connect to.
func proxied(req *http.Request) bool {
	proxy, err := http.ProxyFromEnvironment(req)
	return proxy != nil || err != nil
}
