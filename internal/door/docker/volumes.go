package docker

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"
)

func (d *door) volumeRoutes() []route {
	return []route{
		on("GET /volumes", d.volumeList),
		on("GET /volumes/*", d.volumeAbsent),
		on("DELETE /volumes/*", d.volumeAbsent),
		on("POST /volumes/prune", d.volumePrune),
	}
}

// volumeList is empty, and true: there are no named volumes yet.
func (d *door) volumeList(w http.ResponseWriter, r *request) error {
	if _, err := parseFilters(r.Form.Get("filters"), []string{"dangling", "driver", "label", "name"}); err != nil {
		return err
	}
	return ok(w, volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}})
}

func (d *door) volumeAbsent(_ http.ResponseWriter, r *request) error {
	return notFound("get %s: no such volume", r.name)
}

func (d *door) volumePrune(w http.ResponseWriter, r *request) error {
	if _, err := parseFilters(r.Form.Get("filters"), []string{"all", "label", "label!"}); err != nil {
		return err
	}
	return ok(w, volume.PruneReport{VolumesDeleted: []string{}})
}
