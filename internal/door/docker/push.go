package docker

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"
)

// pusher is what sends images away, and asks registries about credentials.
type pusher interface {
	Push(ctx context.Context, p ask.PushImage, progress func(record.Progress)) ([]record.Pushed, error)
	Login(ctx context.Context, a ask.RegistryAuth) (record.LoggedIn, error)
}

// pushed is the last thing of a push, which scripts read.
type pushed struct {
	Tag    string
	Digest string
	Size   int64
}

// imagePush pushes one tag, or all of a repository when none is given.
func (d *door) imagePush(w http.ResponseWriter, r *request) error {
	platform, err := platformOf(r.Form.Get("platform")) // since API 1.46
	if err != nil {
		return err
	}
	ref, err := normalName(r.name, r.Form.Get("tag"))
	if err != nil {
		return err
	}
	if _, digested := ref.(reference.Digested); digested {
		return invalid("cannot push a digest reference")
	}
	out := newProgress(w)
	done, err := d.engine.Push(r.Context(), ask.PushImage{
		Name: ref.String(), Platform: platform, All: reference.IsNameOnly(ref), Auth: registryAuth(r.Header.Get(registry.AuthHeader)),
	}, out.step)
	for _, p := range done {
		out.aux(pushed(p))
	}
	if err != nil {
		return out.fail(err)
	}
	out.open()
	return nil
}

// auth asks the registry whether the credentials are good; the client keeps
// them.
func (d *door) auth(w http.ResponseWriter, r *request) error {
	var c registry.AuthConfig
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&c); err != nil {
		return invalid("invalid JSON: %v", err)
	}
	got, err := d.engine.Login(r.Context(), ask.RegistryAuth{
		Username: c.Username, Password: c.Password, ServerAddress: c.ServerAddress,
		IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	})
	if fault.Is(err, fault.Denied) { // only here is it 401: clients ask for a password again
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		return json.NewEncoder(w).Encode(map[string]string{"message": message(err)})
	}
	if err != nil {
		return err
	}
	return ok(w, registry.AuthResponse{Status: got.Status, IdentityToken: got.IdentityToken})
}
