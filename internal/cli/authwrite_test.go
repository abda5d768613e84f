package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/words/ask"
)

// Credentials go where docker keeps them, and what fief does not know in that
// file stays.
func TestKeepCredentials(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", filepath.Join(dir, "docker"))
	a := ask.RegistryAuth{ServerAddress: "reg.lan:5000", Username: "u", Password: "p:q"}
	file, err := keepCredentials(a)
	if err != nil || file != filepath.Join(dir, "docker/config.json") {
		t.Fatal(file, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if got, err := credentials("reg.lan:5000/img"); err != nil || got != a {
		t.Errorf("%+v %v", got, err)
	}
	if err := os.WriteFile(file, []byte(`{"psFormat":"x","auths":{"https://reg.lan:5000/":{"auth":"dTpw"},"other.lan":{"auth":"dTpw","email":"e"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	hubAuth := ask.RegistryAuth{ServerAddress: hub, Username: "h", Password: "s"}
	if _, err := keepCredentials(hubAuth); err != nil {
		t.Fatal(err)
	}
	if got, err := credentials("debian"); err != nil || got != hubAuth {
		t.Errorf("%+v %v", got, err)
	}
	if known, err := dropCredentials("reg.lan:5000"); err != nil || !known {
		t.Error(known, err)
	}
	if known, err := dropCredentials("reg.lan:5000"); err != nil || known {
		t.Error(known, err)
	}
	raw, err := os.ReadFile(file)
	if err != nil || !json.Valid(raw) {
		t.Fatal(string(raw), err)
	}
	for _, part := range []string{`"psFormat": "x"`, `"email": "e"`, hub} {
		if !strings.Contains(string(raw), part) {
			t.Errorf("no %s in %s", part, raw)
		}
	}
	if names, _ := os.ReadDir(filepath.Dir(file)); len(names) != 1 {
		t.Errorf("%v is left", names)
	}
	for _, text := range []string{"null", `{"auths":null}`, ""} {
		os.WriteFile(file, []byte(text), 0o600)
		if _, err := keepCredentials(a); (err == nil) != (text != "") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCredentialHelper(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\ncd " + dir + "\ncase $1 in\nstore) cat > kept;;\nget) if [ -e kept ]; then cat kept; else echo credentials not found in native keychain; exit 1; fi;;\nerase) rm kept;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-box"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	config := `{"credHelpers":{"reg.lan":"box"}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range []ask.RegistryAuth{
		{ServerAddress: "reg.lan", Username: "u", Password: "p"}, {ServerAddress: "reg.lan", IdentityToken: "token"},
	} {
		if file, err := keepCredentials(a); err != nil || file != "" {
			t.Fatal(file, err)
		}
		if got, err := credentials("reg.lan/img"); err != nil || got != a {
			t.Errorf("%+v %v", got, err)
		}
		if known, err := dropCredentials("reg.lan"); err != nil || !known {
			t.Error(known, err)
		}
		if known, err := dropCredentials("reg.lan"); err != nil || known {
			t.Error(known, err)
		}
	}
	if raw, _ := os.ReadFile(filepath.Join(dir, "config.json")); string(raw) != config {
		t.Errorf("the file has become %s", raw)
	}
}

func TestServerKey(t *testing.T) {
	for server, want := range map[string]string{"": hub, "docker.io": hub, "https://index.docker.io/v1/": hub, "reg.lan:5000": "reg.lan:5000", "https://reg.lan/v2/": "reg.lan"} {
		if got := serverKey(server); got != want {
			t.Errorf("%q is %q, want %q", server, got, want)
		}
	}
	for name, want := range map[string]string{"debian:13": "docker.io/library/debian:13", "a/b:1": "docker.io/a/b:1", "docker.io/x:1": "docker.io/library/x:1", "reg.lan/x:1": "reg.lan/x:1"} {
		if got := wholeReference(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}
