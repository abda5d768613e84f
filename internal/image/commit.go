package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"fief/internal/words/ask"
	"fief/internal/words/failpoint"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/klauspost/compress/gzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Commit says what image to make of a container.
type Commit struct {
	Ask       ask.Commit
	Base      record.Image     // the container's image; zero: it has none
	Container ask.CommitConfig // what the container was made to run as
	CreatedBy string           // its command, for the history
}

// Commit makes an image of the base's layers and one more, which write writes as
// a plain tar; it returns how many entries that has. Without any, the image has
// the base's layers. The config is the container's, under what was asked for,
// under the changes; what the base's config says besides stays. As durable as
// a pull, and on an error nothing has changed.
func (s *Store) Commit(ctx context.Context, want Commit, write func(io.Writer) (int64, error)) (record.Image, error) {
	names, err := commitNames(want.Ask.Name)
	if err != nil {
		return record.Image{}, err
	}
	run, err := asked(want)
	if err != nil {
		return record.Image{}, err
	}
	base, err := s.baseOf(want.Base.ID)
	if err != nil {
		return record.Image{}, err
	}
	h := s.hold()
	defer h.release()
	for _, l := range base.layers {
		h.blob(l.Digest.String())
	}
	desc, diffID, entries, err := s.writeLayer(ctx, h, write)
	if err != nil {
		return record.Image{}, err
	}
	failpoint.Hit("commit-written")
	if entries > 0 {
		base.layers = append(base.layers, desc)
		base.config.RootFS.DiffIDs = append(base.config.RootFS.DiffIDs, diffID)
	}
	now := time.Now().UTC()
	cfg := base.config
	cfg.RootFS.Type = "layers"
	cfg.Created, cfg.Author, cfg.Comment, cfg.Config = &now, want.Ask.Author, want.Ask.Message, run
	cfg.History = append(cfg.History, ocispec.History{
		Created: &now, CreatedBy: want.CreatedBy, Author: cfg.Author, Comment: cfg.Comment, EmptyLayer: entries == 0})
	raw, err := base.write(cfg)
	if err != nil {
		return record.Image{}, err
	}
	b, err := s.compose(ctx, h, raw, base.layers)
	if err != nil {
		return record.Image{}, err
	}
	return b.finish(ctx, names)
}

func commitNames(name string) ([]string, error) {
	if strings.Contains(name, "@") {
		return nil, fault.Say(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	return importNames(name)
}

// base is the image that a container was made of, as stored.
type base struct {
	raw    []byte // of its config
	config configFile
	layers []ocispec.Descriptor
}

func (s *Store) baseOf(id string) (base, error) {
	e, ok := s.known.Load().images[id]
	if !ok {
		return base{}, fault.New(fault.NotFound, "commit to", id, "the container's image is gone", "")
	}
	raw := s.blobs.small(e.Manifest.Digest.String(), e.Manifest.Size)
	cfg := s.blobs.small(id, maxConfig)
	if raw == nil || cfg == nil {
		return base{}, fault.New(fault.Corrupt, "commit to", id, "its manifest or config is damaged", "pull the image again")
	}
	doc, err := parseDocument(raw, e.Manifest.MediaType)
	if err != nil {
		return base{}, err
	}
	b := base{raw: cfg}
	if b.config, err = parseConfig(cfg, len(doc.Layers)); err != nil {
		return base{}, err
	}
	for _, l := range doc.Layers { // with OCI's media types, also when the base is of Docker's
		d, err := s.describe(l.Digest.String(), l.Size)
		if err != nil {
			return base{}, err
		}
		b.layers = append(b.layers, d)
	}
	return b, nil
}

// write makes the new config of the base's: fields that are not known here, such
// as a health check, stay as they are. Those that were of the base alone go.
func (b base) write(cfg configFile) ([]byte, error) {
	old, inner := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(b.raw, &old); err != nil || old == nil {
		return nil, fault.Wrap(fault.Corrupt, "read image config", "", err, "")
	}
	if raw := old["config"]; raw != nil && string(raw) != "null" { // as old tools write
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, fault.Wrap(fault.Corrupt, "read image config", "", err, "")
		}
	}
	for _, key := range []string{"id", "parent", "container", "container_config", "docker_version", "moby.buildkit.buildinfo.v1",
		"author", "comment", "created", "history", "rootfs"} {
		delete(old, key)
	}
	for _, key := range []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Shell", "ArgsEscaped", "Image"} {
		delete(inner, key)
	}
	if err := overlay(inner, cfg.Config); err != nil {
		return nil, err
	}
	if err := overlay(old, cfg); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(inner)
	if err == nil {
		old["config"] = raw
		raw, err = json.Marshal(old)
	}
	return raw, fault.Wrap(fault.Internal, "write image config", "", err, "")
}

// overlay sets the fields of v in an object.
func overlay(object map[string]json.RawMessage, v any) error {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &object)
	}
	return fault.Wrap(fault.Internal, "write image config", "", err, "")
}

// writeLayer makes a blob, held by h, of the tar that write writes, compressed
// for speed: it is written while somebody waits, and read again when the image
// is pushed, if ever.
func (s *Store) writeLayer(ctx context.Context, h *hold, write func(io.Writer) (int64, error)) (desc ocispec.Descriptor, diffID string, entries int64, err error) {
	out, in := io.Pipe()
	sum := sha256.New()
	done := make(chan error, 1)
	go func() {
		z, err := gzip.NewWriterLevel(in, gzip.BestSpeed)
		if err == nil {
			plain := bufio.NewWriterSize(io.MultiWriter(z, sum), 256<<10)
			if entries, err = write(plain); err == nil {
				err = plain.Flush()
			}
		}
		if err == nil {
			err = z.Close()
		}
		in.CloseWithError(err)
		done <- err
	}()
	desc, err = s.ingestLayer(ctx, h, out)
	out.CloseWithError(err) // ends a write that nobody reads any more
	if wrote := <-done; err == nil {
		err = wrote
	}
	return desc, sumOf(sum), entries, err
}

// asked is the config that was asked for, changes included, over the
// container's.
func asked(want Commit) (configRun, error) {
	c := runOf(want.Ask.Config)
	for _, line := range want.Ask.Changes {
		if err := c.apply(line); err != nil {
			return c, err
		}
	}
	c.inherit(runOf(want.Container))
	return c, nil
}

func runOf(c ask.CommitConfig) configRun {
	set := func(list []string) map[string]struct{} {
		out := map[string]struct{}{}
		for _, v := range list {
			out[v] = struct{}{}
		}
		return out
	}
	return configRun{
		User: c.User, ExposedPorts: set(c.ExposedPorts), Env: slices.Clone(c.Env), Entrypoint: slices.Clone(c.Entrypoint),
		Cmd: slices.Clone(c.Cmd), Volumes: set(c.Volumes), WorkingDir: c.WorkDir, Labels: maps.Clone(c.Labels),
		StopSignal: c.StopSignal, Shell: slices.Clone(c.Shell),
	}
}

// inherit fills in what is not set, the way `docker commit` does: of lists of
// names every one that is missing, and the command only without an entrypoint
// of its own.
func (c *configRun) inherit(from configRun) {
	first := func(to *string, from string) {
		if *to == "" {
			*to = from
		}
	}
	first(&c.User, from.User)
	first(&c.WorkingDir, from.WorkingDir)
	first(&c.StopSignal, from.StopSignal)
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		c.Entrypoint = from.Entrypoint
	}
	if len(c.Shell) == 0 {
		c.Shell = from.Shell
	}
	maps.Copy(c.ExposedPorts, from.ExposedPorts)
	maps.Copy(c.Volumes, from.Volumes)
	for _, e := range from.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(c.Env, func(own string) bool { return strings.HasPrefix(own, name+"=") }) {
			c.Env = append(c.Env, e)
		}
	}
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
}
