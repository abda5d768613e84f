// Package docker is the door that speaks the Docker Engine API: it turns HTTP
// requests into asks, calls the engine, and turns records and faults back into
// what docker, compose, testcontainers and the language clients expect. What
// it cannot do faithfully it refuses by name; it never weakens a request.
package docker

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The API versions, as minor numbers of major 1. 1.51 is Docker 28.5: every
// newer client steps down to it. From 1.52 on many fields that older clients
// read are gone.
const (
	maxVersion = 51
	minVersion = 24
)

// Engine is all this door asks of the engine; each part is declared where it
// is used.
type Engine interface {
	containers
	execs
	images
	pusher
	reporter
	committer
	copier
	limiter
	volumes
}

// Options are the facts the door tells about the build. Version is the version
// of the server as clients print it.
type Options struct {
	Version   string
	GitCommit string
	BuildTime string
}

// New returns the handler of the whole API, with and without the version
// prefix. It starts nothing of its own and may serve any number of listeners.
func New(engine Engine, opt Options) http.Handler {
	d := &door{engine: engine, opt: opt}
	for _, table := range [][]route{
		d.systemRoutes(), d.containerRoutes(), d.lifecycleRoutes(), d.resourceRoutes(), d.streamRoutes(), d.execRoutes(), d.archiveRoutes(),
		d.imageRoutes(), d.fetchRoutes(), d.commitRoutes(), d.saveRoutes(), d.networkRoutes(), d.volumeRoutes(), d.refusedRoutes(),
	} {
		d.routes = append(d.routes, table...)
	}
	return d
}

// NewServer returns a server for h that speaks HTTP/1.1 with keep-alive and
// HTTP/2 without TLS, which buildx uses on the same socket. It has no write
// timeout: logs, events and waits last as long as their containers.
func NewServer(h http.Handler) *http.Server {
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), ConnContext: withCaller}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

type door struct {
	engine Engine
	opt    Options
	routes []route
}

// route is one endpoint: the path without version is prefix, a name when
// wild, suffix. A name may hold slashes: image references do.
type route struct {
	method         string
	prefix, suffix string
	wild           bool
	do             action
}

// action answers one request. A returned error becomes the answer, unless the
// action has written one already.
type action func(w http.ResponseWriter, r *request) error

// request is an HTTP request with its path taken apart. version is the minor
// API version the client speaks, name what stood for the * of the route.
type request struct {
	*http.Request
	version int
	name    string
}

// on makes a route of "METHOD /path/*/rest".
func on(pattern string, do action) route {
	method, path, _ := strings.Cut(pattern, " ")
	prefix, suffix, wild := strings.Cut(path, "*")
	return route{method: method, prefix: prefix, suffix: suffix, wild: wild, do: do}
}

func (rt *route) match(method, path string) (name string, ok bool) {
	if method != rt.method {
		return "", false
	}
	if !rt.wild {
		return "", path == rt.prefix
	}
	if len(path) <= len(rt.prefix)+len(rt.suffix) || !strings.HasPrefix(path, rt.prefix) || !strings.HasSuffix(path, rt.suffix) {
		return "", false
	}
	name = strings.TrimPrefix(path[len(rt.prefix):len(path)-len(rt.suffix)], "/")
	return name, name != ""
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	out := &answer{ResponseWriter: w}
	h := w.Header()
	h.Set("Server", "Docker/"+d.opt.Version+" (linux)")
	h.Set("Api-Version", "1."+strconv.Itoa(maxVersion))
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")

	r := &request{Request: hr, version: maxVersion}
	version, path := splitVersion(hr.URL.Path)
	if version != "" {
		if err := r.setVersion(version); err != nil {
			d.badVersion(out, r, err)
			return
		}
	}
	// Forms are read whatever the content type says: clients send parameters
	// with odd ones or none, and a body that is no form is left alone.
	if err := hr.ParseForm(); err != nil && !strings.HasPrefix(err.Error(), "mime:") {
		out.fail(invalid("%v", err))
		return
	}
	for i := range d.routes {
		if name, ok := d.routes[i].match(hr.Method, path); ok {
			r.name = name
			if err := d.routes[i].do(out, r); err != nil {
				out.fail(err)
			}
			return
		}
	}
	out.fail(notFound("page not found"))
}

// splitVersion cuts "/v1.41" off a path; version is empty when there is none.
func splitVersion(path string) (version, rest string) {
	if len(path) < 3 || path[:2] != "/v" || path[2] < '0' || path[2] > '9' {
		return "", path
	}
	i := strings.IndexByte(path[1:], '/')
	if i < 0 {
		return path[2:], ""
	}
	return path[2 : i+1], path[i+1:]
}

// setVersion checks the client's version, in the words clients look for.
func (r *request) setVersion(version string) error {
	major, rest, _ := strings.Cut(version, ".")
	ma, err1 := strconv.Atoi(major)
	mi, err2 := strconv.Atoi(rest)
	if err1 != nil || err2 != nil {
		return notFound("page not found")
	}
	if ma > 1 || ma == 1 && mi > maxVersion {
		return invalid("client version %s is too new. Maximum supported API version is 1.%d", version, maxVersion)
	}
	r.version = mi
	if ma < 1 || mi < minVersion {
		return invalid("client version %s is too old. Minimum supported API version is 1.%d, please upgrade your client to a newer version", version, minVersion)
	}
	return nil
}

// badVersion answers a version that is not spoken; clients below 1.24 read plain
// text, not JSON.
func (d *door) badVersion(w *answer, r *request, err error) {
	if r.version < minVersion {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	w.fail(err)
}

// uncut returns a context that outlives the client's connection: a container
// half stopped or half removed because somebody pressed ctrl-c helps nobody.
func (r *request) uncut() context.Context { return context.WithoutCancel(r.Context()) }
