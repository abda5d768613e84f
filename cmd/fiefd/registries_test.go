package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRegistries(t *testing.T) {
	s, err := configure([]string{"--config-file", write(t, `
[registries."docker.io"]
mirrors = ["https://mirror.lan", "http://cache.lan:5000/hub"]
[registries."registry.lan:5000"]
insecure = true
`)})
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.reach()
	if err != nil || len(all["docker.io"].Mirrors) != 2 || all["docker.io"].Mirrors[1].String() != "http://cache.lan:5000/hub" || !all["registry.lan:5000"].Insecure {
		t.Errorf("%+v %v", all, err)
	}
}

func TestPolicySettings(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := configure([]string{"--config-file", write(t, `
[policy]
require = [{ registry = "registry.lan/*", keys = ["`+key+`"] }, { registry = "*", keys = ["`+key+`"], signed-as = "prod.lan/*" }]
`)})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.policy(); err != nil || len(p) != 2 {
		t.Errorf("%+v %v", p, err)
	}
}

// A daemon whose policy or mirrors cannot be understood does not start.
func TestBadRegistries(t *testing.T) {
	for text, want := range map[string]string{
		"[registries.\"docker.io\"]\nmirrors = [\"mirror.lan\"]":                           "https://",
		"[registries.\"docker.io\"]\nmirors = []":                                          "mirors",
		"[registries.\"a/b\"]\ninsecure = true":                                            "no name of a registry",
		"[policy]\nrequire = [{ registry = \"*\" }]":                                       "names no keys",
		"[policy]\nrequire = [{ registry = \"*\", keys = [\"/no/such/key\"] }]":            "/no/such/key",
		"[policy]\nrequire = [{ registry = \"debian\", keys = [\"/no/such/key\"] }]":       "no image has such a name",
		"[policy]\nrequire = [{ regisrty = \"*\", keys = [\"/no/such/key\"] }]":            "regisrty",
		"[policy]\nrequires = [{ registry = \"*\", keys = [\"/no/such/key\"] }]":           "requires",
		"[policy]\nrequire = { registry = \"*\", keys = [\"/no/such/key\"] }":              "require",
		"[policy]\nrequire = [{ registry = \"*\", keys = [\"relative.pub\"] }]":            "not absolute",
		"[policy]\nrequire = [{ registry = \"*\", keys = [\"/x\"], signed-as = \"app\" }]": "no image has such a name",
	} {
		_, err := configure([]string{"--config-file", write(t, text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
