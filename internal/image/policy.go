package image

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"fief/internal/words/fault"

	"github.com/distribution/reference"
)

// Policy says which images are pulled only with a signature. The zero Policy
// asks for none. Of every requirement that an image's name matches, one key
// must have signed it.
type Policy []requirement

// requirement is one entry of a Policy.
type requirement struct {
	pattern  string // as written
	signedAs string // pattern of the name that the signature must hold; empty: the image's own
	keys     []publicKey
}

// publicKey is one that may sign. Its name is the file it came from.
type publicKey struct {
	name string
	key  crypto.PublicKey
}

// Require adds a requirement. pattern is a repository ("registry.lan/app"),
// all below a path ("registry.lan/*"), or "*". keys are files with PEM public
// keys: ECDSA, Ed25519, or RSA of 2048 bits and more. signedAs, of the same
// form, replaces the check that the signature was made for the very repository
// that is pulled from, which copies of signed images fail.
func (p Policy) Require(pattern string, keys []string, signedAs string) (Policy, error) {
	if err := checkPattern(pattern); err != nil {
		return nil, err
	}
	if signedAs != "" {
		if err := checkPattern(signedAs); err != nil {
			return nil, err
		}
	}
	r := requirement{pattern: pattern, signedAs: signedAs}
	if len(keys) == 0 {
		return nil, fault.New(fault.Invalid, "require signatures for", pattern, "it names no keys", "add keys = [\"/path/to/key.pub\"]")
	}
	for _, file := range keys {
		k, err := readKey(file)
		if err != nil {
			return nil, err
		}
		r.keys = append(r.keys, k)
	}
	return append(p, r), nil
}

// checkPattern accepts only patterns that some name can match: one with a
// spelling error would protect nothing.
func checkPattern(pattern string) error {
	if pattern == "*" {
		return nil
	}
	name, _ := strings.CutSuffix(pattern, "/*")
	if name == pattern {
		if named, err := reference.ParseNormalizedNamed(pattern); err == nil && named.Name() == pattern && repositoryOf(named) == pattern {
			return nil
		}
	} else if named, err := reference.ParseNormalizedNamed(name + "/x"); err == nil && named.Name() == name+"/x" && repositoryOf(named) == name+"/x" {
		return nil
	}
	return fault.New(fault.Invalid, "require signatures for", pattern, "no image has such a name",
		`patterns are whole names like "docker.io/library/debian", "registry.lan/*" or "*"`)
}

// matches reports whether a repository falls under a pattern.
func matches(pattern, repository string) bool {
	if below, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(repository, below)
	}
	return pattern == repository
}

// repositoryOf is a repository's name as patterns are compared with: host names
// do not differ by case, a default port says nothing, and Docker Hub has more
// than one name. Otherwise another spelling would go round the policy.
func repositoryOf(named reference.Named) string {
	host := strings.ToLower(reference.Domain(named))
	host = strings.TrimSuffix(strings.TrimSuffix(host, ":443"), ":80")
	if host == "registry-1.docker.io" || host == "index.docker.io" {
		host = "docker.io"
	}
	return host + "/" + reference.Path(named)
}

func readKey(file string) (publicKey, error) {
	bad := func(why string) (publicKey, error) {
		return publicKey{}, fault.New(fault.Invalid, "use key", file, why, "cosign public-key --key cosign.key prints one")
	}
	if !filepath.IsAbs(file) {
		return bad("its path is not absolute")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return publicKey{}, fault.Wrap(fault.Invalid, "use key", file, err, "name another file in the policy")
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return bad("it does not hold one PEM block PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return publicKey{}, fault.Wrap(fault.Invalid, "use key", file, err, "")
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return publicKey{file, key}, nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return publicKey{file, key}, nil
		}
		return bad(fmt.Sprintf("it is an RSA key of %d bits, fewer than 2048", k.N.BitLen()))
	}
	return bad("it is of a kind that is not known here")
}

// verifies reports whether sig is the key's signature of payload, as cosign
// makes them: SHA-256 and ASN.1 with ECDSA, PKCS #1 v1.5 with RSA, the payload
// itself with Ed25519 (sigstore pkg/signature, LoadVerifier).
func (k publicKey) verifies(payload, sig []byte) bool {
	sum := sha256.Sum256(payload)
	switch key := k.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(key, payload, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	}
	return false
}
