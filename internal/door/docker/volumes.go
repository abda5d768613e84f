package docker

import (
	"context"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/volume"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// volumes is everything about volumes.
type volumes interface {
	CreateVolume(ctx context.Context, want ask.CreateVolume) (record.Volume, error)
	Volumes(ctx context.Context) ([]record.Volume, error)
	Volume(ctx context.Context, name string) (record.Volume, error)
	RemoveVolume(ctx context.Context, name string, force bool) error
	VolumeSize(ctx context.Context, name string) (int64, error)
}

func (d *door) volumeRoutes() []route {
	return []route{
		on("GET /volumes", d.volumeList),
		on("GET /volumes/*", d.volumeInspect),
		on("DELETE /volumes/*", d.volumeRemove),
		on("POST /volumes/create", d.volumeCreate),
		on("POST /volumes/prune", d.volumePrune),
	}
}

func (d *door) volumeList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"dangling", "driver", "label", "name"})
	if err != nil {
		return err
	}
	dangling, err := f.truth("dangling", false)
	if err != nil {
		return err
	}
	list, err := d.engine.Volumes(r.Context())
	if err != nil {
		return err
	}
	out := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}}
	for _, v := range list {
		if f.has("dangling") && dangling != (len(v.Users) == 0) || !f.labels(v.Labels) {
			continue
		}
		if !f.any("driver", func(want string) bool { return want == v.Driver }) || !f.any("name", func(want string) bool { return resembles(want, v.Name) }) {
			continue
		}
		out.Volumes = append(out.Volumes, volumeOf(v))
	}
	return ok(w, out)
}

func volumeOf(v record.Volume) volume.Volume {
	return volume.Volume{
		Name: v.Name, Driver: v.Driver, CreatedAt: v.Created.Format("2006-01-02T15:04:05Z07:00"), Labels: v.Labels, Options: v.Options,
		Mountpoint: v.Mountpoint, Scope: "local",
	}
}

func (d *door) volumeInspect(w http.ResponseWriter, r *request) error {
	v, err := d.engine.Volume(r.Context(), r.name)
	if err != nil {
		return err
	}
	return ok(w, volumeOf(v))
}

func (d *door) volumeRemove(w http.ResponseWriter, r *request) error {
	if err := d.engine.RemoveVolume(r.uncut(), r.name, r.truth("force")); err != nil {
		return err
	}
	return noContent(w)
}

func (d *door) volumeCreate(w http.ResponseWriter, r *request) error {
	var body volume.CreateRequest
	if err := r.body(&body, true); err != nil {
		return err
	}
	if body.ClusterVolumeSpec != nil {
		return refuse("a cluster volume", "there is no swarm: leave it out")
	}
	v, err := d.engine.CreateVolume(r.uncut(), ask.CreateVolume{Name: body.Name, Driver: body.Driver, Options: body.DriverOpts, Labels: body.Labels})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, volumeOf(v))
}

// volumePrune removes volumes that no container has: since API 1.42 those without
// a name of their own unless all are asked for.
func (d *door) volumePrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"all", "label", "label!"})
	if err != nil {
		return err
	}
	all, err := f.truth("all", r.version < 42)
	if err != nil {
		return err
	}
	list, err := d.engine.Volumes(r.Context())
	if err != nil {
		return err
	}
	out := volume.PruneReport{VolumesDeleted: []string{}}
	for _, v := range list {
		if len(v.Users) > 0 || !all && !v.Anonymous || !f.labels(v.Labels) {
			continue
		}
		size, _ := d.engine.VolumeSize(r.Context(), v.Name) // not known: not counted
		err := d.engine.RemoveVolume(r.uncut(), v.Name, false)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return err
		}
		out.VolumesDeleted = append(out.VolumesDeleted, v.Name)
		out.SpaceReclaimed += uint64(max(size, 0))
	}
	return ok(w, out)
}

// volumeUsage is every volume with what is in it and how many containers have it.
func (d *door) volumeUsage(ctx context.Context) ([]volume.Volume, error) {
	list, err := d.engine.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	out := []volume.Volume{}
	for _, v := range list {
		size, err := d.engine.VolumeSize(ctx, v.Name)
		if fault.Is(err, fault.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			size = -1
		}
		shown := volumeOf(v)
		shown.UsageData = &volume.UsageData{Size: size, RefCount: int64(len(v.Users))}
		out = append(out, shown)
	}
	return out, nil
}

// volumesFromAsked reads HostConfig.VolumesFrom.
func volumesFromAsked(list []string) (out []ask.VolumesFrom, err error) {
	for _, spec := range list {
		v, err := ask.ParseVolumesFrom(spec)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// volumeConfig is Config.Volumes of a container: what its image names and what
// was asked for without a source.
func volumeConfig(c record.Container) map[string]struct{} {
	var out map[string]struct{}
	for _, m := range c.Mounts {
		if m.Kind == "volume" && anonymous(m) {
			if out == nil {
				out = map[string]struct{}{}
			}
			out[m.Target] = struct{}{}
		}
	}
	return out
}

// anonymous reports whether a volume has a name of the engine's making.
func anonymous(m record.Mount) bool {
	return len(m.Name) == 64 && strings.Trim(m.Name, "0123456789abcdef") == ""
}

func volumeIs(e record.Event, v string) bool {
	return e.Type == "volume" && v == e.ID
}
