package image

import (
	"context"
	"log/slog"
	"slices"

	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/distribution/reference"
)

// Registry is how a registry is reached.
type Registry struct {
	Mirrors  []remote.Mirror // asked in order before the registry itself
	Insecure bool            // it may lack TLS
}

// Registries are by name as in image names: "docker.io", "host[:port]".
type Registries map[string]Registry

// ParseRegistry reads one registry's part of the configuration: its name, and
// the addresses of its mirrors.
func (r Registries) ParseRegistry(name string, mirrors []string, insecure bool) error {
	named, err := reference.ParseNormalizedNamed(name + "/x")
	if err != nil || reference.Domain(named) != name {
		return fault.New(fault.Invalid, "use registry", name, "it is no name of a registry", "registries are written like docker.io or registry.lan:5000")
	}
	entry := Registry{Insecure: insecure}
	for _, text := range mirrors {
		m, err := remote.ParseMirror(text)
		if err != nil {
			return err
		}
		if m.Host == name && m.Prefix == "" {
			return fault.New(fault.Invalid, "use mirror", text, "it is the registry that it is to mirror", "")
		}
		entry.Mirrors = append(entry.Mirrors, m)
	}
	r[name] = entry
	return nil
}

// remoteOptions are for a connection on behalf of a client.
func (s *Store) remoteOptions(auth ask.RegistryAuth, plain bool) remote.Options {
	o := remote.Options{
		Insecure: slices.Clip(s.opt.Insecure), PlainHTTP: plain, Auth: auth, UserAgent: s.opt.UserAgent, Stall: s.opt.Stall,
		Mirrors: map[string][]remote.Mirror{},
		Fallen:  fallen,
	}
	for name, r := range s.opt.Registries {
		o.Mirrors[name] = r.Mirrors
		if r.Insecure {
			o.Insecure = append(o.Insecure, hostOf(name))
		}
	}
	return o
}

// fallen notes why a mirror was not used. One that does not have everything is
// nothing to warn of.
func fallen(m remote.Mirror, err error) {
	level := slog.LevelWarn
	if fault.Is(err, fault.NotFound) {
		level = slog.LevelDebug
	}
	slog.Log(context.Background(), level, "a mirror cannot serve; the next is asked", "mirror", m.String(), "error", err)
}

// hostOf is where a registry really is: Docker Hub's is not docker.io.
func hostOf(registry string) string {
	if registry == "docker.io" {
		return "registry-1.docker.io"
	}
	return registry
}
