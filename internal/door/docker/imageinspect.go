package docker

import (
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"

	"fief/internal/words/record"
)

// imageInspect is an image as API 1.51 and older show it.
type imageInspect struct {
	image.InspectResponse
	Config        imageConfig
	Parent        string
	DockerVersion string
	VirtualSize   int64 `json:",omitempty"` // API before 1.44
	*madeBy
}

// madeBy is there before API 1.45 (moby#47430) and tells of the container that a
// builder has committed. There is none here; docker-compose 1 reads the image's
// volumes from its config, whatever the version, and cannot make a container anew
// without.
type madeBy struct {
	Container       string
	ContainerConfig imageConfig
}

// imageConfig has what clients before API 1.52 read, present even when empty:
// docker-py indexes without asking. The second half was there until 1.49 and
// was always empty.
type imageConfig struct {
	User         string
	Env          []string
	Cmd          []string
	Entrypoint   []string
	WorkingDir   string
	Labels       map[string]string
	OnBuild      []string
	Volumes      map[string]struct{}
	ExposedPorts map[string]struct{} `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	Shell        []string            `json:",omitempty"`
	Healthcheck  *record.Health      `json:",omitempty"`
	*legacyConfig
}

type legacyConfig struct {
	Hostname, Domainname                    string
	Image                                   string
	AttachStdin, AttachStdout, AttachStderr bool
	Tty, OpenStdin, StdinOnce               bool
}

func (d *door) imageInspect(w http.ResponseWriter, r *request) error {
	img, err := d.imageFor(r)
	if err != nil {
		return err
	}
	out := imageInspect{
		InspectResponse: image.InspectResponse{
			ID: imageID(img), RepoTags: familiarAll(img.Names), RepoDigests: familiarAll(img.Digests),
			Comment: img.Comment, Author: img.Author, Architecture: img.Arch, Variant: img.Variant, Os: img.OS, Size: img.Size,
			GraphDriver: &storage.DriverData{Name: storageDriver, Data: map[string]string{}},
			RootFS:      image.RootFS{Type: "layers", Layers: diffIDs(img.Layers)},
			Metadata:    image.Metadata{LastTagTime: img.Pulled},
		},
		Config: imageConfigOf(img.Config),
	}
	if !img.Created.IsZero() {
		out.Created = stamp(img.Created)
	}
	if r.version < 50 {
		out.Config.legacyConfig = &legacyConfig{}
	}
	if r.version < 45 || strings.HasPrefix(r.UserAgent(), "docker-compose/1.") {
		out.madeBy = &madeBy{ContainerConfig: out.Config}
	}
	if r.version < 44 {
		out.VirtualSize = img.Size
	}
	return ok(w, out)
}

// imageFor finds the image of a request, for the platform that it names.
func (d *door) imageFor(r *request) (record.Image, error) {
	platform, err := platformOf(r.Form.Get("platform"))
	if err != nil {
		return record.Image{}, err
	}
	return d.engine.ImageFor(r.Context(), r.name, platform)
}

func imageConfigOf(c record.ImageConfig) imageConfig {
	return imageConfig{
		User: c.User, Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint, WorkingDir: c.WorkDir, Labels: c.Labels,
		Volumes: setOf(c.Volumes), ExposedPorts: setOf(c.ExposedPorts), StopSignal: c.StopSignal, Shell: c.Shell, Healthcheck: c.Health,
	}
}

func setOf(list []string) map[string]struct{} {
	if len(list) == 0 {
		return nil
	}
	set := map[string]struct{}{}
	for _, s := range list {
		set[s] = struct{}{}
	}
	return set
}

func diffIDs(layers []record.Layer) []string {
	var out []string
	for _, l := range layers {
		out = append(out, l.DiffID)
	}
	return out
}

// imageHistory lists the steps that made an image, newest first. Only the
// newest has an id: the others were never images here.
func (d *door) imageHistory(w http.ResponseWriter, r *request) error {
	img, err := d.imageFor(r)
	if err != nil {
		return err
	}
	out := []image.HistoryResponseItem{}
	layer := 0
	for _, h := range img.History {
		item := image.HistoryResponseItem{ID: "<missing>", Created: h.Created.Unix(), CreatedBy: h.CreatedBy, Comment: h.Comment}
		if !h.EmptyLayer && layer < len(img.Layers) {
			item.Size = img.Layers[layer].Size
			layer++
		}
		out = append(out, item)
	}
	if len(out) == 0 {
		return ok(w, out)
	}
	slices.Reverse(out)
	out[0].ID, out[0].Tags = imageID(img), familiarAll(img.Names)
	return ok(w, out)
}
