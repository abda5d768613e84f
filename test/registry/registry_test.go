// Package registry holds sessions of fief and docker with a real registry:
// Debian's docker-registry, on loopback, with basic authentication.
package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"fief/internal/image/remote"
	"fief/internal/testenv"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// htpasswd is user "u" with password "secret", by bcrypt, as docker-registry
// wants it; the salt is no secret either.
const htpasswd = "u:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"

// serve starts a docker-registry and returns its host. It ends with the test.
func serve(t *testing.T, private bool) string {
	t.Helper()
	binary, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("tool: no docker-registry")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/store}, delete: {enabled: true}}\nhttp: {addr: %q}\n", dir, host)
	if private {
		if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(htpasswd), 0o600); err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s/htpasswd}}\n", dir)
	}
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", config)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if raw, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("the registry said:\n%s", raw)
		}
	})
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", host); err == nil {
			c.Close()
			return host
		}
	}
	t.Fatal("the registry does not listen")
	return ""
}

// session is a daemon and a place for credentials.
type session struct {
	*testenv.Daemon
	config string // DOCKER_CONFIG
}

func start(t *testing.T, args ...string) session {
	t.Helper()
	s := session{testenv.Start(t, args...), t.TempDir()}
	return s
}

// run runs a client, and fails the test unless it ends with the code.
func (s session) run(t *testing.T, code int, stdin, name string, args ...string) string {
	t.Helper()
	cmd := s.Command(t, name, args...)
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+s.config)
	cmd.Stdin = strings.NewReader(stdin)
	out, errs, got := testenv.Output(t, cmd)
	if got != code {
		t.Fatalf("%s %v: exit %d, want %d\n%s%s\n%s", name, args, got, code, out, errs, s.Log())
	}
	return out + errs
}

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}

// fief and docker log in, push, pull and log out; skopeo reads what they wrote.
func TestSession(t *testing.T) {
	host := serve(t, true)
	s := start(t)
	s.Busybox(t)
	name := host + "/lib/busybox"
	s.Must(t, "tag", "busybox", name+":1")
	s.Must(t, "tag", "busybox", name+":2")
	s.Must(t, "tag", "busybox", host+"/other:x")
	wantIn(t, s.run(t, 1, "", "fief", "push", name+":1"), "no basic auth credentials")
	wantIn(t, s.run(t, 1, "wrong", "fief", "login", "-u", "u", "--password-stdin", host), "incorrect username or password")
	wantIn(t, s.run(t, 0, "secret\n", "fief", "login", "-u", "u", "--password-stdin", host), "Login Succeeded")
	wantIn(t, s.run(t, 0, "", "fief", "push", name+":1"), "The push refers to repository ["+name+"]", "Pushed", "1: digest: sha256:")
	wantIn(t, s.run(t, 0, "", "fief", "push", "-a", name), "Layer already exists", "2: digest: sha256:")
	wantIn(t, s.run(t, 0, "", "fief", "push", host+"/other:x"), "Mounted from "+name)
	wantIn(t, s.run(t, 0, "", "fief", "push", "--platform", "linux/"+runtime.GOARCH, host+"/other:x"), "x: digest: sha256:")
	wantIn(t, s.run(t, 1, "", "fief", "push", "--platform", "linux/s390x", host+"/other:x"), "does not match the specified platform: wanted linux/s390x")
	if got := s.run(t, 0, "", "fief", "push", "-q", host+"/other:x"); got != host+"/other:x\n" {
		t.Errorf("%q", got)
	}
	id := s.Must(t, "images", "-q", "--no-trunc", name+":1")
	s.run(t, 0, "", "fief", "rmi", "-f", strings.TrimSpace(id))
	wantIn(t, s.run(t, 0, "", "fief", "pull", name+":2"), "Pull complete", "Status: Downloaded newer image")
	if got := s.Must(t, "images", "-q", "--no-trunc", name+":2"); got != id {
		t.Errorf("pushed %s, pulled %s", id, got)
	}
	s.Must(t, "run", "--rm", "--network", "none", name+":2", "true")

	if skopeo, err := exec.LookPath("skopeo"); err == nil {
		dir := t.TempDir()
		out, err := exec.Command(skopeo, "copy", "--src-tls-verify=false", "--src-creds", "u:secret", "docker://"+host+"/other:x", "oci:"+dir+"/layout:x").CombinedOutput()
		if err != nil {
			t.Errorf("skopeo: %v\n%s", err, out)
		}
	} else {
		t.Log("tool: no skopeo")
	}
	wantIn(t, s.run(t, 0, "", "fief", "logout", host), "Removing login credentials for "+host)
	wantIn(t, s.run(t, 1, "", "fief", "pull", name+":1"), "pull access denied")

	if _, err := exec.LookPath("docker"); err != nil {
		t.Log("tool: no docker client")
		return
	}
	wantIn(t, s.run(t, 1, "wrong", "docker", "login", "-u", "u", "--password-stdin", host), "incorrect username or password")
	wantIn(t, s.run(t, 0, "secret", "docker", "login", "-u", "u", "--password-stdin", host), "Login Succeeded")
	s.run(t, 0, "", "docker", "tag", name+":2", host+"/by/docker")
	wantIn(t, s.run(t, 0, "", "docker", "push", host+"/by/docker"), "Using default tag: latest", "Mounted from", "latest: digest: sha256:")
	wantIn(t, s.run(t, 0, "", "docker", "push", "--platform", "linux/"+runtime.GOARCH, host+"/by/docker"), "Layer already exists")
	wantIn(t, s.run(t, 1, "", "docker", "push", "--platform", "linux/s390x", host+"/by/docker"), "does not match the specified platform")
	wantIn(t, s.run(t, 0, "", "docker", "push", "-a", host+"/by/docker"), "latest: digest: sha256:")
	s.run(t, 0, "", "docker", "rmi", host+"/by/docker")
	wantIn(t, s.run(t, 0, "", "docker", "pull", "-a", host+"/lib/busybox"), "Pulling from lib/busybox", "Status: Downloaded newer image for "+host+"/lib/busybox")
	if got := s.run(t, 0, "", "docker", "pull", "-q", "--platform", "linux/"+runtime.GOARCH, host+"/by/docker"); got != host+"/by/docker:latest\n" {
		t.Errorf("%q", got)
	}
	s.run(t, 0, "", "docker", "rmi", host+"/by/docker")
	wantIn(t, s.run(t, 0, "", "docker", "pull", host+"/by/docker"), "Status: Downloaded newer image for "+host+"/by/docker:latest")
	s.run(t, 0, "", "docker", "logout", host)
	wantIn(t, s.run(t, 1, "", "docker", "push", host+"/by/docker"), "no basic auth credentials")
}

// A registry is a mirror of another that cannot be reached; what lies there is
// taken only with a signature.
func TestMirrorAndPolicy(t *testing.T) {
	mirror := serve(t, false)
	origin := "registry.invalid"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	public := write("cosign.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	config := write("fief.toml", fmt.Sprintf("[registries.%q]\nmirrors = [\"http://%s\"]\n[policy]\nrequire = [{ registry = \"%s/*\", keys = [%q] }]\n", origin, mirror, origin, public))
	s := start(t, "--config-file", config)
	s.Busybox(t)
	s.Must(t, "tag", "busybox", mirror+"/app")
	out := s.run(t, 0, "", "fief", "push", mirror+"/app")
	_, d, _ := strings.Cut(out, "latest: digest: ")
	d, _, _ = strings.Cut(d, " ")
	wantIn(t, s.run(t, 1, "", "fief", "pull", origin+"/app"), "the policy for "+origin+"/* requires a signature", public)
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":"%s/app"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}`, origin, d)
	sum := sha256.Sum256([]byte(payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	pushSignature(t, mirror+"/app", d, payload, base64.StdEncoding.EncodeToString(sig))
	wantIn(t, s.run(t, 0, "", "fief", "pull", origin+"/app"), origin+"/app:latest")
	s.Must(t, "run", "--rm", "--network", "none", origin+"/app", "true")
}

// pushSignature stores a signature in a registry as cosign does.
func pushSignature(t *testing.T, name, d, payload, signature string) {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	repo, err := remote.Connect(ctx, named, remote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	blob := func(mediaType, text string) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
		if _, err := repo.PushBlob(ctx, desc, strings.NewReader(text), nil, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	layer := blob("application/vnd.dev.cosign.simplesigning.v1+json", payload)
	layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": signature}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob(ocispec.MediaTypeImageConfig, "{}"), Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if err := repo.PushManifest(ctx, desc, raw, strings.Replace(d, ":", "-", 1)+".sig"); err != nil {
		t.Fatal(err)
	}
}

// A blob in chunks is taken by a real registry, too, also one that is broken
// off between two of them.
func TestChunks(t *testing.T) {
	host := serve(t, false)
	named, err := reference.ParseNormalizedNamed(host + "/big")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := remote.Connect(context.Background(), named, remote.Options{Chunk: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	blob := strings.Repeat("0123456789abcdef", 5<<16) + "rest"
	desc := ocispec.Descriptor{Digest: digest.FromString(blob), Size: int64(len(blob))}
	if _, err := repo.PushBlob(context.Background(), desc, strings.NewReader(blob), nil, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if got, err := repo.Small(context.Background(), desc, desc.Size); err != nil || string(got) != blob {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(blob), err)
	}
}
