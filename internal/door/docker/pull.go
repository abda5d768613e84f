package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"fief/internal/words/ask"
	"fief/internal/words/record"
)

// fetcher is what brings images in. Each progress call is one step; the
// functions return when the image is complete in the store.
type fetcher interface {
	Pull(ctx context.Context, p ask.PullImage, progress func(record.Progress)) (record.Image, error)
	Load(ctx context.Context, l ask.LoadImages, r io.Reader, progress func(record.Progress)) ([]record.Image, error)
	Import(ctx context.Context, a ask.ImportImage, r io.Reader) (record.Image, error)
}

func (d *door) fetchRoutes() []route {
	return []route{
		on("POST /images/create", d.imageCreate),
		on("POST /images/load", d.imageLoad),
		on("POST /images/*/push", d.imagePush),
	}
}

// imageCreate is two endpoints: pull with fromImage, import with fromSrc.
func (d *door) imageCreate(w http.ResponseWriter, r *request) error {
	if r.Form.Get("fromImage") != "" {
		return d.pull(w, r)
	}
	if r.Form.Get("fromSrc") != "" {
		return d.imageImport(w, r)
	}
	return invalid("fromImage or fromSrc must be given")
}

// pull streams the engine's words. An unknown image is a proper 404 as long as
// nothing was sent, which the CLI and compose tell apart; so the announcement,
// which comes before the registry was asked, waits for the next line.
func (d *door) pull(w http.ResponseWriter, r *request) error {
	// `docker pull -a` may send a name that ends in a colon.
	ref, err := normalName(strings.TrimSuffix(r.Form.Get("fromImage"), ":"), r.Form.Get("tag"))
	if err != nil {
		return err
	}
	out := newProgress(w)
	_, err = d.engine.Pull(r.Context(), ask.PullImage{
		Name: ref.String(), Platform: r.Form.Get("platform"), All: reference.IsNameOnly(ref),
		Auth: registryAuth(r.Header.Get(registry.AuthHeader)),
	}, func(p record.Progress) {
		if strings.HasPrefix(p.Status, "Pulling from ") && out.hold(p) {
			return
		}
		out.step(p)
	})
	if err != nil {
		return out.fail(err)
	}
	out.open()
	return nil
}

// registryAuth reads X-Registry-Auth, base64url of JSON. What cannot be read
// is no credentials, as in Docker: old clients send junk for "none".
func registryAuth(header string) ask.RegistryAuth {
	var c registry.AuthConfig
	if raw, ok := decode64(header); !ok || json.Unmarshal(raw, &c) != nil {
		return ask.RegistryAuth{}
	}
	if raw, ok := decode64(c.Auth); ok && c.Username == "" {
		c.Username, c.Password, _ = strings.Cut(string(raw), ":")
	}
	return ask.RegistryAuth{
		Username: c.Username, Password: c.Password, ServerAddress: c.ServerAddress,
		IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}

// decode64 takes either alphabet, with or without padding.
func decode64(s string) ([]byte, bool) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	raw, err := base64.RawStdEncoding.DecodeString(s)
	return raw, err == nil && len(raw) > 0
}

// imageImport makes an image of the body, or of what the daemon fetches from a
// URL, of http unless it says otherwise. Whoever may use the socket is root and
// has the daemon's place in the network anyway.
func (d *door) imageImport(w http.ResponseWriter, r *request) error {
	source := r.Form.Get("fromSrc")
	switch {
	case source == "-":
		source = ""
	case !strings.Contains(source, "://"):
		source = "http://" + source
	}
	name := ""
	if repo := r.Form.Get("repo"); repo != "" {
		ref, err := normalName(repo, r.Form.Get("tag"))
		if err != nil {
			return err
		}
		if _, digested := ref.(reference.Digested); digested {
			return invalid("cannot import digest reference")
		}
		name = reference.TagNameOnly(ref).String()
	}
	out := newProgress(w)
	img, err := d.engine.Import(r.Context(), ask.ImportImage{
		Name: name, Source: source, Message: r.Form.Get("message"), Changes: r.Form["changes"], Platform: r.Form.Get("platform"),
	}, r.Body)
	if err != nil {
		return out.fail(err)
	}
	out.status("", img.ID)
	return nil
}

// imageLoad answers 200 whatever happens, as Docker does: the client reads the
// error from the stream. What was loaded is told even when quiet, as a text
// that scripts parse.
func (d *door) imageLoad(w http.ResponseWriter, r *request) error {
	platforms, err := platformsOf(r.Form["platform"])
	if err != nil {
		return err
	}
	quiet := r.Form.Get("quiet") == "" || r.truth("quiet")
	// Without this the server drops the rest of the body with the first answer.
	http.NewResponseController(w).EnableFullDuplex()
	out := newProgress(w)
	out.open()
	_, err = d.engine.Load(r.Context(), ask.LoadImages{Platforms: platforms}, r.Body, func(p record.Progress) {
		if strings.HasPrefix(p.Status, "Loaded image") {
			out.text(p.Status + "\n")
		} else if !quiet {
			out.step(p)
		}
	})
	if err != nil {
		return out.fail(err)
	}
	return nil
}
