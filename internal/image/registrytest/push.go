package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Pushing is how a registry takes what is pushed.
type Pushing struct {
	// Tamper, when set, may answer a request of an upload itself, which it says
	// by returning true. The body is still to be read.
	Tamper   func(w http.ResponseWriter, r *http.Request) bool
	NoMount  bool // blobs are not taken from other repositories
	NoChunks bool // PATCH is refused
	Forgets  bool // of an unfinished upload nothing is known
}

// upload is one begun upload. A registry that is given a part of a request
// keeps what came.
type upload struct {
	repo string
	buf  bytes.Buffer
}

// owned marks a blob as being in a repository. Preconditions: g.mu held.
func (g *Registry) owned(repo, d string) {
	if g.owners == nil {
		g.owners = map[string]bool{}
	}
	g.owners[repo+" "+d] = true
}

// Sent returns how often a method was used on a path that contains part.
func (g *Registry) Sent(method, part string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sent {
		if m, path, _ := strings.Cut(s, " "); m == method && strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// Manifest returns what is stored under "repo tag" or "repo digest".
func (g *Registry) Manifest(key string) (mediaType string, body []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.manifests[key]
	return m.mediaType, m.body
}

func (g *Registry) uploads(w http.ResponseWriter, r *http.Request, repo, id string) {
	if g.Pushing.Tamper != nil && g.Pushing.Tamper(w, r) {
		return
	}
	g.mu.Lock()
	u := g.begun[id]
	g.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		g.begin(w, r, repo)
	case u == nil || u.repo != repo:
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
	case r.Method == http.MethodPatch && g.Pushing.NoChunks:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "no chunks here")
	case r.Method == http.MethodPatch:
		g.patch(w, r, u, id)
	case r.Method == http.MethodPut:
		g.finish(w, r, u, id)
	case r.Method == http.MethodGet && !g.Pushing.Forgets:
		g.where(w, u, id, http.StatusNoContent)
	case r.Method == http.MethodDelete:
		g.mu.Lock()
		delete(g.begun, id)
		g.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
	}
}

func (g *Registry) begin(w http.ResponseWriter, r *http.Request, repo string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := r.URL.Query().Get("mount")
	if d != "" && !g.Pushing.NoMount && g.owners[r.URL.Query().Get("from")+" "+d] {
		g.owned(repo, d)
		w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d)
		w.WriteHeader(http.StatusCreated)
		return
	}
	if g.begun == nil {
		g.begun = map[string]*upload{}
	}
	g.next++
	id := fmt.Sprint("u", g.next)
	g.begun[id] = &upload{repo: repo}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=1")
	w.Header().Set("Range", "0-0")
	w.WriteHeader(http.StatusAccepted)
}

func (g *Registry) where(w http.ResponseWriter, u *upload, id string, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+id+"?state=1")
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, u.buf.Len()-1)))
	w.WriteHeader(status)
}

func (g *Registry) patch(w http.ResponseWriter, r *http.Request, u *upload, id string) {
	var first, last int
	_, err := fmt.Sscanf(r.Header.Get("Content-Range"), "%d-%d", &first, &last)
	g.mu.Lock()
	have := u.buf.Len()
	g.mu.Unlock()
	if err != nil || first != have || int64(last-first+1) != r.ContentLength {
		fail(w, http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "invalid content range")
		return
	}
	if g.take(r, u) != nil {
		return
	}
	g.where(w, u, id, http.StatusAccepted)
}

// take keeps of a body whatever comes.
func (g *Registry) take(r *http.Request, u *upload) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		g.mu.Lock()
		u.buf.Write(buf[:n])
		g.mu.Unlock()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (g *Registry) finish(w http.ResponseWriter, r *http.Request, u *upload, id string) {
	if g.take(r, u) != nil {
		return
	}
	g.mu.Lock()
	body := bytes.Clone(u.buf.Bytes())
	delete(g.begun, id)
	g.mu.Unlock()
	if d := digest.FromBytes(body).String(); d != r.URL.Query().Get("digest") {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	d := g.Add(body).String()
	g.mu.Lock()
	g.owned(u.repo, d)
	g.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", d)
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/"+d)
	w.WriteHeader(http.StatusCreated)
}

func (g *Registry) putManifest(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if g.Pushing.Tamper != nil && g.Pushing.Tamper(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	d := g.Tag(repo, ref, r.Header.Get("Content-Type"), body)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+d.String())
	w.WriteHeader(http.StatusCreated)
}
