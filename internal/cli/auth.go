package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os/exec"
	"strings"

	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

// hub is the key of Docker Hub in docker's configuration.
const hub = "https://index.docker.io/v1/"

// dockerConfig is what fief reads of docker's config.json.
type dockerConfig struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
	DetachKeys  string            `json:"detachKeys"`
}

// configuredKeys are the detach keys of docker's config.json; empty when it has
// none or cannot be read: a terminal is no less usable for it.
func configuredKeys() string {
	name := configName()
	if name == "" {
		return ""
	}
	c, _, err := readConfig(name)
	if err != nil {
		return ""
	}
	return c.DetachKeys
}

// credentials are those that `docker login` stored for the registry of an
// image, from $DOCKER_CONFIG/config.json or a credential helper. None is no
// failure.
func credentials(image string) (ask.RegistryAuth, error) {
	name := configName()
	if name == "" {
		return ask.RegistryAuth{}, nil
	}
	c, _, err := readConfig(name)
	if errors.Is(err, fs.ErrPermission) {
		return ask.RegistryAuth{}, nil
	}
	if err != nil {
		return ask.RegistryAuth{}, err
	}
	return c.find(registry(image))
}

// registry is the key under which credentials for an image's registry are kept.
func registry(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "docker.io" || host == "index.docker.io" {
		return hub
	}
	return host
}

func (c dockerConfig) find(key string) (ask.RegistryAuth, error) {
	if h := c.helper(key); h != "" {
		return askHelper(h, key)
	}
	for k, a := range c.Auths {
		if serverOf(k) != key {
			continue
		}
		out := ask.RegistryAuth{ServerAddress: key, IdentityToken: a.IdentityToken}
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return out, fault.Wrap(fault.Invalid, "read credentials of", key, err, "log in again")
		}
		out.Username, out.Password, _ = strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		return out, nil
	}
	return ask.RegistryAuth{}, nil
}

// askHelper runs docker-credential-NAME get, whose protocol is the server's
// name on stdin and JSON on stdout.
func askHelper(helper, key string) (ask.RegistryAuth, error) {
	if strings.ContainsRune(helper, '/') {
		return ask.RegistryAuth{}, fault.New(fault.Invalid, "use credential helper", helper, "its name is a path", "")
	}
	cmd := exec.Command("docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(key)
	out, err := cmd.Output()
	if bytes.Contains(out, []byte("credentials not found")) {
		return ask.RegistryAuth{}, nil
	}
	if err != nil {
		return ask.RegistryAuth{}, fault.Wrap(fault.Unavailable, "ask credential helper", helper, err, "")
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil {
		return ask.RegistryAuth{}, fault.Wrap(fault.Invalid, "read the answer of credential helper", helper, err, "")
	}
	if got.Username == "<token>" {
		return ask.RegistryAuth{ServerAddress: key, IdentityToken: got.Secret}, nil
	}
	return ask.RegistryAuth{ServerAddress: key, Username: got.Username, Password: got.Secret}, nil
}
