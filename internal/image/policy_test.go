package image

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"fief/internal/image/registrytest"
	"fief/internal/words/ask"
	"fief/internal/words/fault"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// signer is a key with the file of its public half.
type signer struct {
	key  crypto.Signer
	file string
}

func newSigner(t testing.TB, key crypto.Signer, err error) signer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer{key, file}
}

func ecdsaSigner(t testing.TB) signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return newSigner(t, key, err)
}

func (s signer) sign(t testing.TB, payload []byte) string {
	t.Helper()
	sum := sha256.Sum256(payload)
	message, hash := sum[:], crypto.SHA256
	if _, ok := s.key.(ed25519.PrivateKey); ok {
		message, hash = payload, 0
	}
	sig, err := s.key.Sign(rand.Reader, message, hash)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

// payloadOf is what cosign signs.
func payloadOf(reference, d, kind string) []byte {
	raw, _ := json.Marshal(map[string]any{"critical": map[string]any{
		"identity": map[string]string{"docker-reference": reference}, "image": map[string]string{"docker-manifest-digest": d}, "type": kind,
	}, "optional": nil})
	return raw
}

// pushSignature stores a payload and its signature as cosign does.
func pushSignature(g *registrytest.Registry, repo string, d digest.Digest, payload []byte, signature string) {
	config := []byte("{}")
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: g.Add(config), Size: 2},
		Layers: []ocispec.Descriptor{{MediaType: simpleSigning, Digest: g.Add(payload), Size: int64(len(payload)), Annotations: map[string]string{signatureKey: signature}}}}
	m.SchemaVersion = 2
	raw, _ := json.Marshal(m)
	g.Tag(repo, "sha256-"+d.Encoded()+".sig", ocispec.MediaTypeImageManifest, raw)
}

func (w *world) require(t testing.TB, pattern, signedAs string, keys ...signer) {
	t.Helper()
	var files []string
	for _, k := range keys {
		files = append(files, k.file)
	}
	p, err := w.opt.Policy.Require(pattern, files, signedAs)
	if err != nil {
		t.Fatal(err)
	}
	w.opt.Policy = p
}

func TestPolicy(t *testing.T) {
	good, other := ecdsaSigner(t), ecdsaSigner(t)
	img := registrytest.Gzipped(registrytest.Layer("a", "1"))
	_, _, desc := img.Files()
	d := desc.Digest
	for name, c := range map[string]struct {
		sign     func(host string) (payload []byte, signature string)
		signedAs string
		why      string // empty: it is pulled
	}{
		"signed": {func(h string) ([]byte, string) {
			p := payloadOf(h+"/img", d.String(), signatureType)
			return p, good.sign(t, p)
		}, "", ""},
		"not signed": {nil, "", "has none"},
		"another key": {func(h string) ([]byte, string) {
			p := payloadOf(h+"/img", d.String(), signatureType)
			return p, other.sign(t, p)
		}, "", "of another key"},
		"no base64": {func(h string) ([]byte, string) { return payloadOf(h+"/img", d.String(), signatureType), "***" }, "", "no base64"},
		"empty":     {func(h string) ([]byte, string) { return payloadOf(h+"/img", d.String(), signatureType), "" }, "", "holds none"},
		"other image": {func(h string) ([]byte, string) {
			p := payloadOf(h+"/img", "sha256:00", signatureType)
			return p, good.sign(t, p)
		}, "", "for another image"},
		"other repo": {func(h string) ([]byte, string) {
			p := payloadOf(h+"/old", d.String(), signatureType)
			return p, good.sign(t, p)
		}, "", "/old, not for"},
		"no name": {func(h string) ([]byte, string) {
			p := payloadOf("", d.String(), signatureType)
			return p, good.sign(t, p)
		}, "", "no valid name"},
		"other type": {func(h string) ([]byte, string) {
			p := payloadOf(h+"/img", d.String(), "atomic")
			return p, good.sign(t, p)
		}, "", "of type"},
		"no json": {func(h string) ([]byte, string) { p := []byte("hello"); return p, good.sign(t, p) }, "", "cannot be read"},
		"copy allowed": {func(h string) ([]byte, string) {
			p := payloadOf("prod.lan/team/img", d.String(), signatureType)
			return p, good.sign(t, p)
		}, "prod.lan/*", ""},
		"copy of else": {func(h string) ([]byte, string) {
			p := payloadOf("test.lan/img", d.String(), signatureType)
			return p, good.sign(t, p)
		}, "prod.lan/*", "test.lan/img, not for prod.lan/*"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &registrytest.Registry{}
			host := serve(t, g)
			g.Push("img", "latest", img)
			g.Push("free", "latest", img)
			if c.sign != nil {
				payload, signature := c.sign(host)
				pushSignature(g, "img", d, payload, signature)
			}
			w := newWorld(t)
			w.require(t, host+"/img", c.signedAs, good)
			if c.why == "" {
				w.pull(t, host+"/img")
				return
			}
			policy := w.opt.Policy
			w.unchanged(t, func() {
				_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
				wantClass(t, err, fault.Denied, c.why)
				wantClass(t, err, fault.Denied, "the policy for "+host+"/img requires a signature")
				if !strings.Contains(fault.HintOf(err), good.file) {
					t.Errorf("hint %q", fault.HintOf(err))
				}
			})
			w.opt.Policy = policy
			w.pull(t, host+"/free") // the policy is about another
			_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
			wantClass(t, err, fault.Denied, c.why) // though all its content is here now
		})
	}
}

// Every requirement that matches must be met, by any of its keys; keys may be
// of three kinds; an index is signed as what the name stands for.
func TestPolicyKeys(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	ed := newSigner(t, edKey, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	rs := newSigner(t, rsaKey, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	large := newSigner(t, p384, err)
	g := &registrytest.Registry{}
	host := serve(t, g)
	child := g.Push("img", "child", registrytest.Gzipped(registrytest.Layer("a", "1")))
	index := g.PushIndex("img", "latest", ocispec.MediaTypeImageIndex, child)
	for _, key := range []signer{ed, rs, large, ecdsaSigner(t)} {
		payload := payloadOf(host+"/img", index.String(), signatureType)
		pushSignature(g, "img", index, payload, key.sign(t, payload))
		w := newWorld(t)
		w.require(t, host+"/*", "", ecdsaSigner(t), key)
		w.pull(t, host+"/img")
		_, err := w.Pull(context.Background(), ask.PullImage{Name: host + "/img:child"}, nil)
		wantClass(t, err, fault.Denied, "has none")
		w.require(t, "*", "", ecdsaSigner(t))
		_, err = w.Pull(context.Background(), ask.PullImage{Name: host + "/img"}, nil)
		wantClass(t, err, fault.Denied, "the policy for * requires")
	}
}

func TestPolicyNames(t *testing.T) {
	key := ecdsaSigner(t)
	for name, pattern := range map[string]string{
		"registry.lan/app": "registry.lan/*", "REGISTRY.lan/app": "registry.lan/*", "registry.lan:443/app:1": "registry.lan/app",
		"registry-1.docker.io/library/debian": "docker.io/library/debian", "debian": "docker.io/library/*", "registry.lan:5000/a/b": "registry.lan:5000/a/*",
		"x/y": "*",
	} {
		named, err := parseName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPattern(pattern); err != nil {
			t.Error(err)
		}
		if !matches(pattern, repositoryOf(named)) {
			t.Errorf("%s goes round the policy for %s", name, pattern)
		}
	}
	if matches("registry.lan/app", "registry.lan/app2") || matches("registry.lan/a/*", "registry.lan/ab") {
		t.Error("a pattern matches too much")
	}
	for _, pattern := range []string{"", "registry.lan", "registry.lan/*/x", "debian", "registry.lan/app:1", "Registry.lan/*", "registry.lan:443/*", "/*", "**", "docker.io/*/"} {
		if _, err := (Policy{}).Require(pattern, []string{key.file}, ""); err == nil {
			t.Errorf("pattern %q is taken", pattern)
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		if _, err := (Policy{}).Require("*", []string{newSigner(t, weak, nil).file}, ""); err == nil || !strings.Contains(err.Error(), "1024 bits") {
			t.Errorf("a key of 1024 bits: %v", err)
		}
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/no/such/file", text, "cosign.pub"} {
		if _, err := (Policy{}).Require("*", []string{file}, ""); err == nil {
			t.Errorf("key %s is taken", file)
		}
	}
	if _, err := (Policy{}).Require("*", nil, ""); err == nil {
		t.Error("a requirement without keys is taken")
	}
}

func FuzzPolicy(f *testing.F) {
	key := ecdsaSigner(f)
	p, err := Policy{}.Require("*", []string{key.file}, "")
	if err != nil {
		f.Fatal(err)
	}
	d := digest.FromString("x")
	good := payloadOf("reg.lan/img", d.String(), signatureType)
	f.Add([]byte(`{"layers":[]}`), good, key.sign(f, good), "reg.lan/*")
	f.Fuzz(func(t *testing.T, manifest, payload []byte, signature, pattern string) {
		if list, err := readSignatures(manifest); err == nil && (len(list) == 0 || len(list) > maxSignatures) {
			t.Errorf("%d signatures", len(list))
		}
		if checkPattern(pattern) == nil && !strings.HasSuffix(pattern, "*") && !matches(pattern, pattern) {
			t.Errorf("%q does not match itself", pattern)
		}
		err := p[0].satisfied(payload, signature, "reg.lan/img", d)
		if err == nil && string(payload) != string(good) {
			t.Errorf("%q passes for %q", signature, payload)
		}
		var c claim
		if json.Unmarshal(payload, &c) == nil {
			p[0].signedFor(c.Critical.Identity.Reference, "reg.lan/img")
		}
	})
}
