package docker

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"fief/internal/words/ask"
)

// saver writes images as one archive. An error before the first byte leaves w
// untouched.
type saver interface {
	Save(ctx context.Context, s ask.SaveImages, w io.Writer) error
}

func (d *door) saveRoutes() []route {
	return []route{
		on("GET /images/get", d.imagesGet),
		on("GET /images/*/get", d.imageGet),
	}
}

func (d *door) imagesGet(w http.ResponseWriter, r *request) error {
	return d.save(w, r, r.Form["names"])
}

func (d *door) imageGet(w http.ResponseWriter, r *request) error {
	return d.save(w, r, []string{r.name})
}

// save streams the archive. What goes wrong when the answer has begun cannot
// be said any more: the connection is broken off, so that no client takes the
// beginning of an archive for one.
func (d *door) save(w http.ResponseWriter, r *request, names []string) error {
	platforms, err := platformsOf(r.Form["platform"])
	if err != nil {
		return err
	}
	out := &streamed{ResponseWriter: w, kind: "application/x-tar"}
	err = d.engine.Save(r.Context(), ask.SaveImages{Names: names, Platforms: platforms}, out)
	if err != nil && out.begun {
		panic(http.ErrAbortHandler)
	}
	return err
}

// streamed is an answer of some kind that becomes a stream with its first byte:
// until then it may become an error.
type streamed struct {
	http.ResponseWriter
	kind  string
	begun bool
}

// Write implements io.Writer.
func (s *streamed) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		s.Header().Set("Content-Type", s.kind)
	}
	return s.ResponseWriter.Write(p)
}

// platformsOf reads the platform parameters of a load or save: JSON of an OCI
// platform, once since API 1.48 and several times since 1.52. An empty one is none.
func platformsOf(given []string) ([]string, error) {
	var out []string
	for _, raw := range given {
		p, err := platformOf(raw)
		if err != nil {
			return nil, err
		}
		if p != "" {
			out = append(out, p)
		}
	}
	return out, nil
}

// platformOf reads one such parameter; without one the platform is empty.
func platformOf(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(raw), &p); err != nil || p.OS == "" || p.Architecture == "" {
		return "", invalid("failed to parse platform %q", short(raw))
	}
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name, nil
}
