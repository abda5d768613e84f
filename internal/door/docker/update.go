package docker

import (
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"fief/internal/words/ask"
)

// update changes a container's restart policy; limits are refused by name.
func (d *door) update(w http.ResponseWriter, r *request) error {
	var body struct {
		container.Resources
		KernelMemory  int64
		RestartPolicy container.RestartPolicy
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return invalid("invalid update: %v", err)
	}
	limits := hostBody{KernelMemory: body.KernelMemory}
	limits.Resources = body.Resources
	if err := limits.checkLimits(); err != nil {
		return err
	}
	if body.RestartPolicy.Name != "" {
		p := ask.RestartPolicy{Name: string(body.RestartPolicy.Name), MaxRetries: body.RestartPolicy.MaximumRetryCount}
		if err := d.engine.UpdateRestart(r.uncut(), r.name, p); err != nil {
			return err
		}
	} else if _, err := d.engine.Inspect(r.Context(), r.name); err != nil {
		return err
	}
	return ok(w, container.UpdateResponse{Warnings: []string{}})
}
