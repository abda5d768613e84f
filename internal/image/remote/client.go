package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"fief/internal/words/fault"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxTokenAnswer bounds what a token server may send. A token has to fit into a
// header; the answer may hold it twice.
const maxTokenAnswer = 128 << 10

// maxHops is how many redirects are followed, as in net/http.
const maxHops = 10

// client sends requests to one registry, and shows who it is when asked: by
// password, or by a token that it gets where the registry says (distribution
// spec, "Token Authentication Specification" and OAuth2). oras' own client
// asks no token server with a private address; see place for what this does.
type client struct {
	http   *http.Client
	tokens *http.Client // to token servers
	cache  auth.Cache   // of tokens
	host   string       // the registry: nobody else is sent credentials
	who    auth.Credential
	agent  string
	wait   time.Duration // for a token, everything included
}

// Do implements remote.Client of oras. A request with a body must have GetBody.
func (c *client) Do(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	host := c.named(req.URL)
	key := strings.Join(auth.GetAllScopesForHost(ctx, host), " ")
	sent := c.kept(ctx, host, key)
	resp, peer, err := c.send(req, sent)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !sameOrigin(req.URL, resp.Request.URL) {
		return resp, err
	}
	demand := chooseChallenge(resp.Header.Values("Www-Authenticate"))
	switch demand.scheme {
	case "basic":
		resp.Body.Close()
		value, err := c.basic(ctx, host)
		if err != nil {
			return nil, err
		}
		return c.again(req, "Basic "+value)
	case "bearer":
		resp.Body.Close()
		return c.withToken(req, demand, peer, sent)
	}
	return resp, nil
}

// withToken repeats a request with a token that the cache has for what the
// registry demands, or else with a new one.
func (c *client) withToken(req *http.Request, demand challenge, peer netip.Addr, sent string) (*http.Response, error) {
	ctx, host := req.Context(), c.named(req.URL)
	scopes := auth.GetAllScopesForHost(ctx, host)
	if more := demand.params["scope"]; more != "" {
		scopes = auth.CleanScopes(append(scopes, strings.Split(more, " ")...))
	}
	key := strings.Join(scopes, " ")
	if token, err := c.cache.GetToken(ctx, host, auth.SchemeBearer, key); err == nil && "Bearer "+token != sent {
		resp, err := c.again(req, "Bearer "+token)
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			return resp, err
		}
		resp.Body.Close()
	}
	token, err := c.cache.Set(ctx, host, auth.SchemeBearer, key, func(ctx context.Context) (string, error) {
		return c.token(ctx, req.URL, peer, demand, scopes)
	})
	if err != nil {
		return nil, err
	}
	return c.again(req, "Bearer "+token)
}

// kept is the Authorization that worked before.
func (c *client) kept(ctx context.Context, host, key string) string {
	scheme, err := c.cache.GetScheme(ctx, host)
	if err != nil {
		return ""
	}
	name := "Basic "
	if scheme == auth.SchemeBearer {
		name = "Bearer "
	} else {
		key = ""
	}
	token, err := c.cache.GetToken(ctx, host, scheme, key)
	if err != nil {
		return ""
	}
	return name + token
}

func (c *client) again(req *http.Request, authorization string) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, fmt.Errorf("%s %s: it cannot be sent again", req.Method, req.URL.Path)
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = body
	}
	resp, _, err := c.send(req, authorization)
	return resp, err
}

// send makes one request and says which address has answered; an invalid one
// behind a proxy.
func (c *client) send(req *http.Request, authorization string) (*http.Response, netip.Addr, error) {
	var peer atomic.Pointer[netip.Addr]
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if a, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
			addr := a.AddrPort().Addr().Unmap()
			peer.Store(&addr)
		}
	}}
	ctx := req.Context()
	req = req.Clone(httptrace.WithClientTrace(ctx, trace))
	req.Header.Set("User-Agent", c.agent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	h := *c.http
	h.CheckRedirect = follow
	resp, err := h.Do(req)
	if at := peer.Load(); err == nil && at != nil && !proxied(req) {
		return resp, *at, nil
	}
	return resp, netip.Addr{}, err
}

// follow decides about a redirect. Credentials stay where they were meant to
// go, which net/http sees to for other names only, not for other ports. Plain
// http after https will do to fetch a blob, whose digest is checked.
func follow(req *http.Request, via []*http.Request) error {
	if len(via) >= maxHops {
		return fmt.Errorf("the registry redirects more than %d times", maxHops)
	}
	first := via[0].URL
	fetch := via[0].Method == http.MethodGet || via[0].Method == http.MethodHead
	if first.Scheme == "https" && req.URL.Scheme != "https" && !(fetch && strings.Contains(first.Path, "/blobs/")) {
		return fmt.Errorf("the registry redirects from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	if left(req, via) {
		req.Header.Del("Authorization")
	}
	return nil
}

// left reports whether a chain of redirects has been anywhere else than where
// it began. net/http puts the first request's headers back when it returns.
func left(req *http.Request, via []*http.Request) bool {
	for _, r := range via {
		if !sameOrigin(via[0].URL, r.URL) {
			return true
		}
	}
	return !sameOrigin(via[0].URL, req.URL)
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && canonicalHost(a) == canonicalHost(b)
}

// named is the registry as scopes and credentials know it, where that is meant:
// one that says where an upload goes on may write its port though it need not.
func (c *client) named(u *url.URL) string {
	if canonicalHost(u) == canonicalHost(&url.URL{Scheme: u.Scheme, Host: c.host}) {
		return c.host
	}
	return u.Host
}

// credential is who to be at host.
func (c *client) credential(host string) auth.Credential {
	if host != c.host {
		return auth.EmptyCredential
	}
	return c.who
}

func (c *client) basic(ctx context.Context, host string) (string, error) {
	return c.cache.Set(ctx, host, auth.SchemeBasic, "", func(context.Context) (string, error) {
		who := c.credential(host)
		if who.Username == "" || who.Password == "" {
			return "", auth.ErrBasicCredentialNotFound
		}
		return base64.StdEncoding.EncodeToString([]byte(who.Username + ":" + who.Password)), nil
	})
}

// token gets a token for the registry at base, which answered from peer.
func (c *client) token(ctx context.Context, base *url.URL, peer netip.Addr, demand challenge, scopes []string) (string, error) {
	who := c.credential(c.named(base))
	if who.AccessToken != "" {
		return who.AccessToken, nil
	}
	realm, err := checkRealm(demand.params["realm"], base)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(context.WithValue(ctx, asker{}, from{addr: peer}), c.wait, errStalled)
	defer cancel()
	req, err := tokenRequest(ctx, realm, demand.params["service"], scopes, who)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", c.agent)
	h := *c.tokens
	h.CheckRedirect = followToken
	resp, err := h.Do(req)
	if err != nil {
		return "", realmFault(realm, because(ctx, err))
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return "", refusal(resp)
	default:
		return "", realmFault(realm, refusal(resp))
	}
	defer resp.Body.Close()
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxTokenAnswer)).Decode(&answer)
	if because(ctx, err) == errStalled {
		return "", realmFault(realm, errStalled)
	}
	token := answer.AccessToken
	if token == "" {
		token = answer.Token
	}
	if token == "" || err != nil {
		return "", realmFault(realm, errors.New("its answer holds no token"))
	}
	return token, nil
}

// tokenRequest is a GET with the password, or for one who has a refresh token a
// form that holds it.
func tokenRequest(ctx context.Context, realm *url.URL, service string, scopes []string, who auth.Credential) (*http.Request, error) {
	if who.RefreshToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {who.RefreshToken}, "service": {service}, "client_id": {"fief"}}
		if len(scopes) > 0 {
			form.Set("scope", strings.Join(scopes, " "))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	query := realm.Query()
	if service != "" {
		query.Set("service", service)
	}
	for _, s := range scopes {
		query.Add("scope", s)
	}
	where := *realm
	where.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), nil)
	if err == nil && (who.Username != "" || who.Password != "") {
		req.SetBasicAuth(who.Username, who.Password)
	}
	return req, err
}

// followToken decides about a redirect of a token server. It gets less far than
// a registry's: a form with a refresh token does not leave, nor does anything
// leave https.
func followToken(req *http.Request, via []*http.Request) error {
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("it redirects from https to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	if req.URL.User != nil {
		return errors.New("it redirects to an address with credentials")
	}
	if left(req, via) && req.Method != http.MethodGet {
		return fmt.Errorf("it redirects elsewhere, to %s://%s", req.URL.Scheme, req.URL.Host)
	}
	return follow(req, via)
}

// realmFault says which token server failed. A query may hold secrets and is
// left out.
func realmFault(realm *url.URL, err error) error {
	var where *placeError
	shown := short((&url.URL{Scheme: realm.Scheme, Host: realm.Host, Path: realm.Path}).String())
	if errors.As(err, &where) {
		return badRealm(shown, where.Error())
	}
	var redirect *url.Error // its text holds the whole address
	if errors.As(err, &redirect) {
		err = redirect.Err
	}
	class, hint := fault.Unavailable, "try again"
	if errors.Is(err, context.Canceled) {
		class, hint = fault.Canceled, ""
	}
	return fault.Wrap(class, "get a token from", shown, err, hint)
}
