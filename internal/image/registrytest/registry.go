// Package registrytest is a registry in memory for tests: enough of the OCI
// distribution spec to pull from and push to, with every fault a test needs.
package registrytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Auth says what a registry wants to see.
type Auth struct {
	Scheme   string // "", "basic" or "bearer"
	User     string // "": a token is given to everybody
	Password string
	Refresh  string // an identity token that is taken too
	Realm    string // the token server; "": the registry itself, below /token
}

// Registry is the handler. Fields are set before it serves.
type Registry struct {
	Auth Auth
	// Tamper, when set, may answer a request for a blob or manifest itself,
	// which it says by returning true.
	Tamper func(w http.ResponseWriter, r *http.Request, body []byte) bool
	// NoRanges makes it ignore Range.
	NoRanges bool
	Pushing  Pushing

	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string]document // "repo tag" and "repo digest"
	tags      map[string][]string
	asked     map[string]int
	sent      []string           // "METHOD path" of every request let in
	owners    map[string]bool    // "repo digest" of blobs pushed or mounted
	begun     map[string]*upload // by id
	next      int
}

type document struct {
	mediaType string
	body      []byte
}

// Add stores a blob and returns its digest.
func (g *Registry) Add(blob []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.blobs == nil {
		g.blobs = map[string][]byte{}
	}
	d := digest.FromBytes(blob)
	g.blobs[d.String()] = blob
	return d
}

// Tag stores a manifest or index under its digest and, if not empty, a tag.
func (g *Registry) Tag(repo, tag, mediaType string, body []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.manifests == nil {
		g.manifests, g.tags = map[string]document{}, map[string][]string{}
	}
	d := digest.FromBytes(body)
	g.manifests[repo+" "+d.String()] = document{mediaType, body}
	if tag != "" {
		g.manifests[repo+" "+tag] = document{mediaType, body}
		g.tags[repo] = append(g.tags[repo], tag)
	}
	return d
}

// Asked returns how often a path that ends so was asked for with GET.
func (g *Registry) Asked(suffix string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for path, count := range g.asked {
		if strings.HasSuffix(path, suffix) {
			n += count
		}
	}
	return n
}

// ServeHTTP answers /v2/ and /token.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		g.token(w, r)
		return
	}
	if !g.allowed(r) {
		challenge := `Basic realm="test"`
		if g.Auth.Scheme == "bearer" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			realm := fmt.Sprintf("%s://%s/token", scheme, r.Host)
			if g.Auth.Realm != "" {
				realm = g.Auth.Realm
			}
			challenge = fmt.Sprintf(`Bearer realm="%s",service="test"`, realm)
		}
		w.Header().Set("Www-Authenticate", challenge)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	g.mu.Lock()
	g.sent = append(g.sent, r.Method+" "+r.URL.Path)
	g.mu.Unlock()
	switch {
	case path == "":
		w.WriteHeader(http.StatusOK)
	case strings.HasSuffix(path, "/tags/list"):
		g.list(w, strings.TrimSuffix(path, "/tags/list"))
	case strings.Contains(path, "/blobs/uploads/"):
		repo, id, _ := strings.Cut(path, "/blobs/uploads/")
		g.uploads(w, r, repo, id)
	case strings.Contains(path, "/blobs/"):
		repo, d, _ := strings.Cut(path, "/blobs/")
		g.blob(w, r, repo, d)
	case strings.Contains(path, "/manifests/"):
		repo, ref, _ := strings.Cut(path, "/manifests/")
		if r.Method == http.MethodPut {
			g.putManifest(w, r, repo, ref)
			return
		}
		g.manifest(w, r, repo+" "+ref)
	default:
		http.NotFound(w, r)
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

const tokenText = "a-token"

func (g *Registry) allowed(r *http.Request) bool {
	auth := r.Header.Get("Authorization")
	switch g.Auth.Scheme {
	case "basic":
		return auth == g.basic()
	case "bearer":
		return auth == "Bearer "+tokenText
	}
	return true
}

func (g *Registry) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(g.Auth.User+":"+g.Auth.Password))
}

// token answers both ways of asking: with a password in the header, and with a
// refresh token in a form (distribution token and OAuth2 specs).
func (g *Registry) token(w http.ResponseWriter, r *http.Request) {
	ok := g.Auth.User == "" && g.Auth.Refresh == "" || g.Auth.User != "" && r.Header.Get("Authorization") == g.basic()
	if r.Method == http.MethodPost {
		ok = g.Auth.Refresh != "" && r.PostFormValue("refresh_token") == g.Auth.Refresh
	}
	if !ok {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	json.NewEncoder(w).Encode(map[string]string{"token": tokenText, "access_token": tokenText})
}

func (g *Registry) list(w http.ResponseWriter, repo string) {
	g.mu.Lock()
	tags := g.tags[repo]
	g.mu.Unlock()
	if tags == nil {
		fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
}

func (g *Registry) count(r *http.Request) {
	if g.asked == nil {
		g.asked = map[string]int{}
	}
	if r.Method == http.MethodGet {
		g.asked[r.URL.Path]++
	}
}

// blob answers from every repository what was added for tests; what is there
// already for a push is only what that repository was given.
func (g *Registry) blob(w http.ResponseWriter, r *http.Request, repo, d string) {
	g.mu.Lock()
	body, ok := g.blobs[d]
	ok = ok && (r.Method != http.MethodHead || g.owners[repo+" "+d])
	g.count(r)
	g.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	if g.Tamper != nil && g.Tamper(w, r, body) {
		return
	}
	w.Header().Set("Docker-Content-Digest", d)
	w.Header().Set("Content-Type", "application/octet-stream")
	if g.NoRanges {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func (g *Registry) manifest(w http.ResponseWriter, r *http.Request, key string) {
	g.mu.Lock()
	doc, ok := g.manifests[key]
	g.count(r)
	g.mu.Unlock()
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	if g.Tamper != nil && g.Tamper(w, r, doc.body) {
		return
	}
	w.Header().Set("Content-Type", doc.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(doc.body).String())
	w.Header().Set("Content-Length", fmt.Sprint(len(doc.body)))
	if r.Method != http.MethodHead {
		w.Write(doc.body)
	}
}
