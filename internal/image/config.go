package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// configFile is an image's config (OCI image spec, "Image Configuration") with
// what Docker adds. Nothing in it is acted on here.
type configFile struct {
	Created      *time.Time `json:"created,omitempty"`
	Author       string     `json:"author,omitempty"`
	Comment      string     `json:"comment,omitempty"`
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	OSVersion    string     `json:"os.version,omitempty"`
	Variant      string     `json:"variant,omitempty"`
	Config       configRun  `json:"config"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []ocispec.History `json:"history,omitempty"`
}

type configRun struct {
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   words               `json:",omitempty"`
	Cmd          words               `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	Shell        []string            `json:",omitempty"`
	OnBuild      []string            `json:",omitempty"`
	Healthcheck  *record.Health      `json:",omitempty"`
}

// words is a list that old clients wrote as a single string.
type words []string

// UnmarshalJSON takes both forms.
func (w *words) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil && string(raw) != "null" {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(w))
}

// parseConfig reads the config of an image of that many layers.
func parseConfig(raw []byte, layers int) (configFile, error) {
	var c configFile
	if len(raw) > maxConfig {
		return c, fault.New(fault.Corrupt, "read image config", "", "it has more than 8 MiB", "")
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fault.Wrap(fault.Corrupt, "read image config", "", err, "")
	}
	if t := c.RootFS.Type; t != "" && t != "layers" { // an error by the OCI image spec, "Image Configuration", rootfs
		return c, fault.New(fault.Unsupported, "read image config", "", fmt.Sprintf("its root file system is of type %q, not layers", short(t)), "")
	}
	if len(c.RootFS.DiffIDs) != layers {
		return c, fault.New(fault.Corrupt, "read image config", "",
			fmt.Sprintf("it names %d layers, the manifest %d", len(c.RootFS.DiffIDs), layers), "")
	}
	for _, d := range c.RootFS.DiffIDs {
		if !isDigest(d) {
			return c, fault.New(fault.Corrupt, "read image config", "", fmt.Sprintf("%q is no sha256 digest", short(d)), "")
		}
	}
	if c.OS != "" && c.OS != "linux" {
		return c, fault.New(fault.Unsupported, "use image", "", fmt.Sprintf("it is made for %s, not for linux", short(c.OS)), "")
	}
	return c, nil
}

// checkPlatform refuses an image that is not of the platform asked for. One
// that is not of the host's is taken when nobody asked: binfmt_misc may run it.
func (c configFile) checkPlatform(name, asked string) error {
	if asked == "" {
		return nil
	}
	match, err := matcher(asked)
	if err != nil {
		return err
	}
	is := platforms.Normalize(ocispec.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant})
	if match.Match(is) {
		return nil
	}
	return notOfPlatform(name, asked, is)
}

// notOfPlatform is Docker's sentence.
func notOfPlatform(name, asked string, is ocispec.Platform) error {
	return fault.Say(fault.NotFound, fmt.Sprintf("image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
		name, asked, platforms.Format(is)))
}

// platformAbsent is Docker's sentence where there were several to choose from.
// stored may be empty.
func platformAbsent(name, asked, stored string) error {
	if stored != "" {
		stored = "; there is " + stored
	}
	return fault.Say(fault.NotFound, fmt.Sprintf("image with reference %s was found but does not provide the specified platform (%s)%s", name, asked, stored))
}

// image is the record of an image with that config; layers and names are the
// caller's to add.
func (c configFile) image(id string) record.Image {
	img := record.Image{
		Version: record.Version,
		ID:      id,
		Pulled:  time.Now().UTC(),
		OS:      c.OS,
		Arch:    c.Architecture,
		Variant: c.Variant,
		Author:  c.Author,
		Comment: c.Comment,
		Config: record.ImageConfig{
			User:         c.Config.User,
			Env:          c.Config.Env,
			Entrypoint:   c.Config.Entrypoint,
			Cmd:          c.Config.Cmd,
			WorkDir:      c.Config.WorkingDir,
			Labels:       c.Config.Labels,
			StopSignal:   c.Config.StopSignal,
			Volumes:      slices.Sorted(maps.Keys(c.Config.Volumes)),
			ExposedPorts: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
			Shell:        c.Config.Shell,
			Health:       c.Config.Healthcheck,
		},
	}
	if c.Created != nil {
		img.Created = *c.Created
	}
	for _, h := range c.History {
		line := record.History{CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment, EmptyLayer: h.EmptyLayer}
		if h.Created != nil {
			line.Created = *h.Created
		}
		img.History = append(img.History, line)
	}
	return img
}
