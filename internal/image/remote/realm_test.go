package remote

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
)

func TestPlaces(t *testing.T) {
	for _, c := range []struct {
		addrs string
		want  place
	}{
		{"127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1", loopback},
		{"10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fd00::1 fc00::1 ::ffff:10.0.0.1 64:ff9b::a00:1", inner},
		{"8.8.8.8 172.32.0.1 100.128.0.1 2606:4700::1 64:ff9b::808:808", public},
		{"169.254.169.254 169.254.0.1 fe80::1 fe80::1%eth0 0.0.0.0 :: 255.255.255.255 224.0.0.1 ff02::1 fd00:ec2::254 fd20:ce::254 100.100.100.200 168.63.129.16 192.0.0.192 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe", nowhere},
	} {
		for addr := range strings.SplitSeq(c.addrs, " ") {
			if got := placeOf(netip.MustParseAddr(addr)); got != c.want {
				t.Errorf("%s is at %d, want %d", addr, got, c.want)
			}
		}
	}
	for _, c := range []struct {
		from string
		may  string
		not  string
	}{
		{"8.8.8.8", "8.8.8.8 1.1.1.1", "10.0.0.1 127.0.0.1 fd00::1 169.254.169.254"},
		{"10.0.0.1", "1.1.1.1 10.0.0.1 192.168.0.1 fd00::1", "127.0.0.1 169.254.169.254 fd00:ec2::254"},
		{"127.0.0.1", "1.1.1.1 10.0.0.1 ::1", "169.254.169.254 100.100.100.200"},
		{"169.254.7.7", "169.254.7.7 1.1.1.1", "169.254.169.254 10.0.0.1 127.0.0.1"},
		{"", "1.1.1.1", "10.0.0.1 127.0.0.1 169.254.169.254"},
	} {
		from, _ := netip.ParseAddr(c.from)
		for to := range strings.SplitSeq(c.may, " ") {
			if !mayName(from, netip.MustParseAddr(to)) {
				t.Errorf("%q may not name %s", c.from, to)
			}
		}
		for to := range strings.SplitSeq(c.not, " ") {
			if mayName(from, netip.MustParseAddr(to)) {
				t.Errorf("%q may name %s", c.from, to)
			}
		}
	}
}

func TestCheckRealm(t *testing.T) {
	secure, plain := &url.URL{Scheme: "https", Host: "reg.example"}, &url.URL{Scheme: "http", Host: "reg.example"}
	for _, c := range []struct {
		realm string
		base  *url.URL
		want  string // "": refused
	}{
		{"https://auth.example/token?a=b", secure, "https://auth.example/token?a=b"},
		{"https://auth.example:8443", secure, "https://auth.example:8443"},
		{"https://auth.example:1/t#part", secure, "https://auth.example:1/t"},
		{"http://auth.example", plain, "http://auth.example"},
		{"https://auth.example", plain, "https://auth.example"},
		{"http://auth.example", secure, ""},
		{"http://reg.example/token", secure, ""},
		{"HTTP://reg.example/token", secure, ""},
		{"https://u:p@auth.example", secure, ""},
		{"https://u@auth.example", secure, ""},
		{"https://auth.example:port/", secure, ""},
		{"https://:443/", secure, ""},
		{"https:auth.example", secure, ""},
		{"//auth.example/token", secure, ""},
		{"/token", secure, ""},
		{"file:///etc/passwd", plain, ""},
		{"gopher://auth.example/", plain, ""},
		{"", plain, ""},
	} {
		u, err := checkRealm(c.realm, c.base)
		switch {
		case err == nil && u.String() != c.want:
			t.Errorf("%q by %s: %s", c.realm, c.base.Scheme, u)
		case err != nil && c.want != "":
			t.Errorf("%q by %s: %v", c.realm, c.base.Scheme, err)
		case err != nil && (fault.ClassOf(err) != fault.Denied || !strings.Contains(err.Error(), c.realm)):
			t.Errorf("%q by %s: %v, of class %v", c.realm, c.base.Scheme, err, fault.ClassOf(err))
		}
	}
}

// network runs the test in a network and mount namespace of its own, where lo
// has every address that is needed, and reports whether this is the inner run.
func network(t *testing.T) bool {
	t.Helper()
	const mark = "FIEF_TEST_INNER"
	if os.Getenv(mark) == "" {
		if os.Geteuid() != 0 {
			t.Skip("root: makes a network namespace")
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("%v\n%s", err, out)
		}
		return false
	}
	hosts := filepath.Join(t.TempDir(), "hosts")
	text := "127.0.0.1 localhost\n10.9.0.1 registry.corp\n10.9.0.2 gitlab.corp\n203.0.113.7 registry.example\n203.0.113.8 auth.example\n" +
		"169.254.169.254 metadata.example\n127.0.0.1 here.example\n10.9.0.2 inside.example\n"
	if err := os.WriteFile(hosts, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `mount --make-rprivate / && mount --bind "$0" /etc/hosts && ip link set lo up &&
for a in 10.9.0.1 10.9.0.2 203.0.113.7 203.0.113.8 169.254.169.254; do ip addr add $a/32 dev lo || exit 1; done`
	if out, err := exec.Command("sh", "-c", script, hosts).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "/etc/hosts").Run() })
	return true
}

// at serves on an address, and returns the port.
func at(t *testing.T, addr string, secure bool, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = l
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// fetch fetches a manifest as user u.
func fetch(t *testing.T, host string) error {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(host + "/img")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r, err := Connect(ctx, named, Options{Insecure: []string{host}, Auth: ask.RegistryAuth{Username: "u", Password: "p"}, Stall: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, _, err = r.Manifest(ctx, "latest")
	return err
}

// Where a token server may be, by where the registry is.
func TestTokenServerElsewhere(t *testing.T) {
	if !network(t) {
		return
	}
	type side struct {
		name, addr string
		secure     bool
	}
	corp, example, local := side{"registry.corp", "10.9.0.1", true}, side{"registry.example", "203.0.113.7", true}, side{"localhost", "127.0.0.1", true}
	gitlab, auth := side{"gitlab.corp", "10.9.0.2", true}, side{"auth.example", "203.0.113.8", true}
	plain := func(s side) side { s.secure = false; return s }
	for name, c := range map[string]struct {
		registry, realm side
		why             string // "": it works
	}{
		"private names private":              {corp, gitlab, ""},
		"private names private, plain":       {plain(corp), plain(gitlab), ""},
		"private names private by address":   {corp, side{"10.9.0.2", "10.9.0.2", true}, ""},
		"private names public":               {corp, auth, ""},
		"public names public":                {example, auth, ""},
		"loopback names private":             {local, gitlab, ""},
		"plain names TLS":                    {plain(corp), gitlab, ""},
		"itself, another port":               {example, example, ""},
		"private names plain":                {corp, plain(gitlab), "it is plain http, and the registry is not"},
		"public names private":               {example, side{"inside.example", "10.9.0.2", true}, "it has the private address 10.9.0.2"},
		"public names private, plain":        {plain(example), plain(gitlab), "it has the private address 10.9.0.2"},
		"public names private by address":    {example, side{"10.9.0.2", "10.9.0.2", true}, "it has the private address 10.9.0.2"},
		"public names loopback":              {plain(example), side{"here.example", "127.0.0.1", false}, "it is this machine"},
		"private names loopback":             {plain(corp), side{"localhost", "127.0.0.1", false}, "it is this machine"},
		"private names metadata":             {plain(corp), side{"metadata.example", "169.254.169.254", false}, "it is at 169.254.169.254"},
		"loopback names metadata":            {plain(local), side{"169.254.169.254", "169.254.169.254", false}, "it is at 169.254.169.254"},
		"public names metadata as IPv4-in-6": {plain(example), side{"[::ffff:169.254.169.254]", "169.254.169.254", false}, "169.254.169.254"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer", User: "u", Password: "p"}}
			g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
			var asked atomic.Int32
			tokens := at(t, c.realm.addr, c.realm.secure, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				g.ServeHTTP(w, r)
			}))
			scheme := "http"
			if c.realm.secure {
				scheme = "https"
			}
			realm := fmt.Sprintf("%s://%s:%s/token", scheme, c.realm.name, tokens)
			g.Auth.Realm = realm + "?account=x"
			err := fetch(t, c.registry.name+":"+at(t, c.registry.addr, c.registry.secure, g))
			if c.why == "" {
				if err != nil || asked.Load() != 1 {
					t.Errorf("%v, %d requests", err, asked.Load())
				}
				return
			}
			if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), realm) || !strings.Contains(err.Error(), c.why) || asked.Load() != 0 {
				t.Errorf("%v, %d requests", err, asked.Load())
			}
		})
	}
}

// A token server that redirects gets no further than one that is named, and
// takes nobody's password along.
func TestTokenServerRedirects(t *testing.T) {
	if !network(t) {
		return
	}
	for name, c := range map[string]struct {
		to     string // address of where it redirects to
		secure bool
		ok     bool
		why    string
	}{
		"to another host":    {"10.9.0.1", true, true, ""}, // which gives everybody a token
		"to plain http":      {"10.9.0.1", false, false, "from https to http"},
		"to loopback":        {"127.0.0.1", true, false, "this machine"},
		"to a cloud's inner": {"169.254.169.254", true, false, "169.254.169.254"},
	} {
		t.Run(name, func(t *testing.T) {
			var leaked, asked atomic.Int32
			target := at(t, c.to, c.secure, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.Header.Get("Authorization") != "" {
					leaked.Add(1)
				}
				fmt.Fprint(w, `{"token":"a-token"}`)
			}))
			scheme := map[bool]string{true: "https", false: "http"}[c.secure]
			tokens := at(t, "10.9.0.2", true, http.RedirectHandler(fmt.Sprintf("%s://%s:%s/token", scheme, c.to, target), http.StatusTemporaryRedirect))
			g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer", Realm: "https://gitlab.corp:" + tokens + "/token"}}
			g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
			err := fetch(t, "registry.corp:"+at(t, "10.9.0.1", true, g))
			if c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), c.why) || leaked.Load() != 0 || (asked.Load() > 0) != c.ok {
				t.Errorf("%v, asked %d times, %d with a password", err, asked.Load(), leaked.Load())
			}
		})
	}
}

// A refresh token goes into a body, which 307 and 308 repeat.
func TestRefreshTokenStays(t *testing.T) {
	var got atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got.Add(1) }))
	defer other.Close()
	tokens := httptest.NewServer(http.RedirectHandler(other.URL+"/token", http.StatusPermanentRedirect))
	defer tokens.Close()
	g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer", Refresh: "r", Realm: tokens.URL + "/token"}}
	srv := httptest.NewServer(g)
	defer srv.Close()
	err := Login(context.Background(), strings.TrimPrefix(srv.URL, "http://"), Options{Auth: ask.RegistryAuth{IdentityToken: "r"}})
	if err == nil || got.Load() != 0 {
		t.Errorf("%v; the other was sent it %d times", err, got.Load())
	}
}

// A registry that redirects takes no credentials along, neither those it was
// sent nor new ones that the next place demands: another port is another place.
func TestRegistryRedirects(t *testing.T) {
	var leaked, asked atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		w.Header().Set("Www-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer thief.Close()
	g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "basic", User: "u", Password: "p"}, Tamper: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		http.Redirect(w, r, thief.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}}
	g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
	srv := httptest.NewServer(g)
	defer srv.Close()
	if err := fetch(t, strings.TrimPrefix(srv.URL, "http://")); !fault.Is(err, fault.Denied) || leaked.Load() != 0 || asked.Load() == 0 {
		t.Errorf("%v; asked %d times, %d with a password", err, asked.Load(), leaked.Load())
	}
}

// Whatever a token server sends, and however slowly, is answered in time.
func TestTokenAnswers(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"endless": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"token":"`)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		},
		"endless and blank": func(w http.ResponseWriter, r *http.Request) {
			for blanks := []byte(strings.Repeat(" ", 32<<10)); r.Context().Err() == nil; {
				if _, err := w.Write(blanks); err != nil {
					return
				}
			}
		},
		"dribbled": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		},
		"silent":        func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"empty":         func(w http.ResponseWriter, r *http.Request) {},
		"no token":      func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") },
		"a token of LF": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"token":"a\nX: y"}`) },
		"round in circles": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokens := httptest.NewServer(http.HandlerFunc(answer))
			defer tokens.Close()
			g := &registrytest.Registry{Auth: registrytest.Auth{Scheme: "bearer", Realm: tokens.URL + "/token"}}
			g.Push("img", "latest", registrytest.Gzipped(registrytest.Layer("a", "1")))
			srv := httptest.NewServer(g)
			defer srv.Close()
			began := time.Now()
			err := fetch(t, strings.TrimPrefix(srv.URL, "http://"))
			if err == nil || time.Since(began) > 10*time.Second || len(err.Error()) > 500 {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
}

func TestFollow(t *testing.T) {
	for _, c := range []struct {
		method, from, to string
		ok, keeps        bool // credentials
	}{
		{"GET", "https://reg.example/v2/a/manifests/x", "https://REG.example:443/v2/b", true, true},
		{"GET", "https://reg.example/v2/a/manifests/x", "https://reg.example:8443/v2/b", true, false},
		{"GET", "https://reg.example/v2/a/manifests/x", "http://reg.example/v2/b", false, false},
		{"GET", "https://reg.example/v2/a/blobs/x", "http://cdn.example/b", true, false},
		{"PUT", "https://reg.example/v2/a/blobs/uploads/x", "http://cdn.example/b", false, false},
		{"GET", "http://reg.example/v2/a/blobs/x", "https://cdn.example/b", true, false},
	} {
		first := httptest.NewRequest(c.method, c.from, nil)
		next := httptest.NewRequest(c.method, c.to, nil)
		next.Header.Set("Authorization", "secret")
		err := follow(next, []*http.Request{first})
		if (err == nil) != c.ok || c.ok && (next.Header.Get("Authorization") != "") != c.keeps {
			t.Errorf("%s %s to %s: %v, %v", c.method, c.from, c.to, err, next.Header)
		}
	}
	c := &client{host: "reg.example", who: credential(ask.RegistryAuth{Username: "u", Password: "p"})}
	for address, mine := range map[string]bool{"https://reg.example": true, "https://reg.example:443/x": true, "http://reg.example:80": true,
		"https://reg.example:80": false, "https://other.example": false, "https://reg.example.evil": false} {
		u, _ := url.Parse(address)
		if got := c.credential(c.named(u)).Username == "u"; got != mine {
			t.Errorf("%s gets the password: %v", address, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	for header, want := range map[string]string{
		`Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"`: "bearer https://a/t s repository:x:pull,push",
		`bearer   REALM = https , service="a\"b"`:                               `bearer https a"b `,
		`Basic realm="x", Bearer realm="https://a/t",service=s`:                 "bearer https://a/t s ",
		`Bearer realm="https://a/t", Basic realm="x"`:                           "bearer https://a/t  ",
		`Basic realm="x"`:                             "basic x  ",
		`Negotiate, Basic realm="x"`:                  "basic x  ",
		`Bearer realm="https://a", realm="https://b"`: "bearer https://a  ",
		`Bearer realm="open`:                          "bearer   ",
		`Digest qop="auth", nonce="a,b"`:              "   ",
		``:                                            "   ",
		`,,, ,`:                                       "   ",
		"\x00Bearer":                                  "   ",
	} {
		c := chooseChallenge([]string{header})
		if got := strings.Join([]string{c.scheme, c.params["realm"], c.params["service"], c.params["scope"]}, " "); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
	if c := chooseChallenge([]string{`Basic realm="x"`, `Bearer realm="https://a"`}); c.scheme != "bearer" {
		t.Errorf("of two headers %v", c)
	}
}
