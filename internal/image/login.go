package image

import (
	"context"
	"net/url"
	"strings"

	"fief/internal/image/remote"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
	"fief/internal/words/record"

	"github.com/distribution/reference"
)

// Login asks the registry of auth.ServerAddress whether it takes the
// credentials. Nothing is kept.
func (s *Store) Login(ctx context.Context, auth ask.RegistryAuth) (record.LoggedIn, error) {
	host, err := registryHost(auth.ServerAddress)
	if err != nil {
		return record.LoggedIn{}, err
	}
	if err := remote.Login(ctx, host, s.remoteOptions(auth, false)); err != nil {
		return record.LoggedIn{}, err
	}
	return record.LoggedIn{Status: "Login Succeeded"}, nil
}

// registryHost reads a registry as docker's configuration names it: empty and
// https://index.docker.io/v1/ are Docker Hub, others a host or a URL.
func registryHost(address string) (string, error) {
	host := address
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil || u.User != nil {
			return "", fault.New(fault.Invalid, "log in to", short(address), "it is no URL of a registry", "")
		}
		host = u.Host
	} else {
		host, _, _ = strings.Cut(address, "/")
	}
	switch host {
	case "", "docker.io", "index.docker.io", "registry-1.docker.io":
		return "docker.io", nil
	}
	named, err := reference.ParseNormalizedNamed(host + "/x/y")
	if err != nil || reference.Domain(named) != host {
		return "", fault.New(fault.Invalid, "log in to", short(address), "it is no name of a registry", "registries are written like registry.example:5000")
	}
	return host, nil
}
