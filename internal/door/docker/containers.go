package docker

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"fief/internal/engine"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// containers is everything about containers, by what it is used for.
type containers interface {
	containerTable
	lifecycle
	streams
}

// containerTable is the containers as objects. Names may be full ids, unique
// prefixes of ids, or names with or without a slash in front.
type containerTable interface {
	List(ctx context.Context) ([]record.Container, error)
	Inspect(ctx context.Context, id string) (record.Container, error)
	Create(ctx context.Context, c ask.Container) (engine.Created, error)
	Rename(ctx context.Context, id, name string) error
	Remove(ctx context.Context, id string, how ask.Remove) error
}

// sizer is an engine that can tell how many bytes a container has written, and
// how many it shows in all.
type sizer interface {
	Size(ctx context.Context, id string) (written, shown int64, err error)
}

func (d *door) containerRoutes() []route {
	return []route{
		on("GET /containers/json", d.containerList),
		on("POST /containers/create", d.containerCreate),
		on("POST /containers/prune", d.containerPrune),
		on("GET /containers/*/json", d.containerInspect),
		on("GET /containers/*/top", d.containerTop),
		on("POST /containers/*/rename", d.containerRename),
		on("DELETE /containers/*", d.containerRemove),
	}
}

func (d *door) containerCreate(w http.ResponseWriter, r *request) error {
	var body createBody
	if err := r.body(&body, true); err != nil {
		return err
	}
	a, warnings, err := body.ask(r.Form.Get("name"), r.Form.Get("platform"))
	if err != nil {
		return err
	}
	a.Caller = callerOf(r.Context())
	made, err := d.engine.Create(r.uncut(), a)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CreateResponse{
		ID: made.ID, Warnings: notNil(append(warnings, made.Warnings...)),
	})
}

func (d *door) containerInspect(w http.ResponseWriter, r *request) error {
	c, err := d.engine.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	out := inspectOf(c)
	if r.truth("size") {
		written, shown, err := d.sizeOf(r.Context(), c.ID)
		if err != nil {
			return err
		}
		out.SizeRw, out.SizeRootFs = &written, &shown
	}
	return ok(w, out)
}

func (d *door) sizeOf(ctx context.Context, id string) (written, shown int64, err error) {
	s, can := d.engine.(sizer)
	if !can {
		return 0, 0, refuse("measuring a container's size", "leave out --size")
	}
	return s.Size(ctx, id)
}

func (d *door) containerTop(w http.ResponseWriter, r *request) error {
	args := r.Form.Get("ps_args")
	if args == "" {
		args = "-ef"
	}
	top, err := d.engine.Top(r.Context(), r.name, fields(args))
	if err != nil {
		return err
	}
	return ok(w, container.TopResponse{Titles: top.Titles, Processes: notNil(top.Processes)})
}

func (d *door) containerRename(w http.ResponseWriter, r *request) error {
	name := trimSlash(r.Form.Get("name"))
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	if err := d.engine.Rename(r.uncut(), r.name, name); err != nil {
		return err
	}
	return noContent(w)
}

func (d *door) containerRemove(w http.ResponseWriter, r *request) error {
	if r.truth("link") {
		return refuse("links between containers", "leave out --link")
	}
	// v=1 asks for the anonymous volumes to go too; there are none.
	if err := d.engine.Remove(r.uncut(), r.name, ask.Remove{Force: r.truth("force"), Volumes: r.truth("v")}); err != nil {
		return err
	}
	return noContent(w)
}

// containerPrune removes every container that is not running and passes the
// filters. One that somebody else starts or removes meanwhile is left to them.
func (d *door) containerPrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), []string{"label", "label!", "until"})
	if err != nil {
		return err
	}
	until, err := f.moment("until")
	if err != nil {
		return err
	}
	list, err := d.engine.List(r.Context())
	if err != nil {
		return err
	}
	out := container.PruneReport{ContainersDeleted: []string{}}
	for _, c := range list {
		if running(c) || !f.labels(c.Labels) || !until.IsZero() && c.Created.After(until) {
			continue
		}
		written, _, _ := d.sizeOf(r.Context(), c.ID) // not known: not counted
		err := d.engine.Remove(r.uncut(), c.ID, ask.Remove{})
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.Busy) {
			continue
		}
		if err != nil {
			return err
		}
		out.ContainersDeleted = append(out.ContainersDeleted, c.ID)
		out.SpaceReclaimed += uint64(max(written, 0))
	}
	return ok(w, out)
}

func running(c record.Container) bool { return c.State.Up() }

// since is how long ago t was, never negative.
func since(t time.Time) time.Duration { return max(time.Since(t), 0) }
