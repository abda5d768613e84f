package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
)

// refusedRoutes are the endpoints a client may know and this engine does not
// have: each says so by name, where "page not found" would be a riddle.
func (d *door) refusedRoutes() []route {
	table := []route{
		on("GET /plugins", emptyList),
		on("GET /plugins/*/json", func(_ http.ResponseWriter, r *request) error { return notFound("plugin %q not found", r.name) }),
		on("POST /build/prune", nothingCached),
	}
	for _, path := range []string{"/swarm", "/services", "/nodes", "/tasks", "/secrets", "/configs"} {
		for _, method := range []string{"GET ", "POST ", "DELETE "} {
			table = append(table, on(method+path, swarmAbsent), on(method+path+"/*", swarmAbsent))
		}
	}
	for _, no := range refusals {
		table = append(table, on(no.pattern, no.answer))
	}
	return table
}

type refusal struct{ pattern, what, hint string }

func (no refusal) answer(http.ResponseWriter, *request) error { return refuse(no.what, no.hint) }

var refusals = [...]refusal{
	{"POST /build", "building images", "build elsewhere and use docker load or docker pull"},
	{"POST /session", "BuildKit", "build elsewhere and use docker load or docker pull"},
	{"POST /grpc", "BuildKit", "build elsewhere and use docker load or docker pull"},
	{"GET /images/search", "searching a registry", ""},
	{"GET /distribution/*/json", "asking a registry about an image without pulling it", "pull it and inspect it"},
	{"GET /containers/*/attach/ws", "attaching over a websocket", "use POST /containers/{id}/attach"},
	{"GET /containers/*/checkpoints", "checkpointing", ""},
	{"POST /containers/*/checkpoints", "checkpointing", ""},
	{"POST /volumes/create", "creating a volume", "mount a host directory: -v /path:/path"},
	{"POST /plugins/*", "plugins", ""},
}

func emptyList(w http.ResponseWriter, _ *request) error { return ok(w, []struct{}{}) }

// nothingCached answers the build cache part of docker system prune.
func nothingCached(w http.ResponseWriter, _ *request) error {
	return ok(w, build.CachePruneReport{CachesDeleted: []string{}})
}
