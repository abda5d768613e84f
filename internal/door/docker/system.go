package docker

import (
	"context"
	"net/http"
	"runtime"
	"strconv"

	"github.com/moby/moby/api/types/system"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// reporter is what the engine tells about itself. Events calls each with what
// has happened since the given time, as far as it is remembered, and then with
// what happens until ctx ends.
type reporter interface {
	Info(ctx context.Context) (record.Info, error)
	Events(ctx context.Context, span ask.Events, each func(record.Event) error) error
}

func (d *door) systemRoutes() []route {
	return []route{
		on("GET /_ping", d.ping),
		on("HEAD /_ping", d.ping),
		on("GET /version", d.version),
		on("GET /info", d.info),
		on("GET /events", d.events),
		on("GET /system/df", d.diskUsage),
		on("POST /auth", d.auth),
	}
}

// ping is how clients find the server's version; Builder-Version 1 keeps
// docker from asking for BuildKit.
func (d *door) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	w.Write([]byte("OK"))
	return nil
}

func (d *door) version(w http.ResponseWriter, r *request) error {
	info, err := d.engine.Info(r.Context())
	if err != nil {
		return err
	}
	api, low := "1."+strconv.Itoa(maxVersion), "1."+strconv.Itoa(minVersion)
	return ok(w, system.VersionResponse{
		Platform: system.PlatformInfo{Name: "fief"},
		Version:  d.opt.Version, APIVersion: api, MinAPIVersion: low,
		Os: "linux", Arch: runtime.GOARCH, GitCommit: d.opt.GitCommit, GoVersion: runtime.Version(),
		KernelVersion: info.Kernel, BuildTime: d.opt.BuildTime,
		Components: []system.ComponentVersion{{
			Name: "Engine", Version: d.opt.Version,
			Details: map[string]string{
				"ApiVersion": api, "MinAPIVersion": low, "Os": "linux", "Arch": runtime.GOARCH, "GitCommit": d.opt.GitCommit,
				"GoVersion": runtime.Version(), "KernelVersion": info.Kernel, "BuildTime": d.opt.BuildTime, "Experimental": "false",
			},
		}},
	})
}

// swarmAbsent is what every swarm endpoint says, in Docker's words.
func swarmAbsent(http.ResponseWriter, *request) error {
	return fault.Say(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
}
