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
	platform, err := onePlatform(r.Form["platform"])
	if err != nil {
		return err
	}
	out := &streamed{ResponseWriter: w, kind: "application/x-tar"}
	err = d.engine.Save(r.Context(), ask.SaveImages{Names: names, Platform: platform}, out)
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

// onePlatform reads the platform parameter, JSON of an OCI platform, since API
// 1.48. An image of several platforms is kept as one of them.
func onePlatform(given []string) (string, error) {
	if len(given) == 0 || given[0] == "" {
		return "", nil
	}
	if len(given) > 1 {
		return "", refuse("saving several platforms of an image", "give --platform once: an image is kept for one platform")
	}
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(given[0]), &p); err != nil || p.OS == "" || p.Architecture == "" {
		return "", invalid("failed to parse platform %q", short(given[0]))
	}
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name, nil
}
