package docker

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"fief/internal/words/fault"
	"fief/internal/words/record"
)

var listFilters = []string{
	"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish",
	"since", "status", "volume",
}

var statuses = []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}

func (d *door) containerList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r.Form.Get("filters"), listFilters)
	if err != nil {
		return err
	}
	limit, err := r.number("limit")
	if err != nil {
		return err
	}
	all, err := d.engine.List(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b record.Container) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	pick, err := d.picker(r.Context(), f)
	if err != nil {
		return err
	}
	everything := r.truth("all") || f.has("status") || limit != nil && *limit > 0
	imageOf := d.imageNames(r.Context())
	out := []container.Summary{}
	for _, c := range all {
		if limit != nil && *limit > 0 && len(out) == *limit {
			break
		}
		if !everything && !running(c) && !f.has("exited") || !pick(c) {
			continue
		}
		s := summarize(c, r.version)
		s.Image = imageOf(c)
		if r.truth("size") {
			s.SizeRw, s.SizeRootFs, err = d.sizeOf(r.Context(), c.ID)
			if fault.Is(err, fault.NotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return err
			}
		}
		out = append(out, s)
	}
	return ok(w, out)
}

// imageNames says how a list shows a container's image: by the name it was
// made from for as long as that names the same image, then by id, as dockerd
// does.
func (d *door) imageNames(ctx context.Context) func(record.Container) string {
	ids := map[string]string{}
	return func(c record.Container) string {
		id, known := ids[c.Image]
		if !known {
			if img, err := d.engine.Image(ctx, c.Image); err == nil {
				id = img.ID
			}
			ids[c.Image] = id
		}
		if id == c.ImageID || c.ImageID == "" {
			return c.Image
		}
		return c.ImageID
	}
}

// picker turns the filters into one question, after checking them.
func (d *door) picker(ctx context.Context, f filters) (func(record.Container) bool, error) {
	if err := f.checkList(); err != nil {
		return nil, err
	}
	before, err := d.neighbour(ctx, f["before"])
	if err != nil {
		return nil, err
	}
	after, err := d.neighbour(ctx, f["since"])
	if err != nil {
		return nil, err
	}
	ancestors := d.ancestors(ctx, f["ancestor"])
	return func(c record.Container) bool {
		return f.container(c) &&
			(before == nil || c.Created.Before(before.Created)) &&
			(after == nil || c.Created.After(after.Created)) &&
			f.any("ancestor", func(v string) bool { return v == c.Image || c.ImageID != "" && ancestors[c.ImageID] })
	}, nil
}

func (f filters) checkList() error {
	for _, v := range f["status"] {
		if !slices.Contains(statuses, v) {
			return invalid("invalid filter 'status=%s'", v)
		}
	}
	for _, v := range f["exited"] {
		if _, err := strconv.Atoi(v); err != nil {
			return invalid("invalid filter 'exited=%s'", v)
		}
	}
	for _, v := range f["health"] {
		if !slices.Contains([]string{"starting", "healthy", "unhealthy", "none"}, v) {
			return invalid("invalid filter 'health=%s'", v)
		}
	}
	for _, key := range []string{"publish", "expose"} {
		for _, v := range f[key] {
			if _, err := hasPort(v, nil); err != nil {
				return err
			}
		}
	}
	_, err := f.truth("is-task", false)
	return err
}

// neighbour is the container that "before" or "since" names.
func (d *door) neighbour(ctx context.Context, names []string) (*record.Container, error) {
	if len(names) == 0 {
		return nil, nil
	}
	c, err := d.engine.Inspect(ctx, names[0])
	return &c, err
}

// ancestors is the ids of the named images; a name without an image matches
// only containers that were made by that name.
func (d *door) ancestors(ctx context.Context, names []string) map[string]bool {
	ids := map[string]bool{}
	for _, name := range names {
		if img, err := d.engine.Image(ctx, name); err == nil {
			ids[img.ID] = true
		}
	}
	return ids
}

// container reports whether the filters about one container's own facts pass.
// No container has a swarm task.
func (f filters) container(c record.Container) bool {
	return f.any("id", func(v string) bool { return resembles(v, c.ID) }) &&
		f.any("name", func(v string) bool { return resembles(v, c.Name) || resembles(v, "/"+c.Name) }) &&
		f.any("status", func(v string) bool { return v == c.State.Word() }) &&
		f.any("exited", func(v string) bool {
			return c.State.Status == record.Exited && v == strconv.Itoa(c.State.ExitCode)
		}) &&
		f.any("network", func(v string) bool { return onNetwork(c, v) }) &&
		f.any("volume", func(v string) bool { return mountsAt(c, v) }) &&
		f.any("health", func(v string) bool { return v == c.HealthOf() }) &&
		f.any("is-task", func(v string) bool { return !isTrue(v) }) &&
		f.any("publish", func(v string) bool { return publishes(c, v) }) &&
		f.any("expose", func(v string) bool { return exposes(c, v) }) && f.labels(c.Labels)
}

func mountsAt(c record.Container, v string) bool {
	return slices.ContainsFunc(c.Mounts, func(m record.Mount) bool { return m.Target == v || m.Name != "" && m.Name == v })
}

func summarize(c record.Container, version int) container.Summary {
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Image, ImageID: c.ImageID, Command: commandLine(c),
		Created: c.Created.Unix(), Ports: portSummaries(c), Labels: labelsOf(c.Labels),
		State: container.ContainerState(c.State.Word()), Status: statusText(c.State),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: networksOf(c)},
		Mounts:          mountPoints(c),
	}
	s.HostConfig.NetworkMode = c.Network
	if version >= 46 {
		s.HostConfig.Annotations = c.Annotations
	}
	return s
}

// commandLine is the command as `docker ps` shows it.
func commandLine(c record.Container) string {
	var b strings.Builder
	b.WriteString(c.Path)
	for _, arg := range c.Args {
		if strings.Contains(arg, " ") {
			arg = "'" + arg + "'"
		}
		b.WriteString(" " + arg)
	}
	return b.String()
}

// statusText is the STATUS column, which scripts parse.
func statusText(s record.State) string {
	switch s.Status {
	case record.Running:
		up := "Up " + units.HumanDuration(since(s.StartedAt))
		if s.Paused {
			return up + " (Paused)"
		}
		return up + s.HealthNote()
	case record.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(since(s.FinishedAt)))
	case record.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(since(s.FinishedAt)))
	case record.Removing:
		return "Removal In Progress"
	case record.Dead:
		return "Dead"
	case record.Created:
		return "Created"
	}
	return string(s.Status)
}

func networksOf(c record.Container) map[string]*network.EndpointSettings {
	if c.Network == "" || joins(c.Network) { // the other container's, as Docker has it
		return map[string]*network.EndpointSettings{}
	}
	out := map[string]*network.EndpointSettings{}
	for _, e := range c.Net.Endpoints {
		out[e.Network] = settingsOf(c, e)
	}
	if len(out) == 0 {
		out[c.Network] = &network.EndpointSettings{NetworkID: networkID(c.Network)}
	}
	return out
}

func labelsOf(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

func fields(s string) []string { return strings.Fields(s) }

func trimSlash(name string) string { return strings.TrimPrefix(name, "/") }
