package docker

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// committer reads what containers have written. An error of Export before the
// first byte leaves to untouched.
type committer interface {
	Commit(ctx context.Context, a ask.Commit) (record.Image, error)
	Export(ctx context.Context, name string, to io.Writer) error
	Changes(ctx context.Context, name string) ([]record.Change, error)
}

func (d *door) commitRoutes() []route {
	return []route{
		on("POST /commit", d.commit),
		on("GET /containers/*/export", d.containerExport),
		on("GET /containers/*/changes", d.containerChanges),
	}
}

// commit makes an image. Clients pause the container unless they say otherwise,
// and old ones send all changes as lines of one.
func (d *door) commit(w http.ResponseWriter, r *request) error {
	var body commitBody
	if err := r.body(&body, false); err != nil {
		return err
	}
	a := ask.Commit{Container: r.Form.Get("container"), Author: r.Form.Get("author"), Message: r.Form.Get("comment")}
	a.NoPause = r.Form.Get("pause") != "" && !r.truth("pause")
	for _, change := range r.Form["changes"] {
		for line := range strings.Lines(change) {
			if line = strings.TrimSpace(line); line != "" {
				a.Changes = append(a.Changes, line)
			}
		}
	}
	if repo := r.Form.Get("repo"); repo != "" {
		name, err := normalName(repo, r.Form.Get("tag"))
		if err != nil {
			return err
		}
		if _, digested := name.(reference.Digested); digested {
			return invalid("refusing to create a tag with a digest reference")
		}
		a.Name = reference.TagNameOnly(name).String()
	}
	var err error
	if a.Config, err = body.config(); err != nil {
		return err
	}
	img, err := d.engine.Commit(r.Context(), a)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: img.ID})
}

// commitBody is the config that a client wants the image to have.
type commitBody struct {
	*container.Config
	Cmd        words
	Entrypoint words
}

func (b *commitBody) config() (ask.CommitConfig, error) {
	if b.Config == nil {
		return ask.CommitConfig{Cmd: b.Cmd, Entrypoint: b.Entrypoint}, nil
	}
	err := refuseSet(
		field{"Healthcheck", b.Healthcheck != nil && len(b.Healthcheck.Test) > 0, "the image's own is kept: leave it out"},
		field{"OnBuild", len(b.OnBuild) > 0, "the image's own is kept: leave it out"},
	)
	out := ask.CommitConfig{
		User: b.User, Env: b.Env, Entrypoint: b.Entrypoint, Cmd: b.Cmd, WorkDir: b.WorkingDir, Labels: b.Labels,
		StopSignal: b.StopSignal, Shell: b.Shell,
	}
	for v := range b.Volumes {
		out.Volumes = append(out.Volumes, v)
	}
	for p := range b.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, p.String())
	}
	return out, err
}

// containerExport streams a tar. What goes wrong when the answer has begun
// cannot be said any more: the connection is broken off, so that no client takes
// the beginning of an archive for one.
func (d *door) containerExport(w http.ResponseWriter, r *request) error {
	out := &streamed{ResponseWriter: w, kind: "application/octet-stream"}
	err := d.engine.Export(r.Context(), r.name, out)
	if err != nil && out.begun {
		panic(http.ErrAbortHandler)
	}
	return err
}

func (d *door) containerChanges(w http.ResponseWriter, r *request) error {
	list, err := d.engine.Changes(r.Context(), r.name)
	if err != nil {
		return err
	}
	out := make([]container.FilesystemChange, len(list))
	for i, c := range list {
		out[i] = container.FilesystemChange{Kind: container.ChangeType(c.Kind), Path: c.Path}
	}
	return ok(w, out)
}
