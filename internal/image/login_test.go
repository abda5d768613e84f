package image

import (
	"context"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"
)

func TestLogin(t *testing.T) {
	w := newWorld(t)
	for _, scheme := range []string{"basic", "bearer"} {
		host := serve(t, &registrytest.Registry{Auth: registrytest.Auth{Scheme: scheme, User: "u", Password: "p"}})
		for _, address := range []string{host, "http://" + host, "https://" + host + "/v1/"} {
			got, err := w.Login(context.Background(), ask.RegistryAuth{Username: "u", Password: "p", ServerAddress: address})
			if err != nil || got.Status != "Login Succeeded" {
				t.Error(scheme, address, got, err)
			}
		}
		_, err := w.Login(context.Background(), ask.RegistryAuth{Username: "u", Password: "q", ServerAddress: host})
		wantClass(t, err, fault.Denied, "incorrect username or password")
	}
	_, err := w.Login(context.Background(), ask.RegistryAuth{ServerAddress: "127.0.0.1:1"})
	wantClass(t, err, fault.Unavailable, "refused")
	_, err = w.Login(context.Background(), ask.RegistryAuth{ServerAddress: "a b"})
	wantClass(t, err, fault.Invalid, "no name of a registry")
	for address, want := range map[string]string{"": "docker.io", "https://index.docker.io/v1/": "docker.io", "reg.lan:5000/x": "reg.lan:5000", "https://reg.lan": "reg.lan"} {
		if got, err := registryHost(address); err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", address, got, err, want)
		}
	}
}
